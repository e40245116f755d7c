"""Archives: which files hold old decisions, and what leaves the ledger for them."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from bandit.core.audit_chain import AuditId
from bandit.core.outcomes import Flags
from bandit.storage.engine import one, rows, run, streamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A file that holds decisions of one experiment; `finished` once the ledger lets go of them."""

    id: int
    experiment_id: int
    name: str
    sha256: bytes
    n_rows: int
    finished: bool


class ArchivedBodies(NamedTuple):
    """The hashes of what a file tells of a decision: its outcome, None without, and on paper."""

    outcome: bytes | None
    shadows: frozenset[bytes]


class StoredBody(NamedTuple):
    """What an outcome that is told again is compared with."""

    body_hash: bytes
    recorded_at: datetime
    flags: Flags


def aged(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, StoredBody | None]:
    """Return the outcome of each decision among `ids` that has left; None for one without.

    Ask after those that are still here: a row that leaves between two statements is in the second.
    """
    found = rows(
        connection,
        "SELECT id, outcome_body_hash, outcome_recorded_at, outcome_expired, outcome_unclaimed "
        "FROM aged_assignments WHERE id = ANY(:ids)",
        ids=list(ids),
    )
    return {
        row["id"]: None
        if row["outcome_body_hash"] is None
        else StoredBody(
            bytes(row["outcome_body_hash"]),
            row["outcome_recorded_at"],
            Flags(row["outcome_expired"], row["outcome_unclaimed"]),
        )
        for row in found
    }


def left_meanwhile(error: IntegrityError) -> bool:
    """Say whether a write was refused because its assignment left after it was read."""
    orig = error.orig
    return isinstance(orig, ForeignKeyViolation) and orig.diag.constraint_name in (
        "outcomes_assignment_id_fkey",
        "outcome_revisions_assignment_id_fkey",
        "marks_assignment_id_fkey",
        "shadow_outcomes_assignment_id_fkey",
    )


def next_id(connection: Connection) -> int:
    """Return an id for an archive that is about to be made."""
    found = one(connection, "SELECT nextval(pg_get_serial_sequence('archives', 'id')) AS id")
    assert found is not None
    return int(found["id"])


def add(connection: Connection, archive: Archive, *, now: datetime) -> None:
    """Register an archive whose file is complete."""
    run(
        connection,
        "INSERT INTO archives (id, experiment_id, name, sha256, n_rows, made_at) "
        "OVERRIDING SYSTEM VALUE VALUES (:id, :experiment_id, :name, :sha256, :n_rows, :now)",
        id=archive.id,
        experiment_id=archive.experiment_id,
        name=archive.name,
        sha256=archive.sha256,
        n_rows=archive.n_rows,
        now=now,
    )


