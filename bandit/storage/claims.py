"""Claims: the last look at a decision before its order is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from bandit.storage.engine import PROTOCOL


class ClaimVerdict(NamedTuple):
    """What became of a claim: `verdict` is claimed, expired, revoked or killed.

    `claimed_at` is the time of the first claim that was granted; None when none was.
    """

    id: UUID
    verdict: str
    claimed_at: datetime | None
    expires_at: datetime


COMMIT = "SELECT id, verdict, claimed_at, expires_at FROM commit_claims(%s, %s, %s)"
"""Claims decisions; gives a verdict for each that exists."""


def parameters(ids: Sequence[UUID], *, now: datetime) -> tuple[object, ...]:
    """Return what `COMMIT` takes, in its order."""
    return PROTOCOL, now, list(ids)


def by_id(rows: Iterable[Sequence[Any]]) -> dict[UUID, ClaimVerdict]:
    """Return the rows that `COMMIT` gave, by the id of their assignment."""
    return {row[0]: ClaimVerdict._make(row) for row in rows}


def commit(
    connection: Connection, ids: Sequence[UUID], *, now: datetime
) -> dict[UUID, ClaimVerdict]:
    """Claim what may still be acted on; return the verdict on each assignment that exists."""
    return by_id(connection.exec_driver_sql(COMMIT, parameters(ids, now=now)).all())
