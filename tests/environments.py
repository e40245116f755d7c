"""Markets, specs and runs of the training environment, for the tests of it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bandit.core.paper_fills import Side
from benchmarks.learners._plain_environment import PlainEnvironment
from learners.environment import EpisodeTrade, MarketEnvironment
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import Candles
from learners.market.paper_market import (
    Costs,
    ExitReason,
    PaperPosition,
    funding_charges,
    mark,
    open_position,
    settle,
)
from learners.market.validation import Floats

NOTIONAL = Decimal(10_000)


def candles_of(rows: Iterable[tuple[float, float, float, float]], *, hours: int = 1) -> Candles:
    """Bars of (open, high, low, close) from midnight on."""
    columns = np.array(list(rows), dtype=np.float64).T
    count = columns.shape[1]
    return Candles(
        instrument="BTCUSD",
        opened_at=np.datetime64("2024-01-01", "us") + np.arange(count) * np.timedelta64(hours, "h"),
        open=columns[0],
        high=columns[1],
        low=columns[2],
        close=columns[3],
        volume=np.ones(count),
    )


def spec_of(**changes: object) -> EnvironmentSpec:
    values: dict[str, object] = {
        "costs": Costs(fee_ratio=0.0, slippage_ratio=0.0),
        "stop_ratio": 0.02,
        "take_profit_ratio": 0.03,
        "holding_bars_max": 3,
        "shorts_allowed": True,
        "position_ratio": 1.0,
        "funding_ratio": 0.0,
        "episode_bars": 5,
        "equity_ratio_min": 0.5,
    } | changes
    return EnvironmentSpec(**values)  # type: ignore[arg-type]  # fields by name


def features_of(candles: Candles, columns: int = 2) -> NDArray[np.float64]:
    return np.random.default_rng(7).normal(size=(len(candles), columns))


@st.composite
def markets(draw: st.DrawFn, bars_min: int = 12) -> Candles:
    """Bars of whole cents around 100 that jump between close and open, with gaps of ten hours.

    The grid is coarse, so that prices meet levels exactly.
    """
    count = draw(st.integers(bars_min, 40))
    moves = draw(st.lists(st.integers(-40, 40), min_size=count, max_size=4 * count))
    gaps, bodies, above, below = np.resize(moves, (4, count))
    opens = np.maximum(1000 + np.cumsum(gaps), 100)
    closes = np.maximum(opens + bodies, 60)
    hours = np.arange(count)
    for bar in draw(st.sets(st.integers(1, count - 1), max_size=3)):
        hours[bar:] += 9
    return Candles(
        instrument="BTCUSD",
        opened_at=np.datetime64("2024-01-01", "us") + hours * np.timedelta64(1, "h"),
        open=opens / 10,
        high=(np.maximum(opens, closes) + np.abs(above)) / 10,
        low=np.maximum(np.minimum(opens, closes) - np.abs(below), 10) / 10,
        close=closes / 10,
        volume=np.ones(count),
    )


@st.composite
def specs(draw: st.DrawFn) -> EnvironmentSpec:
    return spec_of(
        costs=Costs(
            fee_ratio=draw(st.integers(0, 50)) / 10_000,
            slippage_ratio=draw(st.integers(0, 50)) / 10_000,
        ),
        stop_ratio=draw(st.integers(1, 80)) / 1000,
        take_profit_ratio=draw(st.integers(1, 80)) / 1000,
        holding_bars_max=draw(st.integers(1, 12)),
        shorts_allowed=draw(st.booleans()),
        position_ratio=draw(st.sampled_from([1.0, 0.37])),
        funding_ratio=draw(st.sampled_from([0.0, 0.0003, -0.02])),
        episode_bars=draw(st.integers(1, 10)),
        equity_ratio_min=draw(st.sampled_from([0.5, 0.97, 0.99])),
    )


def actions_of(
    environment: MarketEnvironment, *, steps: int, seed: int, change: float
) -> NDArray[np.int64]:
    """Random targets that each episode keeps for a while; (steps, count)."""
    rng = np.random.default_rng(seed)
    shape = (steps, environment.count)
    actions = rng.integers(len(environment.spec.targets), size=shape)
    kept = rng.random(shape) >= change
    for step in range(1, steps):
        actions[step] = np.where(kept[step], actions[step - 1], actions[step])
    return actions


def assert_like_plain(
    environment: MarketEnvironment,
    candles: Candles,
    features: NDArray[np.float64],
    actions: NDArray[np.int64],
    *,
    charges: Floats | None = None,
) -> None:
    """Step the batch and as many plain environments through the same actions."""
    spec = environment.spec
    if charges is None:
        charges = funding_charges(candles, spec.funding_ratio)
    plain = [PlainEnvironment(candles, features, spec, charges) for _ in range(environment.count)]
    first = environment.reset()
    for i, start in enumerate(environment.start_bars.tolist()):
        np.testing.assert_array_equal(first[i], plain[i].reset(start))
    for action in actions:
        step = environment.step(action)
        expected = [one.step(int(wish)) for one, wish in zip(plain, action, strict=True)]
        np.testing.assert_allclose(step.rewards, [e.reward for e in expected], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(step.terminated, [e.terminated for e in expected])
        np.testing.assert_array_equal(step.truncated, [e.truncated for e in expected])
        seen = np.array([e.observation for e in expected])
        ended = np.flatnonzero(step.terminated | step.truncated)
        np.testing.assert_array_equal(step.ended, ended)
        assert_same_observations(step.final_observations, seen[ended])
        for i in ended:
            seen[i] = plain[i].reset(int(environment.start_bars[i]))
        assert_same_observations(step.observations, seen)


def assert_same_observations(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Equal but for the unrealised return, which two orders of rounding may put 1 ulp apart."""
    np.testing.assert_array_equal(np.delete(ours, -2, axis=1), np.delete(expected, -2, axis=1))
    np.testing.assert_allclose(ours[:, -2], expected[:, -2], rtol=3e-7, atol=1e-12)


