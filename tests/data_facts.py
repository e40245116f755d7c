"""A night of the data pipeline as the ledger knows it, for tests of what reads the ledger."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from sqlalchemy import Engine

from bandit.core.data_runs import DataFact, DataStage, DataState
from bandit.service import data_runs

NIGHT_OF = date(2026, 3, 1)
SERIES = "binance BTC/USDT 1h"


def fact(
    stage: DataStage, at: datetime, *, state: DataState = DataState.DONE, **told: object
) -> DataFact:
    began = at - timedelta(minutes=5)
    defaults = {"day": NIGHT_OF, "attempt": 1, "began_at": began, "ended_at": at}
    return DataFact(stage=stage, state=state, **{**defaults, **told})  # type: ignore[arg-type]


def finished(at: datetime) -> DataFact:
    """The end of a night that took five minutes, brought 24 bars, and found one anomaly."""
    newest = at.replace(hour=0, minute=0, second=0, microsecond=0)
    series = {"newest": newest.isoformat(), "completeness": 0.975}
    report = {
        "seconds": 300.0,
        "rows": 24,
        "anomalies": {"warning": 1, "critical": 0},
        "series": {SERIES: series},
    }
    return fact(DataStage.HEALTH, at, report=report)


def record(engine: Engine, *facts: DataFact) -> None:
    data_runs.record(engine, facts, now=facts[-1].ended_at, actor="test")
