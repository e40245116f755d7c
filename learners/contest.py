"""A new model beside the present one, on bars that neither had seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from bandit.core.rotation import Contest
from learners.artifact import Artifact
from learners.backtest import BacktestTrade, UnseenBars, measure
from learners.challenger import ChallengerPlan, markets_of, played, trade_of
from learners.market.candles import Candles
from learners.serving import ServedPolicy
from learners.sight import sight_of
from learners.workshop import Walked


def contest(
    walked: Walked, present: Artifact, plan: ChallengerPlan, *, known_until: datetime
) -> Contest | None:
    """Let a stored policy play what the new one was measured on, after `known_until`.

    The new one counts with the trades of its walk, whose every fold was trained on earlier bars.
    Both trade in the plan's market, from flat to flat. None where no tested bar closes later.
    """
    fresh = [(market, _after(market, known_until)) for market in walked.markets]
    if not fresh or any(not tests for _, tests in fresh):
        return None
    markets = [UnseenBars(market.candles, tests) for market, tests in fresh]
    rival, sight = ServedPolicy(present), sight_of(present)
    own = markets_of([market.candles for market in walked.markets], sight.spec)
    rivals = [
        trade_of(market, closed)
        for market, (_, tests) in zip(own, fresh, strict=True)
        for test in tests
        for closed in played(rival, market, sight, plan, test).closed
    ]
    trades = [trade for trade in walked.trades if _is_within(markets, trade)]
    days = max(len(market.bars) * market.candles.interval for market in markets)
    return Contest(
        days=days / timedelta(days=1),
        new_return=_earned(markets, trades, plan),
        present_return=_earned(markets, rivals, plan),
    )


def _after(market: UnseenBars, moment: datetime) -> list[range]:
    """Return the tested stretches of bars that open at or after a moment; three bars at least."""
    first = _first_from(market.candles, moment)
    found = [range(max(s.start, first), s.stop) for s in market.stretches]
    return [test for test in found if len(test) > 2]


def _first_from(candles: Candles, moment: datetime) -> int:
    at = np.datetime64(moment.replace(tzinfo=None), "us")
    return int(np.searchsorted(candles.opened_at.astype("datetime64[us]"), at, side="left"))


def _is_within(markets: Sequence[UnseenBars], trade: BacktestTrade) -> bool:
    market = next(m for m in markets if m.candles.instrument == trade.instrument)
    return bool(np.datetime64(trade.opened_at.replace(tzinfo=None), "us") >= market.openings[0])


def _earned(
    markets: Sequence[UnseenBars], trades: Sequence[BacktestTrade], plan: ChallengerPlan
) -> float:
    costs = plan.environment.costs
    return measure(
        markets,
        trades,
        fee_ratio=costs.fee_ratio,
        slippage_ratio=costs.slippage_ratio,
        rng=np.random.default_rng(plan.training.seed),
    ).metrics.total_return
