"""A new model beside the present one: the same bars, the same market, each with its own trades."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from api_service import application
from ledger import NOON
from sqlalchemy import Engine
from test_learning import PLAN, made

from learners.artifact import read
from learners.backtest import UnseenBars, measure
from learners.challenger import markets_of, played, trade_of
from learners.contest import contest
from learners.serving import ServedPolicy
from learners.sight import sight_of
from liveops.clock import VirtualClock

pytest.importorskip("stable_baselines3", reason="the learners are not installed")


def test_each_counts_with_what_it_earned_of_the_later_bars(engine: Engine, tmp_path: Path) -> None:
    app = application(engine, clock=VirtualClock(NOON))
    app = replace(app, settings=app.settings.model_copy(update={"home": tmp_path}))
    learned = made(app)
    present = read(tmp_path / "artifacts", learned.policy.sha)
    [market] = learned.walked.markets
    [first, *_] = market.stretches

    whole = contest(learned.walked, present, PLAN, known_until=market.candles.opening(first.start))
    assert whole is not None
    assert whole.new_return == learned.metrics.total_return
    assert whole.days == len(market.bars) / 24

    middle = first.start + len(first) // 2
    later = contest(learned.walked, present, PLAN, known_until=market.candles.opening(middle))
    assert later is not None
    rest = [range(middle, first.stop), *market.stretches[1:]]
    [own] = markets_of([market.candles], sight_of(present).spec)
    policy, sight = ServedPolicy(present), sight_of(present)
    trades = [
        trade_of(own, closed)
        for bars in rest
        for closed in played(policy, own, sight, PLAN, bars).closed
    ]
    oracle = measure(
        [UnseenBars(market.candles, rest)],
        trades,
        fee_ratio=PLAN.environment.costs.fee_ratio,
        slippage_ratio=PLAN.environment.costs.slippage_ratio,
        rng=np.random.default_rng(0),
    )
    assert trades, "it trades, or this shows nothing"
    assert later.present_return == oracle.metrics.total_return

    end = market.candles.closing(len(market.candles) - 1)
    assert contest(learned.walked, present, PLAN, known_until=end) is None
    assert contest(learned.walked, present, PLAN, known_until=end + timedelta(days=1)) is None