def all_of(connection: Connection, experiment_id: int | None = None) -> list[Archive]:
    """Return every archive, or those of one experiment, oldest first."""
    found = rows(
        connection,
        "SELECT id, experiment_id, name, sha256, n_rows, finished_at IS NOT NULL AS finished "
        "FROM archives WHERE experiment_id = coalesce(:experiment_id, experiment_id) ORDER BY id",
        experiment_id=experiment_id,
    )
    return [Archive(**row | {"sha256": bytes(row["sha256"])}) for row in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldArchive:
    """An archive as the audit log tells of it, and whether it is registered just so."""

    audit_id: AuditId | None
    name: str | None
    sha256: str | None
    registered: bool


def told(connection: Connection) -> Generator[ToldArchive]:
    """Stream every archive that the audit log tells of, or that is registered without it."""
    statement = """
        SELECT l.id AS audit_id, coalesce(r.name, l.details ->> 'name') AS name,
               l.details ->> 'sha256' AS sha256,
               coalesce((r.name, encode(r.sha256, 'hex'), r.n_rows::text)
                 = (l.details ->> 'name', l.details ->> 'sha256', l.details ->> 'rows'),
                 false) AS registered
        FROM (SELECT id, details FROM audit_log WHERE action = 'archive') l
        FULL JOIN archives r ON r.id::text = l.details ->> 'archive'
        ORDER BY 1, 2
    """
    for found in streamed(connection, statement):
        yield ToldArchive(**found)


def finish(connection: Connection, archive_id: int, *, now: datetime) -> None:
    """Note that nothing more will leave for an archive."""
    run(connection, "UPDATE archives SET finished_at = :now WHERE id = :id", id=archive_id, now=now)


_ROW = """
SELECT e.name AS experiment, s.unit_id, s.id AS assignment_id, s.instrument, p.name AS policy,
       s.mode, s.role, s.allocation_version, s.epoch, s.propensity, s.position_id, s.is_fallback,
       s.size_multiplier, s.confidence_bump, s.context::text AS context,
       s.proposed_actions::text AS proposed_actions, s.decided_at,
       s.expires_at, c.claimed_at, o.revision, o.no_trade, o.pnl, o.return_ratio, o.r_multiple,
       o.fees, o.slippage, o.size, o.worst_excursion, o.opened_at, o.closed_at, o.expired,
       o.unclaimed, o.recorded_at, r.actor AS revised_by, r.reason AS revision_reason,
       m.worst_pnl AS worst_marked_pnl, m.worst_at AS worst_marked_at,
       (SELECT json_agg(json_build_object(
          'revision', v.revision, 'no_trade', v.no_trade, 'pnl', v.pnl::text,
          'return_ratio', v.return_ratio::text, 'r_multiple', v.r_multiple::text,
          'fees', v.fees::text, 'slippage', v.slippage::text, 'size', v.size::text,
          'worst_excursion', v.worst_excursion::text, 'opened_at', v.opened_at,
          'closed_at', v.closed_at, 'expired', v.expired, 'unclaimed', v.unclaimed,
          'recorded_at', v.recorded_at,
          'actor', v.actor, 'reason', v.reason) ORDER BY v.revision)
        FROM superseded_outcomes v WHERE v.assignment_id = s.id) AS superseded,
       (SELECT json_agg(json_build_object(
          'policy', hp.name, 'no_trade', h.no_trade, 'return_ratio', h.return_ratio::text,
          'opened_at', h.opened_at, 'closed_at', h.closed_at, 'source', h.source,
          'recorded_at', h.recorded_at) ORDER BY hp.name)
        FROM shadow_outcomes h JOIN arms ha ON ha.id = h.arm_id
        JOIN policies hp ON hp.id = ha.policy_id WHERE h.assignment_id = s.id) AS shadows
FROM {source}
JOIN experiments e ON e.id = s.experiment_id
JOIN arms a ON a.id = s.arm_id
JOIN policies p ON p.id = a.policy_id
LEFT JOIN claims c ON c.assignment_id = s.id
LEFT JOIN marks m ON m.assignment_id = s.id
LEFT JOIN outcome_revisions r ON r.assignment_id = s.id AND r.revision = o.revision
WHERE {condition}
"""
_SETTLED = "current_outcomes o JOIN assignments s ON s.id = o.assignment_id"
_TRADES = (
    _ROW.format(source=_SETTLED, condition="o.arm_id = :arm_id AND NOT o.no_trade")
    + " AND o.closed_at < :closed_before ORDER BY o.closed_at, o.unit_id"
)
_DECLINED = _ROW.format(
    source=_SETTLED,
    condition="o.arm_id = :arm_id AND o.no_trade AND o.recorded_at < :before "
    "AND s.expires_at < :before",
)
# Decisions on a position without an outcome of their own: the position's outcome settles them, but
# not the money that they are still marked at.
_FOLLOWERS = _ROW.format(
    source="assignments s LEFT JOIN current_outcomes o ON o.assignment_id = s.id",
    condition="s.arm_id = :arm_id AND s.position_id IS NOT NULL AND o.assignment_id IS NULL "
    "AND s.expires_at < :before AND coalesce(m.unrealised_pnl, 0) = 0 "
    "AND (EXISTS (SELECT FROM outcomes t WHERE t.assignment_id = s.position_id "
    "AND t.recorded_at < :before) "
    "OR EXISTS (SELECT FROM aged_assignments g WHERE g.id = s.position_id))",
)


def old_rows(
    connection: Connection, arm_id: int, *, before: datetime, trades_before: datetime
) -> Generator[dict[str, Any]]:
    """Stream what may leave of an arm: trades in closing order, then all that needs no order.

    Trades must have closed before `trades_before`. The first of them that was recorded, or expires,
    only after `before` ends them: what closed later stays behind it.
    """
    given = {"arm_id": arm_id, "closed_before": trades_before}
    for row in streamed(connection, _TRADES, **given):
        if row["recorded_at"] >= before or row["expires_at"] >= before:
            break
        yield row
    for statement in (_DECLINED, _FOLLOWERS):
        yield from streamed(connection, statement, arm_id=arm_id, before=before)


_OLDEST = """
  (SELECT o.closed_at, o.unit_id, o.assignment_id FROM outcomes o
   WHERE o.arm_id = :arm_id AND NOT o.no_trade AND NOT EXISTS (
     SELECT FROM outcome_revisions r WHERE r.assignment_id = o.assignment_id OFFSET 0)
   ORDER BY o.closed_at, o.unit_id LIMIT :most)
  UNION ALL
  (SELECT v.closed_at, v.unit_id, v.assignment_id FROM outcome_revisions v
   WHERE v.arm_id = :arm_id AND NOT v.no_trade AND NOT EXISTS (
     SELECT FROM outcome_revisions r
     WHERE r.assignment_id = v.assignment_id AND r.revision = v.revision + 1 OFFSET 0)
   ORDER BY v.closed_at, v.unit_id LIMIT :most)
  ORDER BY closed_at, unit_id LIMIT :most
"""


def oldest_trades(connection: Connection, arm_id: int, count: int) -> list[UUID]:
    """Return the assignments of an arm's oldest trades in closing order."""
    return [row["assignment_id"] for row in rows(connection, _OLDEST, arm_id=arm_id, most=count)]


def settled(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """Return the newest version of the outcomes among `ids`."""
    found = rows(
        connection, "SELECT * FROM current_outcomes WHERE assignment_id = ANY(:ids)", ids=list(ids)
    )
    return {row["assignment_id"]: row for row in found}


def marked(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Return those of `ids` that unrealised money stands on."""
    statement = "SELECT assignment_id FROM marks WHERE assignment_id = ANY(:ids) "
    found = rows(connection, statement + "AND unrealised_pnl <> 0", ids=list(ids))
    return {row["assignment_id"] for row in found}


def lock_assignments(connection: Connection, ids: Iterable[UUID]) -> list[UUID]:
    """Lock those of `ids` that are still here, in their order; nobody settles them meanwhile."""
    found = rows(
        connection,
        "SELECT id FROM assignments WHERE id = ANY(:ids) ORDER BY id FOR UPDATE",
        ids=list(ids),
    )
    return [row["id"] for row in found]


def age(
    connection: Connection,
    archive: Archive,
    ids: Sequence[UUID],
    *,
    now: datetime,
    actor: str,
    details: Mapping[str, Any],
) -> int:
    """Let decisions go with all that hangs on them; their keys, answers and hashes stay.

    They must be locked. The audit row that says so has `details` in it. Returns how many went.
    """
    found = one(
        connection,
        "SELECT age_assignments(:id, :ids, :now, :actor, :name, CAST(:details AS jsonb)) AS n",
        id=archive.id,
        ids=list(ids),
        now=now,
        actor=actor,
        name=archive.name,
        details=json.dumps({"archive": archive.id, **details}),
    )
    assert found is not None
    return int(found["n"])
