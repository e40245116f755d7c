"""Claim a slot of a scheduled job, and say what came of it; each a transaction, audited."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine

from bandit.core.errors import FenceLost
from bandit.core.job_runs import JobRun, RunState, first_run
from bandit.core.model import checked_instant, checked_text
from bandit.storage import audit, job_runs
from bandit.storage.engine import snapshot, transaction


def claim(engine: Engine, job: str, slot: datetime, *, now: datetime, actor: str) -> JobRun | None:
    """Begin a slot, or begin it again where it failed or was left; None where it is done.

    For whoever holds the lease `LockClass.JOB` of `key_of(job)`: a run that still runs was left
    by somebody who lost it, and is taken over with a higher fence. Raises `FenceLost` where
    another claim of the slot comes at the same moment.
    """
    now, slot = checked_instant(now, field="now"), checked_instant(slot, field="slot")
    actor = checked_text(actor, field="actor", length_max=200)
    with transaction(engine) as connection:
        before = job_runs.find(connection, job, slot)
        if before is None:
            run, action = first_run(job, slot, now=now, actor=actor), "job_began"
            is_ours = job_runs.insert(connection, run)
        elif before.state is RunState.DONE:
            return None
        else:
            was_left = before.state is RunState.RUNNING
            run, action = before.begun_again(now=now, actor=actor), "job_began_again"
            action = "job_taken_over" if was_left else action
            is_ours = job_runs.write(connection, run, before=before)
        if not is_ours:
            raise _lost(run)
        _audit(connection, run, action)
        return run


def finish(
    engine: Engine, run: JobRun, *, succeeded: bool, result: str, now: datetime, actor: str
) -> JobRun:
    """Say what came of a run: `result` is kept to its first 1000 signs.

    Raises `FenceLost`, and writes nothing, where another claim of the slot came since.
    """
    now = checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    ended = run.ended(succeeded=succeeded, result=result, now=now, actor=actor)
    with transaction(engine) as connection:
        if not job_runs.write(connection, ended, before=run):
            raise _lost(run)
        _audit(connection, ended, f"job_{ended.state}")
    return ended


def newest(engine: Engine, *, state: RunState | None = None) -> list[JobRun]:
    """Return the run of the newest slot of each job, or of its newest slot that is in `state`."""
    with snapshot(engine) as connection:
        return job_runs.newest(connection, state=state)


def find(engine: Engine, job: str, slot: datetime) -> JobRun | None:
    """Return the run of a slot; None where it was never begun."""
    with snapshot(engine) as connection:
        return job_runs.find(connection, job, slot)


def _lost(run: JobRun) -> FenceLost:
    return FenceLost(f"slot {run.slot.isoformat()} of {run.job} was claimed by another since")


def _audit(connection: Connection, run: JobRun, action: str) -> None:
    audit.append(
        connection,
        now=run.changed_at,
        actor=run.actor,
        action=action,
        subject=run.job,
        details={
            "slot": run.slot.isoformat(),
            "fence": run.fence,
            "attempt": run.attempts,
            "result": run.result,
        },
    )
