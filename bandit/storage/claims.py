"""Claims: the last look at a decision before its order is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.sizing import Claim
from bandit.storage.engine import PROTOCOL, rows


class ClaimVerdict(NamedTuple):
    """What became of a claim.

    `verdict` is claimed, expired, revoked, paused, unreconciled, killed, full or oversized.
    `claimed_at` is the time of the first claim that was granted; None when none was. The rest is
    None but for a pause: what it was to decide, whose pause, since when and why. Of an account
    that is not reconciled `reason` says what differs. `over` is the limit that the last two are
    over: `limit`, what was `found`, its `field`, and what is `open`.
    """

    id: UUID
    verdict: str
    claimed_at: datetime | None
    expires_at: datetime
    experiment: str | None
    policy: str | None
    scope: str | None
    since: datetime | None
    reason: str | None
    over: Mapping[str, Any] | None


class RoutedUnits(NamedTuple):
    """Units that chance gave an arm on a version of the allocation, and what became of them.

    `claimed` of them were, and had the time to be reported; of these `failed` came to nothing.
    """

    arm_id: int
    version: int
    units: int
    claimed: int
    failed: int


COMMIT = f"""
  SELECT {", ".join(ClaimVerdict._fields)} FROM commit_claims(
  %s, %s, %s::uuid[], %s::double precision[], %s::double precision[])
"""  # noqa: S608 - names are ours
"""Claims decisions; gives a verdict for each that exists."""


def parameters(asked: Sequence[Claim], *, now: datetime) -> tuple[object, ...]:
    """Return what `COMMIT` takes, in its order."""
    told = [(claim.assignment, claim.position_size, claim.leverage) for claim in asked]
    return PROTOCOL, now, *map(list, zip(*told, strict=True))


def by_id(rows: Iterable[Sequence[Any]]) -> dict[UUID, ClaimVerdict]:
    """Return the rows that `COMMIT` gave, by the id of their assignment."""
    return {row[0]: ClaimVerdict._make(row) for row in rows}


def commit(
    connection: Connection, asked: Sequence[Claim], *, now: datetime
) -> dict[UUID, ClaimVerdict]:
    """Claim what may still be acted on; return the verdict on each assignment that exists.

    Each assignment is asked for once; places are given in the order of ids.
    """
    return by_id(connection.exec_driver_sql(COMMIT, parameters(asked, now=now)).all())


def routed_units(
    connection: Connection, experiment_id: int, *, since: datetime, matured: datetime
) -> list[RoutedUnits]:
    """Count the live units that were drawn since a moment; those before `matured` had their time.

    A claim failed that has no outcome, unless its position was marked after `matured`, or whose
    position was opened too late.
    """
    found = rows(
        connection,
        """
        SELECT s.arm_id, s.allocation_version AS version, count(*) AS units,
               count(c.assignment_id) AS claimed,
               count(c.assignment_id) FILTER (WHERE CASE
                 WHEN o.expired IS NULL THEN m.marked_at IS NULL OR m.marked_at < :matured
                 ELSE coalesce((SELECT r.expired FROM outcome_revisions r
                                WHERE r.assignment_id = s.id ORDER BY r.revision DESC LIMIT 1),
                               o.expired) END) AS failed
        FROM assignments s
        -- By their keys, one by one: joined as sets, all of history would be read.
        LEFT JOIN LATERAL (SELECT x.assignment_id FROM claims x
          WHERE x.assignment_id = s.id AND s.decided_at < :matured OFFSET 0) c ON true
        LEFT JOIN LATERAL (SELECT x.expired FROM outcomes x
          WHERE x.assignment_id = c.assignment_id OFFSET 0) o ON true
        LEFT JOIN LATERAL (SELECT x.marked_at FROM marks x
          WHERE x.assignment_id = c.assignment_id OFFSET 0) m ON true
        WHERE s.experiment_id = :id AND s.decided_at >= :since
          AND s.mode = 'live' AND s.position_id IS NULL AND NOT s.is_fallback
          AND s.propensity < 1
        GROUP BY 1, 2 ORDER BY 1, 2
        """,
        id=experiment_id,
        since=since,
        matured=matured,
    )
    return [RoutedUnits(**row) for row in found]
