"""Batches of assignments and outcomes, as the audit log tells of them and as they are now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection

from bandit.core.audit_chain import AuditId
from bandit.storage.engine import streamed
from bandit.storage.outcomes import outcome_of
from bandit.storage.shadows import shadow_of


class ChangedBatch(NamedTuple):
    """A batch whose rows are not those that were digested when it was stored."""

    audit_id: AuditId
    table: str
    rows_told: int | None
    rows_found: int


_ASSIGNMENTS = """
  SELECT l.id AS audit_id, told_rows(l) AS rows_told, count(s.id) AS rows_found
  FROM audit_log l
  LEFT JOIN (
    SELECT h.audit_id, h.id, digested(h) AS line FROM assignments h
    UNION ALL SELECT g.audit_id, g.id, digested(g) FROM aged_assignments g) s ON s.audit_id = l.id
  WHERE l.action = 'assignments'
  GROUP BY l.id
  HAVING count(s.id) IS DISTINCT FROM told_rows(l)
    OR encode(sha256(convert_to(string_agg(s.line, chr(10) ORDER BY s.id), 'UTF8')), 'hex')
       IS DISTINCT FROM l.details ->> 'sha256'
  ORDER BY l.id
"""
_AGED = """
  SELECT l.id AS audit_id, told_rows(l) AS rows_told, count(g.id) AS rows_found
  FROM audit_log l LEFT JOIN aged_assignments g ON g.aged_by = l.id
  WHERE l.action = 'age'
  GROUP BY l.id
  HAVING count(g.id) IS DISTINCT FROM told_rows(l)
    OR encode(sha256(convert_to(string_agg(aged_line(g), chr(10) ORDER BY g.id), 'UTF8')), 'hex')
       IS DISTINCT FROM l.details ->> 'sha256'
  ORDER BY l.id
"""
_FORGED = """
  SELECT DISTINCT s.{batch} AS audit_id FROM {table} s
  WHERE s.{batch} IS NOT NULL AND NOT EXISTS (SELECT FROM audit_log l WHERE l.id = s.{batch})
  ORDER BY 1
"""
_BATCHED = (
    ("assignments", "audit_id"),
    ("outcomes", "audit_id"),
    ("shadow_outcomes", "audit_id"),
    ("aged_shadow_outcomes", "audit_id"),
    ("aged_assignments", "audit_id"),
    ("aged_assignments", "outcome_audit_id"),
    ("aged_assignments", "aged_by"),
)
_SHADOWS = """
  SELECT l.id AS audit_id, told_rows(l) AS rows_told, l.details ->> 'sha256' AS digest, o.*
  FROM audit_log l
  LEFT JOIN (
    SELECT h.audit_id AS batch, h.assignment_id, h.arm_id, h.no_trade, h.return_ratio, h.source,
           h.opened_at, h.closed_at, h.body_hash, p.name AS policy, true AS is_its_own
    FROM shadow_outcomes h
    LEFT JOIN arms a ON a.id = h.arm_id LEFT JOIN policies p ON p.id = a.policy_id
    UNION ALL
    SELECT g.audit_id, g.assignment_id, g.arm_id, NULL, NULL, NULL, NULL, NULL, g.body_hash, NULL,
           NULL
    FROM aged_shadow_outcomes g) o ON o.batch = l.id
  WHERE l.action = 'shadow_outcomes'
  ORDER BY l.id, o.assignment_id, o.arm_id
"""
_OUTCOMES = """
  SELECT l.id AS audit_id, told_rows(l) AS rows_told,
         l.details ->> 'sha256' AS digest, o.*
  FROM audit_log l
  LEFT JOIN (
    SELECT h.audit_id AS batch, h.assignment_id, h.no_trade, h.pnl, h.return_ratio, h.r_multiple,
           h.fees, h.slippage, h.size, h.worst_excursion, h.opened_at, h.closed_at, h.body_hash,
           (h.arm_id, h.unit_id, h.instrument) = (s.arm_id, s.unit_id, s.instrument) AS is_its_own
    FROM outcomes h LEFT JOIN assignments s ON s.id = h.assignment_id
    UNION ALL
    SELECT g.outcome_audit_id, g.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
           g.outcome_body_hash, NULL
    FROM aged_assignments g) o ON o.batch = l.id
  WHERE l.action = 'outcomes'
  ORDER BY l.id, o.assignment_id
"""


def changed(connection: Connection) -> Generator[ChangedBatch]:
    """Return every batch that was changed behind the triggers, streamed.

    Rows from before batches were digested belong to none and are not looked at.
    """
    for found in streamed(connection, _ASSIGNMENTS):
        yield ChangedBatch(table="assignments", **found)
    for found in streamed(connection, _AGED):
        yield ChangedBatch(table="aged decisions", **found)
    for table, statement, body_hash in (
        ("outcomes", _OUTCOMES, _outcome_hash),
        ("results on paper", _SHADOWS, _shadow_hash),
    ):
        for told, rows in groupby(streamed(connection, statement), _told):
            batch = _digested(table, told, rows, body_hash)
            if batch is not None:
                yield batch
    for table, column in _BATCHED:
        for found in streamed(connection, _FORGED.format(table=table, batch=column)):
            yield ChangedBatch(AuditId(found["audit_id"]), table, 0, 1)


def _told(row: dict[str, Any]) -> tuple[int, int | None, str]:
    return row["audit_id"], row["rows_told"], row["digest"]


def _outcome_hash(row: dict[str, Any]) -> bytes:
    return outcome_of(row).body_hash()


def _shadow_hash(row: dict[str, Any]) -> bytes:
    return shadow_of(row).body_hash()


def _digested(
    table: str,
    told: tuple[int, int | None, str],
    rows: Iterator[dict[str, Any]],
    body_hash: Callable[[dict[str, Any]], bytes],
) -> ChangedBatch | None:
    audit_id, rows_told, digest = told
    hashed, found, intact = hashlib.sha256(), 0, True
    for row in rows:
        if row["assignment_id"] is None:
            continue
        found += 1
        body = bytes(row["body_hash"])
        # Hashed from what the row says, not taken from it: an edited amount shows. What an aged
        # outcome said is in its archive.
        if row["no_trade"] is not None:
            is_told = body_hash(row) == body
            intact = intact and row["is_its_own"] is True and is_told
        hashed.update(body)
    if intact and found == rows_told and hashed.hexdigest() == digest:
        return None
    return ChangedBatch(AuditId(audit_id), table, rows_told, found)
