"""Synthetic candles, with or without an edge that their features tell, and what a policy earns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from learners.backtest import Backtest, BacktestTrade, UnseenBars, measure
from learners.challenger import settled
from learners.environment import MarketEnvironment
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import Candles
from learners.market.paper_market import Costs, funding_charges
from learners.models import Model, graph
from learners.onnx_graph import ACTION, INPUT
from learners.serving import session_of
from learners.tensor_file import Tensor
from learners.training_market import CandleMarket, TrainingWindow

COLUMNS = 6
DELAY_BARS = 8
EPISODE_BARS = 100
EVALUATED = 64
_MEMORY = 0.9  # of the signal from bar to bar
_NOISE = 0.004

SPEC = EnvironmentSpec(
    costs=Costs(fee_ratio=0.0005, slippage_ratio=0.0002),
    stop_ratio=0.05,
    take_profit_ratio=0.05,
    holding_bars_max=24,
    shorts_allowed=True,
    position_ratio=1.0,
    funding_ratio=0.0,
    episode_bars=EPISODE_BARS,
    equity_ratio_min=0.2,
)


def planted(*, bars: int, edge: float, seed: int) -> tuple[Candles, NDArray[np.float64]]:
    """Return hourly bars whose next return is `edge` times the first feature, and noise of 0.4 %.

    The features are standard normal; the first one remembers 0.9 of itself from bar to bar, the
    others tell nothing. An edge of 0 is a market of noise.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((bars, COLUMNS))
    features[:, 0] = _remembered(features[:, 0])
    return _candles(features[:, 0], edge=edge, rng=rng), features


def planted_before(*, bars: int, edge: float, seed: int) -> tuple[Candles, NDArray[np.float64]]:
    """Return bars whose next return is told by the first feature of the bars before, and noise.

    The features are independent standard normal numbers, from bar to bar too. What tells the return
    is a memory (0.9) of the first one up to `DELAY_BARS` ago: a row alone says nothing of it.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((bars, COLUMNS))
    told = np.zeros(bars)
    told[DELAY_BARS:] = _remembered(features[:-DELAY_BARS, 0])
    return _candles(told, edge=edge, rng=rng), features


def _remembered(fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = fresh.copy()
    for bar in range(1, len(kept)):
        kept[bar] = _MEMORY * kept[bar - 1] + np.sqrt(1.0 - _MEMORY**2) * fresh[bar]
    return kept


def _candles(told: NDArray[np.float64], *, edge: float, rng: np.random.Generator) -> Candles:
    bars = len(told)
    returns = _NOISE * rng.standard_normal(bars)
    returns[1:] += edge * told[:-1]
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate(([100.0], close[:-1]))
    return Candles(
        instrument="PLANTED",
        opened_at=np.datetime64("2024-01-01", "us") + np.arange(bars) * np.timedelta64(1, "h"),
        open=opened,
        high=np.maximum(opened, close) * 1.0005,
        low=np.minimum(opened, close) * 0.9995,
        close=close,
        volume=np.ones(bars),
    )


def market_of(candles: Candles, features: NDArray[np.float64], bars: range) -> CandleMarket:
    """Return these bars as something to train in."""
    window = TrainingWindow(candles=candles, features=features, bars=bars)
    return CandleMarket(windows=(window,), spec=SPEC)


def mean_return(
    network: Model,
    tensors: dict[str, Tensor],
    candles: Candles,
    features: NDArray[np.float64],
    bars: range,
) -> float:
    """Return what the policy earns in an episode on average: a ratio of its capital, after costs.

    Every policy is measured in the same `EVALUATED` windows of `bars`.
    """
    environment = MarketEnvironment(candles, features, SPEC, count=EVALUATED, bars=bars, seed=1)
    seen, wanted = environment.reset(seed=1), _wanted(network, tensors)
    earned = np.zeros(EVALUATED)
    alive = np.ones(EVALUATED, dtype=np.bool_)
    for _ in range(EPISODE_BARS):
        step = environment.step(wanted(seen))
        earned += step.rewards * alive
        alive &= ~(step.terminated | step.truncated)
        seen = step.observations
    return float(earned.mean())


def _wanted(
    model: Model, tensors: dict[str, Tensor]
) -> Callable[[NDArray[np.float32]], NDArray[np.int64]]:
    """Return what says the actions of observations, as in service."""
    session = session_of(graph(model, tensors))

    def actions(seen: NDArray[np.float32]) -> NDArray[np.int64]:
        [found] = session.run([ACTION], {INPUT: seen})
        chosen: NDArray[np.int64] = np.array(found)
        return chosen

    return actions


def backtested(
    network: Model,
    tensors: dict[str, Tensor],
    candles: Candles,
    features: NDArray[np.float64],
    bars: range,
) -> Backtest:
    """Let the policy trade `bars` once, from flat to flat or until ruin, and measure it."""
    spec = replace(SPEC, episode_bars=len(bars) - 1, equity_ratio_min=1e-9)
    environment = MarketEnvironment(candles, features, spec, count=1, bars=bars, seed=0)
    charges = funding_charges(candles, spec.funding_ratio)
    seen, trades, wanted = environment.reset(), [], _wanted(network, tensors)
    for bar in bars[:-1]:
        targets = wanted(seen)
        if bar >= bars[-2]:  # what is open at the end leaves at the last open
            targets[:] = 0
        step = environment.step(targets)
        seen = step.observations
        for ended in environment.closed_trades():
            closed = settled(candles, ended, spec, charges)
            trade = BacktestTrade(
                instrument=candles.instrument,
                opened_at=closed.opened_at,
                closed_at=closed.closed_at,
                return_ratio=float(closed.return_ratio),
            )
            trades.append(trade)
        if step.terminated[0]:  # the capital is gone
            break
    costs = spec.costs
    return measure(
        [UnseenBars(candles, [bars])],
        trades,
        fee_ratio=costs.fee_ratio,
        slippage_ratio=costs.slippage_ratio,
        rng=np.random.default_rng(1),
    )
