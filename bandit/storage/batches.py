"""Batches of assignments and outcomes, as the audit log tells of them and as they are now."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection

from bandit.core.audit_chain import AuditId
from bandit.storage.engine import streamed
from bandit.storage.outcomes import outcome_of


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
    ("aged_assignments", "audit_id"),
    ("aged_assignments", "outcome_audit_id"),
    ("aged_assignments", "aged_by"),
)
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
    for told, rows in groupby(streamed(connection, _OUTCOMES), _told):
        batch = _outcomes(told, rows)
        if batch is not None:
            yield batch
    for table, column in _BATCHED:
        for found in streamed(connection, _FORGED.format(table=table, batch=column)):
            yield ChangedBatch(AuditId(found["audit_id"]), table, 0, 1)


def _told(row: dict[str, Any]) -> tuple[int, int | None, str]:
    return row["audit_id"], row["rows_told"], row["digest"]


def _outcomes(
    told: tuple[int, int | None, str], rows: Iterator[dict[str, Any]]
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
            is_told = outcome_of(row).body_hash() == body
            intact = intact and row["is_its_own"] is True and is_told
        hashed.update(body)
    if intact and found == rows_told and hashed.hexdigest() == digest:
        return None
    return ChangedBatch(AuditId(audit_id), "outcomes", rows_told, found)
