"""Ask for work of a learner, take it up, and say what came of it; each a transaction, audited."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.learner_jobs import ATTEMPTS_MAX, OPEN, JobState, LearnerJob, is_wanted, tonight
from bandit.core.model import checked_instant, checked_text
from bandit.core.upkeep import UpkeepAction
from bandit.storage import audit, learner_jobs, policies
from bandit.storage.engine import snapshot, transaction

NEWEST: int = 20


def request(
    engine: Engine,
    policy: str,
    action: UpkeepAction,
    *,
    cause: str,
    reason: str,
    now: datetime,
    actor: str,
) -> LearnerJob | None:
    """Ask for work on a policy tonight; None where it was asked for, or done, not long ago.

    `policy` is a full name, sha or unique prefix of one. Raises `UnknownName` for no policy.
    """
    now = checked_instant(now, field="now")
    with transaction(engine) as connection:
        record = policies.by_reference(connection, policy)
        before = learner_jobs.of_policy(connection, record.id, action)
        if not is_wanted(before, cause=cause, now=now):
            return None
        job = LearnerJob(
            id=0,
            policy=record.policy.name,
            action=action,
            cause=checked_text(cause, field="cause", length_max=200),
            reason=checked_text(reason, field="reason", length_max=1000),
            actor=checked_text(actor, field="actor", length_max=200),
            requested_at=now,
            due_at=tonight(now),
            state=JobState.WAITING,
            attempts=0,
            changed_at=now,
            result=None,
        )
        stored = learner_jobs.insert(connection, record.id, job)
        if stored is not None:
            _audit(connection, stored, "learner_job_requested", now=now, actor=actor)
        return stored


def would_ask(
    engine: Engine, policy: str, action: UpkeepAction, *, cause: str, now: datetime
) -> bool:
    """Say whether `request` would ask for something now; nothing is written."""
    with snapshot(engine) as connection:
        record = policies.by_reference(connection, policy)
        before = learner_jobs.of_policy(connection, record.id, action)
    return is_wanted(before, cause=cause, now=now)


def take(engine: Engine, *, now: datetime, actor: str) -> LearnerJob | None:
    """Take up the job that has been due for longest; None where there is none.

    For whoever holds the lock of learners: a job that still runs was left by somebody who is gone.
    One that was left so three times has failed.
    """
    while True:
        with transaction(engine) as connection:
            job = learner_jobs.next_due(connection, now=now)
            if job is None:
                return None
            if job.attempts < ATTEMPTS_MAX:
                begun = job.begun(now=now)
                learner_jobs.write(connection, begun)
                _audit(connection, begun, "learner_job_begun", now=now, actor=actor)
                return begun
            left = job.ended(succeeded=False, result="its learner was gone each time", now=now)
            learner_jobs.write(connection, left)
            _audit(connection, left, "learner_job_failed", now=now, actor=actor)


def finish(
    engine: Engine, job_id: int, *, succeeded: bool, result: str, now: datetime, actor: str
) -> LearnerJob:
    """Say what came of an attempt; one that failed waits for another, up to three."""
    with transaction(engine) as connection:
        job = learner_jobs.by_id(connection, job_id)
        if job.state not in OPEN:
            return job
        ended = job.ended(succeeded=succeeded, result=result or "nothing said", now=now)
        learner_jobs.write(connection, ended)
        _audit(connection, ended, f"learner_job_{ended.state}", now=now, actor=actor)
        return ended


def give_back(engine: Engine, job_id: int, *, now: datetime, actor: str) -> None:
    """Leave a job to whoever comes next: its learner was stopped, and did not fail."""
    with transaction(engine) as connection:
        job = learner_jobs.by_id(connection, job_id)
        if job.state is JobState.RUNNING:
            waiting = job.given_back(now=now)
            learner_jobs.write(connection, waiting)
            _audit(connection, waiting, "learner_job_given_back", now=now, actor=actor)


def restarted(engine: Engine, job: LearnerJob, *, reason: str, now: datetime, actor: str) -> None:
    """Write down that the learner of a running job was ended and begun again."""
    with transaction(engine) as connection:
        details = {"job": job.id, "reason": reason}
        audit.append(
            connection,
            now=now,
            actor=actor,
            action="learner_restarted",
            subject=job.policy,
            details=details,
        )


def newest(engine: Engine, *, most: int = NEWEST) -> list[LearnerJob]:
    """Return the jobs that were asked for last, the newest first."""
    with snapshot(engine) as connection:
        return learner_jobs.newest(connection, most=most)


def keep_recipe(engine: Engine, policy: str, recipe: Mapping[str, Any], *, now: datetime) -> None:
    """Write down how a policy was asked for, so that it can be asked for again."""
    with transaction(engine) as connection:
        record = policies.by_name(connection, policy)
        learner_jobs.write_recipe(connection, record.id, recipe, now=now)


def recipe_of(engine: Engine, policy: str) -> dict[str, Any] | None:
    """Return how a policy was asked for; None where nobody wrote that down."""
    with snapshot(engine) as connection:
        record = policies.by_reference(connection, policy)
        return learner_jobs.recipe_of(connection, record.id)


def _audit(
    connection: Connection, job: LearnerJob, action: str, *, now: datetime, actor: str
) -> None:
    audit.append(
        connection,
        now=now,
        actor=checked_text(actor, field="actor", length_max=200),
        action=action,
        subject=job.policy,
        details={
            "job": job.id,
            "asked": job.action.value,
            "cause": job.cause,
            "reason": job.reason,
            "attempt": job.attempts,
            "result": job.result,
        },
    )
