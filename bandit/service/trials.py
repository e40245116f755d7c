"""The record of backtest trials: every policy that was ever made and measured counts in it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from bandit.core.backtest import BacktestTrial
from bandit.core.model import checked_instant, checked_text, require_past
from bandit.core.multiplicity import Search
from bandit.storage import audit, trials
from bandit.storage.engine import snapshot, transaction


def record(
    engine: Engine, trial: BacktestTrial, *, now: datetime, actor: str
) -> tuple[BacktestTrial, bool]:
    """Store a trial once; the same again returns the stored one and False.

    Raises `Conflict` where the same was tried before and measured something else, and
    `InvalidInput` for a trial of the future.
    """
    checked_instant(now, field="now")
    require_past(trial.finished_at, field="finished_at", now=now)
    actor = checked_text(actor, field="actor", length_max=200)
    with transaction(engine) as connection:
        stored, is_new = trials.record(connection, trial, now=now)
        if is_new:
            audit.append(
                connection,
                now=now,
                actor=actor,
                action="backtest",
                subject=trial.subject.family,
                details={"trial": trial.id, "verdict": trial.verdict.value},
            )
    return stored, is_new


def listed(engine: Engine, family: str) -> list[BacktestTrial]:
    """Return the trials of one search in the order in which they were recorded."""
    with snapshot(engine) as connection:
        return trials.of_family(connection, family)


def searched(engine: Engine, trial: BacktestTrial) -> Search:
    """Return the search that a trial is judged by: every trial of every family, and itself once."""
    with snapshot(engine) as connection:
        others = trials.annual_sharpes(connection, beside=trial.id)
    return Search.of([*others, trial.annual_sharpe])
