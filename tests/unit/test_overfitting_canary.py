"""The best of fifty policies of pure noise does not pass, and one with a real edge does.

24 markets, each searched by fifty policies that are long or short for a day by a coin. What the
best of them measured goes through the whole backtest and its rule. Error probabilities: counted as
the only trial, the best of noise passes in 1 - 0.95^50 = 92 % of the searches (fewer than 18 of 24:
0.2 %); with all trials counted it has to stand 1.64 standard errors above 2.28, which happens in
1 - Φ(3.92)^50 = 0.2 % (more than 2 of 24: 2e-5; 5 % would be 1.2). An edge of 7 standard errors
passes in 97 % (fewer than 20 of 24: 0.1 %).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import pytest

from bandit.core.backtest import BacktestRule, judged, verdict_of
from bandit.core.model import Verdict
from bandit.core.multiplicity import Search
from learners.backtest import Backtest, BacktestTrade, UnseenBars, measure
from learners.market.candles import Candles

POLICIES, DAYS, MARKETS = 50, 500, 24
EDGE = 7.0


class Found(NamedTuple):
    """The best of a search: whether it passes as the only trial, and with all trials counted."""

    alone: bool
    counted: bool


def market(rng: np.random.Generator) -> tuple[UnseenBars, np.ndarray]:
    """Days that go nowhere: each opens where the one before closed."""
    moves = 0.02 * rng.standard_normal(DAYS)
    moves -= moves.mean() + moves.var() / 2  # so that holding earns nothing either
    close = 100 * np.cumprod(1 + moves)
    opened = np.concatenate([[100.0], close[:-1]])
    start = np.datetime64("2024-01-01", "us")
    candles = Candles(
        instrument="NOISE",
        opened_at=start + np.arange(DAYS) * np.timedelta64(1, "D"),
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
        volume=np.ones(DAYS),
    )
    return UnseenBars(candles, [range(DAYS)]), moves


def backtest(bars: UnseenBars, results: np.ndarray) -> Backtest:
    """What a trade a day with these results measures."""
    trades = [
        BacktestTrade(
            instrument="NOISE",
            opened_at=bars.candles.opening(day),
            closed_at=bars.candles.closing(day) - timedelta(seconds=1),
            return_ratio=float(result),
        )
        for day, result in enumerate(results)
    ]
    rng = np.random.default_rng(0)
    return measure([bars], trades, fee_ratio=0.0, slippage_ratio=0.0, rng=rng)


def searches(seed: int, *, edge: float) -> Iterator[Found]:
    """Search every market, in which the first policy has an edge of so many standard errors."""
    for number in range(MARKETS):
        rng = np.random.default_rng([seed, number])
        bars, moves = market(rng)
        results = rng.choice([-1.0, 1.0], size=(POLICIES, DAYS)) * moves
        results[0] += edge * moves.std() / math.sqrt(DAYS)
        sharpes = results.mean(axis=1) / results.std(axis=1, ddof=1)
        found = backtest(bars, results[int(sharpes.argmax())])
        # The pipeline measured what the search chose by.
        assert found.metrics.moments.sharpe == pytest.approx(sharpes.max(), rel=1e-9)
        annual = (sharpes * math.sqrt(365)).tolist()
        yield Found(passes(found, [max(annual)]), passes(found, annual))


def passes(found: Backtest, annual: list[float]) -> bool:
    """Whether a backtest passes the rule where these trials were made."""
    held = found.buy_and_hold.total_return
    search, rule = Search.of(annual), BacktestRule()
    reasons = judged(found.metrics, buy_and_hold=held, search=search, rule=rule)
    return verdict_of(reasons) is Verdict.PASS


def test_best_of_pure_noise_does_not_pass() -> None:
    found = list(searches(20260301, edge=0.0))
    # The control: without the count of trials, noise would be let through.
    assert sum(f.alone for f in found) >= 18
    assert sum(f.counted for f in found) <= 2


def test_planted_edge_passes() -> None:
    found = list(searches(20260302, edge=EDGE))
    assert sum(f.counted for f in found) >= 20
