"""Runs of scheduled jobs, as the ledger keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.job_runs import JobRun, RunState
from bandit.storage.engine import one, rows

_COLUMNS = "job, slot, fence, state, attempts, began_at, changed_at, actor, result"


def find(connection: Connection, job: str, slot: datetime) -> JobRun | None:
    """Return the run of a slot; None where it was never begun."""
    statement = f"SELECT {_COLUMNS} FROM job_runs WHERE job = :job AND slot = :slot"  # noqa: S608 - names are ours
    found = one(connection, statement, job=job, slot=slot)
    return None if found is None else _run(found)


def insert(connection: Connection, run: JobRun) -> bool:
    """Store the first attempt at a slot; False where somebody was there before."""
    statement = (
        f"INSERT INTO job_runs ({_COLUMNS}) VALUES (:job, :slot, :fence, :state, :attempts, "  # noqa: S608 - names are ours
        ":began_at, :changed_at, :actor, :result) ON CONFLICT DO NOTHING RETURNING fence"
    )
    return one(connection, statement, **_values(run)) is not None


def write(connection: Connection, run: JobRun, *, before: JobRun) -> bool:
    """Store how far a run is; False where it is not what it was `before` any more."""
    statement = (
        "UPDATE job_runs SET fence = :fence, state = :state, attempts = :attempts, "
        "began_at = :began_at, changed_at = :changed_at, actor = :actor, result = :result "
        "WHERE job = :job AND slot = :slot AND fence = :held AND state = :was RETURNING fence"
    )
    held = {"held": before.fence, "was": before.state.value}
    return one(connection, statement, **held, **_values(run)) is not None


def newest(connection: Connection, *, state: RunState | None = None) -> list[JobRun]:
    """Return the run of the newest slot of each job that ever ran, or of each that is so."""
    found = rows(connection, _NEWEST, state=None if state is None else state.value)
    return [_run(row) for row in found]


# From one name to the next along the key, so that years of runs are not read.
_NEWEST = f"""
WITH RECURSIVE names (job) AS (
  (SELECT job FROM job_runs ORDER BY job LIMIT 1)
  UNION ALL
  SELECT (SELECT r.job FROM job_runs r WHERE r.job > n.job ORDER BY r.job LIMIT 1)
  FROM names n WHERE n.job IS NOT NULL
)
SELECT last.* FROM names n CROSS JOIN LATERAL (
  SELECT {_COLUMNS} FROM job_runs r
  WHERE r.job = n.job AND (CAST(:state AS text) IS NULL OR r.state = :state)
  ORDER BY r.slot DESC LIMIT 1
) last WHERE n.job IS NOT NULL ORDER BY last.job
"""  # noqa: S608 - names are ours


def _values(run: JobRun) -> dict[str, Any]:
    return {
        "job": run.job,
        "slot": run.slot,
        "fence": run.fence,
        "state": run.state.value,
        "attempts": run.attempts,
        "began_at": run.began_at,
        "changed_at": run.changed_at,
        "actor": run.actor,
        "result": run.result,
    }


def _run(row: Mapping[str, Any]) -> JobRun:
    return JobRun(
        job=row["job"],
        slot=row["slot"],
        fence=row["fence"],
        state=RunState(row["state"]),
        attempts=row["attempts"],
        began_at=row["began_at"],
        changed_at=row["changed_at"],
        actor=row["actor"],
        result=row["result"],
    )
