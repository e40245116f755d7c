"""Record what the data pipeline did, and read whether a night is done and the candles are whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, Engine

from bandit.core.data_runs import NIGHT, DataFact, DataStage, DataState
from bandit.core.errors import DataPaused
from bandit.core.model import checked_instant, checked_text
from bandit.storage import audit, data_runs, locks
from bandit.storage.engine import snapshot, transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStanding:
    """How the pipeline stands: its newest stage, and the night that was finished last.

    `paused` is the beginning of a rollback that is not finished.
    """

    newest: DataFact
    finished: DataFact | None
    paused: DataFact | None


def alone(engine: Engine, *, doing: str) -> AbstractContextManager[locks.Require]:
    """Be the only one who loads candles, or takes loads back; raises `LockHeldElsewhere`.

    What is yielded raises `LedgerUnavailable` where that was lost.
    """
    return locks.data(engine, doing=doing)


def record(engine: Engine, facts: Sequence[DataFact], *, now: datetime, actor: str) -> None:
    """Append what ended, each with an audit row; what was told before is not told again.

    All of it, or nothing where the ledger does not answer.
    """
    now = checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    with transaction(engine) as connection:
        for fact in facts:
            if data_runs.append(connection, fact, actor=actor):
                _audit(connection, fact, now=now, actor=actor)


def of_date(engine: Engine, date: date) -> list[DataFact]:
    """Return all that was done about a night, the oldest first."""
    with snapshot(engine) as connection:
        return data_runs.of_date(connection, date)


def newest_nights(engine: Engine, *, limit: int) -> list[DataFact]:
    """Return what was done about the newest nights, the newest first."""
    with snapshot(engine) as connection:
        return data_runs.newest_nights(connection, limit=limit)


def standing(engine: Engine) -> DataStanding | None:
    """Return how the pipeline stands; None where it never ran."""
    with snapshot(engine) as connection:
        newest = data_runs.newest_of(connection, NIGHT)
        if newest is None:
            return None
        return DataStanding(
            newest=newest,
            finished=data_runs.newest_healthy(connection),
            paused=_pause(connection),
        )


def paused(engine: Engine) -> DataFact | None:
    """Return the beginning of the rollback that is under way; None where none is."""
    with snapshot(engine) as connection:
        return _pause(connection)


def require_whole(engine: Engine) -> None:
    """Raise `DataPaused` while a load of candles is being taken back."""
    under_way = paused(engine)
    if under_way is not None:
        raise DataPaused(date=under_way.day.isoformat(), since=under_way.began_at.isoformat())


def _pause(connection: Connection) -> DataFact | None:
    newest = data_runs.newest_of(connection, (DataStage.PAUSE, DataStage.RESUME))
    over = newest is None or (newest.stage is DataStage.RESUME and newest.state is DataState.DONE)
    return None if over else newest


def _audit(connection: Connection, fact: DataFact, *, now: datetime, actor: str) -> None:
    failed = fact.state is DataState.FAILED
    audit.append(
        connection,
        now=now,
        actor=actor,
        action=f"data_{fact.stage.value}{'_failed' if failed else ''}",
        subject=fact.day.isoformat(),
        details={
            "attempt": fact.attempt,
            "rows_in": fact.rows_in,
            "rows_out": fact.rows_out,
            "report": fact.report_digest,
            "version": fact.version_after,
            "reason": fact.report.get("reason"),
        },
    )
