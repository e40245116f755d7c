"""Facts of the data pipeline: appended, and read by night."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection

from bandit.core.data_runs import DataFact, DataStage, DataState
from bandit.storage.engine import one, rows


def append(connection: Connection, fact: DataFact, *, actor: str) -> bool:
    """Append a fact; False where the stage was done in this attempt before."""
    added = rows(
        connection,
        """
        INSERT INTO data_runs (date, attempt, stage, state, rows_in, rows_out, report,
                               report_digest, version_before, version_after, began_at, ended_at,
                               actor)
        VALUES (:date, :attempt, :stage, :state, :rows_in, :rows_out, CAST(:report AS jsonb),
                :report_digest, :version_before, :version_after, :began_at, :ended_at, :actor)
        ON CONFLICT (date, attempt, stage) WHERE state = 'done' DO NOTHING RETURNING id
        """,
        date=fact.day,
        attempt=fact.attempt,
        stage=fact.stage.value,
        state=fact.state.value,
        rows_in=fact.rows_in,
        rows_out=fact.rows_out,
        report=json.dumps(dict(fact.report), allow_nan=False),
        report_digest=fact.report_digest,
        version_before=fact.version_before,
        version_after=fact.version_after,
        began_at=fact.began_at,
        ended_at=fact.ended_at,
        actor=actor,
    )
    return bool(added)


def of_date(connection: Connection, date: date) -> list[DataFact]:
    """Return the facts of a night, the oldest first."""
    found = rows(connection, "SELECT * FROM data_runs WHERE date = :date ORDER BY id", date=date)
    return [_fact(row) for row in found]


def newest_of(connection: Connection, stages: Sequence[DataStage]) -> DataFact | None:
    """Return the newest fact of any of these stages, of whichever night; None before the first."""
    found = one(
        connection,
        """
        SELECT n.* FROM unnest(CAST(:stages AS text[])) AS asked (stage) CROSS JOIN LATERAL (
          SELECT d.* FROM data_runs d WHERE d.stage = asked.stage ORDER BY d.id DESC LIMIT 1) n
        ORDER BY n.id DESC LIMIT 1
        """,
        stages=[stage.value for stage in stages],
    )
    return None if found is None else _fact(found)


def newest_healthy(connection: Connection) -> DataFact | None:
    """Return the end of the night that was finished last; None before the first."""
    found = one(
        connection,
        "SELECT * FROM data_runs WHERE stage = 'health' AND state = 'done'"
        " ORDER BY id DESC LIMIT 1",
    )
    return None if found is None else _fact(found)


def newest_nights(connection: Connection, *, limit: int) -> list[DataFact]:
    """Return the facts of the newest nights by date, the newest first."""
    found = rows(
        connection,
        """
        SELECT d.* FROM data_runs d
        WHERE d.date IN (SELECT DISTINCT date FROM data_runs ORDER BY date DESC LIMIT :nights)
        ORDER BY d.date DESC, d.id
        """,
        nights=limit,
    )
    return [_fact(row) for row in found]


def _fact(row: dict[str, Any]) -> DataFact:
    return DataFact(
        day=row["date"],
        attempt=row["attempt"],
        stage=DataStage(row["stage"]),
        state=DataState(row["state"]),
        rows_in=row["rows_in"],
        rows_out=row["rows_out"],
        report=row["report"],
        version_before=row["version_before"],
        version_after=row["version_after"],
        began_at=row["began_at"],
        ended_at=row["ended_at"],
    )
