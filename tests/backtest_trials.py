"""Builders of backtest trials for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ledger import NOON

from bandit.core.backtest import BacktestMetrics, BacktestTrial, TrialSubject
from bandit.core.model import PolicyKind, Verdict
from bandit.core.multiplicity import ReturnMoments
from bandit.core.profit_factor import profit_factor

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


def metrics(returns: Sequence[float]) -> BacktestMetrics:
    """What days with these returns make, one trade a day."""
    return BacktestMetrics(
        moments=ReturnMoments.of(returns),
        periods_per_year=365.0,
        profit_factor=profit_factor(returns),
        total_return=max(sum(returns), -1.0),
        drawdown_max_percent=0.0,
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


def a_failure(reason: str = "no time left", **subject: Any) -> BacktestTrial:
    """A trial that ended at noon and measured nothing."""
    trial = a_trial(**subject)
    return replace(trial, metrics=None, verdict=Verdict.FAIL, failure=reason)
