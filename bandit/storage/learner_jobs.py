"""Jobs of learners and the recipes of policies, as the ledger keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.learner_jobs import JobState, LearnerJob
from bandit.core.model import PolicyName
from bandit.core.upkeep import UpkeepAction
from bandit.storage.engine import one, rows, run

_COLUMNS = """
  SELECT j.id, p.name AS policy, j.action, j.cause, j.reason, j.actor, j.requested_at, j.due_at,
         j.state, j.attempts, j.changed_at, j.result
  FROM learner_jobs j JOIN policies p ON p.id = j.policy_id
"""


def of_policy(connection: Connection, policy_id: int, action: UpkeepAction) -> list[LearnerJob]:
    """Return the jobs of one kind that a policy ever had, oldest first."""
    found = rows(
        connection,
        _COLUMNS + " WHERE j.policy_id = :policy_id AND j.action = :action ORDER BY j.id",
        policy_id=policy_id,
        action=action.value,
    )
    return [_job(row) for row in found]


def insert(connection: Connection, policy_id: int, job: LearnerJob) -> LearnerJob | None:
    """Store a new job and return it with its number; None where another one is open meanwhile."""
    made = one(
        connection,
        """
        INSERT INTO learner_jobs (policy_id, action, cause, reason, actor, requested_at, due_at,
                                  state, attempts, changed_at)
        VALUES (:policy_id, :action, :cause, :reason, :actor, :requested_at, :due_at, :state,
                :attempts, :changed_at)
        ON CONFLICT DO NOTHING RETURNING id
        """,
        policy_id=policy_id,
        action=job.action.value,
        cause=job.cause,
        reason=job.reason,
        actor=job.actor,
        requested_at=job.requested_at,
        due_at=job.due_at,
        state=job.state.value,
        attempts=job.attempts,
        changed_at=job.changed_at,
    )
    return None if made is None else by_id(connection, made["id"])


def by_id(connection: Connection, job_id: int) -> LearnerJob:
    """Return a job that is there."""
    found = one(connection, _COLUMNS + " WHERE j.id = :id", id=job_id)
    assert found is not None, "a job never goes"
    return _job(found)


def write(connection: Connection, job: LearnerJob) -> None:
    """Store how far a job is."""
    run(
        connection,
        "UPDATE learner_jobs SET state = :state, attempts = :attempts, due_at = :due_at, "
        "changed_at = :changed_at, result = :result WHERE id = :id",
        id=job.id,
        state=job.state.value,
        attempts=job.attempts,
        due_at=job.due_at,
        changed_at=job.changed_at,
        result=job.result,
    )


def next_due(connection: Connection, *, now: datetime) -> LearnerJob | None:
    """Return the job that has been due for longest, one that was left running among them."""
    found = one(
        connection,
        _COLUMNS + " WHERE j.state IN ('waiting', 'running') AND j.due_at <= :now "
        "ORDER BY j.due_at, j.id LIMIT 1",
        now=now,
    )
    return None if found is None else _job(found)


def newest(connection: Connection, *, most: int) -> list[LearnerJob]:
    """Return the jobs that were asked for last, the newest first."""
    found = rows(connection, _COLUMNS + " ORDER BY j.id DESC LIMIT :most", most=most)
    return [_job(row) for row in found]


def write_recipe(
    connection: Connection, policy_id: int, recipe: Mapping[str, Any], *, now: datetime
) -> None:
    """Keep how a policy was asked for, where it is not what stands there already."""
    if recipe_of(connection, policy_id) != recipe:
        run(
            connection,
            "INSERT INTO policy_recipes (policy_id, recipe, recorded_at) "
            "VALUES (:policy_id, CAST(:recipe AS jsonb), :now)",
            policy_id=policy_id,
            recipe=json.dumps(recipe, sort_keys=True, allow_nan=False),
            now=now,
        )


def recipe_of(connection: Connection, policy_id: int) -> dict[str, Any] | None:
    """Return how a policy was asked for last; None where nobody wrote that down."""
    found = one(
        connection,
        "SELECT recipe FROM policy_recipes WHERE policy_id = :policy_id ORDER BY id DESC LIMIT 1",
        policy_id=policy_id,
    )
    return None if found is None else dict(found["recipe"])


def _job(row: Mapping[str, Any]) -> LearnerJob:
    return LearnerJob(
        id=row["id"],
        policy=PolicyName(row["policy"]),
        action=UpkeepAction(row["action"]),
        cause=row["cause"],
        reason=row["reason"],
        actor=row["actor"],
        requested_at=row["requested_at"],
        due_at=row["due_at"],
        state=JobState(row["state"]),
        attempts=row["attempts"],
        changed_at=row["changed_at"],
        result=row["result"],
    )