def assert_like_paper(
    environment: MarketEnvironment,
    candles: Candles,
    actions: NDArray[np.int64],
) -> int:
    """Hold every trade, and the sum of each whole episode, against the paper market.

    Returns how many trades were compared.
    """
    spec = environment.spec
    charges = funding_charges(candles, spec.funding_ratio)
    trades = 0
    earned = np.zeros(environment.count)
    rewarded = np.zeros(environment.count)
    environment.reset()
    starts = environment.start_bars
    for action in actions:
        step = environment.step(action)
        rewarded += step.rewards
        for trade in environment.closed_trades():
            earned[trade.episode] += compared(candles, spec, trade, charges)
            trades += 1
        for i, last in zip(step.ended.tolist(), step.final_observations, strict=True):
            if step.truncated[i]:
                bar = int(starts[i]) + spec.episode_bars
                open_return = marked(candles, spec, last, bar=bar, charges=charges)
                total = spec.position_ratio * (earned[i] + open_return)
                assert abs(rewarded[i] - total) < 1e-9
            earned[i] = rewarded[i] = 0.0
        starts = environment.start_bars
    return trades


def compared(
    candles: Candles, spec: EnvironmentSpec, trade: EpisodeTrade, charges: Floats
) -> float:
    """The return of the same trade with 10,000 in the paper market, equal in every respect."""
    decided = trade.exit_reason is ExitReason.DECISION
    closed = settle(
        candles,
        opened_on_paper(candles, spec, trade.side, trade.entry_bar),
        left_at=trade.exit_bar - 1 if decided else None,
        funding=charges,
    )
    assert closed is not None
    assert closed.exit_reason is trade.exit_reason
    assert closed.closed_at in (candles.opening(trade.exit_bar), candles.closing(trade.exit_bar))
    assert abs(float(closed.return_ratio) - trade.return_ratio) < 1e-9
    assert abs(closed.pnl - NOTIONAL * Decimal(trade.return_ratio)) < Decimal("0.005")
    return float(closed.return_ratio)


def marked(
    candles: Candles,
    spec: EnvironmentSpec,
    observation: NDArray[np.float32],
    *,
    bar: int,
    charges: Floats,
) -> float:
    """What the paper market says that the position of an observation stands at."""
    sign, unrealised, share = observation[-3:].tolist()
    if sign == 0:
        return 0.0
    entry_bar = bar + 1 - round(share * spec.holding_bars_max)
    position = opened_on_paper(candles, spec, Side.LONG if sign > 0 else Side.SHORT, entry_bar)
    stands = float(mark(candles, position, bar=bar, funding=charges).pnl / position.notional)
    assert abs(stands - unrealised) < 1e-6
    return stands


def opened_on_paper(
    candles: Candles, spec: EnvironmentSpec, side: Side, entry_bar: int
) -> PaperPosition:
    position = open_position(
        candles,
        bar=entry_bar - 1,
        proposal=spec.proposal(side),
        notional=NOTIONAL,
        costs=spec.costs,
    )
    assert position is not None
    return position
