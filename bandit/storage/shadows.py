"""Results on paper: what arms would have earned, and the gap to what they did earn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection

from bandit.core.fill_gap import FillGap
from bandit.core.model import ArmMode, PolicyName
from bandit.core.shadow import ShadowOutcome, ShadowSource
from bandit.storage.engine import rows, run, streamed, uuids

GapTable = Literal["fill_gaps", "aged_fill_gaps"]


class ShadowKey(NamedTuple):
    """A decision and the arm that is told what it would have earned on it."""

    assignment_id: UUID
    arm_id: int


class ShadowRow(NamedTuple):
    """A result on paper with what the ledger adds to it."""

    outcome: ShadowOutcome
    key: ShadowKey
    decided_at: datetime
    body_hash: bytes


class StoredShadow(NamedTuple):
    """What a result on paper that is told again is compared with."""

    body_hash: bytes
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedArm:
    """An arm and since when it is in its experiment."""

    id: int
    joined_at: datetime


class Result(NamedTuple):
    """What an arm earned, or would have earned, on a decision."""

    return_ratio: Decimal
    no_trade: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision with all results known of it: the live one of the arm that took it, and on paper.

    `arm_id` took it on `version` of its experiment's allocation.
    """

    id: UUID
    experiment_id: int
    arm_id: int
    instrument: str
    decided_at: datetime
    version: int
    live: Result | None
    paper: Mapping[int, Result]


def arms_of(
    connection: Connection, experiment_ids: Iterable[int]
) -> dict[tuple[int, PolicyName], JoinedArm]:
    """Return every arm of these experiments by experiment and policy."""
    found = rows(
        connection,
        "SELECT a.id, a.experiment_id, p.name, a.joined_at FROM arms a "
        "JOIN policies p ON p.id = a.policy_id WHERE a.experiment_id = ANY(:ids)",
        ids=sorted(experiment_ids),
    )
    return {
        (row["experiment_id"], row["name"]): JoinedArm(id=row["id"], joined_at=row["joined_at"])
        for row in found
    }


def insert(connection: Connection, new: Iterable[ShadowRow], *, now: datetime) -> set[ShadowKey]:
    """Store results whose key has none yet; return the keys of those that had one."""
    batch = msgspec.json.encode([_written(row) for row in new]).decode()
    statement = "SELECT * FROM commit_shadow_outcomes(%s::json, %s)"
    return {ShadowKey._make(found) for found in connection.exec_driver_sql(statement, (batch, now))}


def stored(connection: Connection, ids: Iterable[UUID]) -> dict[ShadowKey, StoredShadow]:
    """Return what there is of results on these decisions, also of those that have left."""
    found = rows(
        connection,
        """
        SELECT assignment_id, arm_id, body_hash, recorded_at FROM shadow_outcomes
        WHERE assignment_id = ANY(CAST(:ids AS uuid[]))
        UNION ALL
        SELECT assignment_id, arm_id, body_hash, recorded_at FROM aged_shadow_outcomes
        WHERE assignment_id = ANY(CAST(:ids AS uuid[]))
        """,
        ids=uuids(ids),
    )
    return {
        ShadowKey(row["assignment_id"], row["arm_id"]): StoredShadow(
            bytes(row["body_hash"]), row["recorded_at"]
        )
        for row in found
    }


def aged_experiments(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, int]:
    """Return the experiment of each of these decisions that has left the ledger."""
    found = rows(
        connection,
        "SELECT id, experiment_id FROM aged_assignments WHERE id = ANY(CAST(:ids AS uuid[]))",
        ids=uuids(ids),
    )
    return {row["id"]: row["experiment_id"] for row in found}


def decided(connection: Connection, ids: Iterable[UUID]) -> list[Decided]:
    """Return those of these decisions that have a result on paper, as known now."""
    condition = "h.assignment_id = ANY(CAST(:ids AS uuid[]))"
    found = rows(connection, _DECIDED.format(condition=condition), ids=uuids(ids))
    return [_decided(row) for row in found]


def decided_about(connection: Connection, arm_id: int) -> Iterator[Decided]:
    """Stream every decision on which an arm has a result on paper."""
    condition = """h.assignment_id IN (
      SELECT mine.assignment_id FROM shadow_outcomes mine WHERE mine.arm_id = :arm_id)"""
    found = streamed(connection, _DECIDED.format(condition=condition), arm_id=arm_id)
    return map(_decided, found)


