"""Which policies are put away, and what protects others from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from bandit.core.model import PolicyName
from bandit.storage.engine import one, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Archival:
    """The last thing that was done to a policy: put away or taken back, since when and why."""

    policy: PolicyName
    archived: bool
    at: datetime
    reason: str


def newest(connection: Connection) -> dict[int, Archival]:
    """Return the newest archival of every policy that has one, by the policy's id."""
    found = rows(
        connection,
        """
        SELECT DISTINCT ON (a.policy_id) a.policy_id, p.name AS policy, a.archived, a.at, a.reason
        FROM policy_archivals a JOIN policies p ON p.id = a.policy_id
        ORDER BY a.policy_id, a.n DESC
        """,
    )
    return {row.pop("policy_id"): Archival(**row) for row in found}


def insert(
    connection: Connection,
    policy_id: int,
    *,
    archived: bool,
    now: datetime,
    actor: str,
    reason: str,
) -> bool:
    """Put a policy away, or take it back; False where that is so already.

    Raises `Conflict` for one with an arm that is not retired.
    """
    inserted = one(
        connection,
        """
        INSERT INTO policy_archivals (policy_id, n, archived, at, actor, reason)
        SELECT :policy_id, x.n, :archived, :now, :actor, :reason
        FROM (SELECT coalesce(max(n), 0) + 1 AS n FROM policy_archivals
              WHERE policy_id = :policy_id) x
        WHERE (x.n % 2 = 1) = :archived
        ON CONFLICT DO NOTHING RETURNING n
        """,
        policy_id=policy_id,
        archived=archived,
        now=now,
        actor=actor,
        reason=reason,
    )
    return inserted is not None


def working(connection: Connection) -> dict[int, str]:
    """Return the policies that a learner's open job is about, and what it is to do."""
    found = rows(
        connection,
        "SELECT policy_id, action FROM learner_jobs WHERE state IN ('waiting', 'running')",
    )
    return {row["policy_id"]: row["action"] for row in found}


def with_recipes(connection: Connection) -> set[int]:
    """Return the policies that can be made anew: it is written down how each was asked for."""
    found = rows(connection, "SELECT DISTINCT policy_id FROM policy_recipes")
    return {row["policy_id"] for row in found}


def replaced_since(
    connection: Connection, experiment_id: int, since: datetime
) -> dict[PolicyName, datetime]:
    """Return the champions of an experiment that were replaced after a moment, and when last."""
    found = rows(
        connection,
        "SELECT inputs ->> 'demoted' AS policy, max(decided_at) AS at FROM decisions "
        "WHERE experiment_id = :id AND kind IN ('PROMOTE', 'ROLL_BACK') AND decided_at > :since "
        "AND inputs ->> 'demoted' IS NOT NULL GROUP BY 1",
        id=experiment_id,
        since=since,
    )
    return {PolicyName(row["policy"]): row["at"] for row in found}
