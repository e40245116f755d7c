"""Builders of backtest trials for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ledger import NOON
from sqlalchemy import Engine

from bandit.core.backtest import BacktestMetrics, BacktestTrial, TrialSubject
from bandit.core.live_gap import TradeSample
from bandit.core.model import PolicyKind, PolicyName, Verdict
from bandit.core.multiplicity import ReturnMoments
from bandit.core.profit_factor import profit_factor
from bandit.core.rotation import Placing
from bandit.service import rotating
from bandit.storage.rotations import Rotation

SUBJECT = TrialSubject(
    family="drill",
    kind=PolicyKind.REINFORCEMENT,
    spec="a" * 64,
    data="b" * 64,
    features="c" * 64,
    window_first=NOON - timedelta(days=900),
    window_last=NOON - timedelta(days=30),
    seed=7,
    steps=250_000,
)


SLIPPAGE = 0.0004
"""What both fills of a trade are taken to lose, over its value at entry."""


def metrics(returns: Sequence[float]) -> BacktestMetrics:
    """What days with these returns make, one trade a day."""
    return BacktestMetrics(
        moments=ReturnMoments.of(returns),
        periods_per_year=365.0,
        profit_factor=profit_factor(returns),
        total_return=max(sum(returns), -1.0),
        drawdown_max_percent=0.0,
        promise=TradeSample.promised(returns, slippage=SLIPPAGE),
    )


def a_trial(returns: Sequence[float] = (0.02, -0.01, 0.03), **subject: Any) -> BacktestTrial:
    """A trial that ended at noon and measured these days."""
    return BacktestTrial(
        subject=replace(SUBJECT, **subject),
        started_at=NOON - timedelta(minutes=1),
        finished_at=NOON,
        metrics=metrics(returns),
        verdict=Verdict.INCONCLUSIVE,
    )


def without_promise(trial: BacktestTrial) -> BacktestTrial:
    """The trial as a ledger has it that recorded it before it kept promises."""
    assert trial.metrics is not None
    return replace(trial, metrics=replace(trial.metrics, promise=None))


def a_failure(reason: str = "no time left", **subject: Any) -> BacktestTrial:
    """A trial that ended at noon and measured nothing."""
    trial = a_trial(**subject)
    return replace(trial, metrics=None, verdict=Verdict.FAIL, failure=reason)


def rotated(engine: Engine, *, of: str, to: str) -> Rotation:
    """Write down that a model was made anew, and kept out."""
    return rotating.record(
        engine,
        day=NOON.date(),
        policy=PolicyName(of),
        new=PolicyName(to),
        verdict=Verdict.FAIL,
        triggers=[],
        gates=[],
        placings={"btc": Placing.KEPT_OUT},
        now=NOON,
        actor="test",
    )