_DECIDED = """
  SELECT s.id, s.experiment_id, s.arm_id, s.instrument, s.decided_at,
         s.allocation_version AS version, s.mode, o.return_ratio, o.no_trade,
         p.arm_ids, p.returns, p.declined
  FROM (
    SELECT h.assignment_id, array_agg(h.arm_id) AS arm_ids, array_agg(h.no_trade) AS declined,
           array_agg(h.return_ratio::numeric) AS returns
    FROM shadow_outcomes h WHERE {condition} GROUP BY h.assignment_id) p
  JOIN assignments s ON s.id = p.assignment_id
  LEFT JOIN LATERAL (
    SELECT c.return_ratio::numeric, c.no_trade FROM current_outcomes c
    WHERE c.assignment_id = s.id) o ON true
"""


def _decided(row: Mapping[str, Any]) -> Decided:
    # What an arm in another mode than live did was itself on paper.
    is_live = row["mode"] == ArmMode.LIVE and row["return_ratio"] is not None
    paper = zip(row["returns"], row["declined"], strict=True)
    return Decided(
        id=row["id"],
        experiment_id=row["experiment_id"],
        arm_id=row["arm_id"],
        instrument=row["instrument"],
        decided_at=row["decided_at"],
        version=row["version"],
        live=Result(row["return_ratio"], row["no_trade"]) if is_live else None,
        paper=dict(zip(row["arm_ids"], map(Result._make, paper), strict=True)),
    )


def gap_of(connection: Connection, arm_id: int, *, table: GapTable = "fill_gaps") -> FillGap:
    """Return the sums of an arm's trades that have both results."""
    return gaps_of(connection, [arm_id], table=table)[arm_id]


def gaps_of(
    connection: Connection, arm_ids: Sequence[int], *, table: GapTable = "fill_gaps"
) -> dict[int, FillGap]:
    """Return the sums of trades that have both results, of each of some arms."""
    found = rows(
        connection,
        f"SELECT arm_id, n, total, squares FROM {table} WHERE arm_id = ANY(:arm_ids)",  # noqa: S608 - a constant
        arm_ids=list(arm_ids),
    )
    return dict.fromkeys(arm_ids, FillGap()) | {
        row["arm_id"]: FillGap(n=row["n"], total=int(row["total"]), squares=int(row["squares"]))
        for row in found
    }


def add_gaps(
    connection: Connection, changes: Mapping[int, FillGap], *, table: GapTable = "fill_gaps"
) -> None:
    """Count trades into the sums of their arms, in ascending order; a change may be negative."""
    for arm_id, gap in sorted(changes.items()):
        run(
            connection,
            f"INSERT INTO {table} (arm_id, n, total, squares) VALUES (:arm_id, 0, 0, 0) "  # noqa: S608 - a constant
            "ON CONFLICT DO NOTHING",
            arm_id=arm_id,
        )
        run(
            connection,
            f"UPDATE {table} SET n = n + :n, total = total + :total, squares = squares + :squares "  # noqa: S608 - a constant
            "WHERE arm_id = :arm_id",
            arm_id=arm_id,
            n=gap.n,
            total=Decimal(gap.total),
            squares=Decimal(gap.squares),
        )


def replace_gap(connection: Connection, arm_id: int, gap: FillGap) -> None:
    """Write the sums of an arm anew."""
    run(connection, "DELETE FROM fill_gaps WHERE arm_id = :arm_id", arm_id=arm_id)
    if gap != FillGap():
        add_gaps(connection, {arm_id: gap})


def told_bodies(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, frozenset[bytes]]:
    """Return the hashes of all results on paper of these decisions; none for one without."""
    found = rows(
        connection,
        "SELECT assignment_id, body_hash FROM shadow_outcomes "
        "WHERE assignment_id = ANY(CAST(:ids AS uuid[]))",
        ids=uuids(ids),
    )
    hashes: dict[UUID, set[bytes]] = {}
    for row in found:
        hashes.setdefault(row["assignment_id"], set()).add(bytes(row["body_hash"]))
    return {key: frozenset(bodies) for key, bodies in hashes.items()}


def shadow_of(found: Mapping[str, Any]) -> ShadowOutcome:
    """Return the result on paper that a row of the ledger, or of an archive, tells."""
    declined = found["no_trade"]
    return ShadowOutcome(
        assignment_id=found["assignment_id"],
        policy=PolicyName(found["policy"]),
        no_trade=declined,
        return_ratio=found["return_ratio"],
        source=ShadowSource(found["source"]),
        opened_at=None if declined else found["opened_at"],
        closed_at=None if declined else found["closed_at"],
    )


def _written(row: ShadowRow) -> dict[str, Any]:
    outcome = row.outcome
    return {
        "assignment_id": row.key.assignment_id,
        "arm_id": row.key.arm_id,
        "no_trade": outcome.no_trade,
        "return_ratio": outcome.return_ratio,
        # A policy that would have declined is placed in time by the decision.
        "opened_at": outcome.opened_at or row.decided_at,
        "closed_at": outcome.closed_at or row.decided_at,
        "source": outcome.source.value,
        "body_hash": row.body_hash.hex(),
    }
