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
    rows_told: int
    rows_found: int


_ASSIGNMENTS = """
  SELECT l.id AS audit_id, (l.details ->> 'rows')::bigint AS rows_told, count(s.id) AS rows_found
  FROM audit_log l LEFT JOIN assignments s ON s.audit_id = l.id
  WHERE l.action = 'assignments'
  GROUP BY l.id
  HAVING count(s.id) <> (l.details ->> 'rows')::bigint
    OR encode(sha256(convert_to(string_agg(digested(s), chr(10) ORDER BY s.id), 'UTF8')), 'hex')
       IS DISTINCT FROM l.details ->> 'sha256'
  ORDER BY l.id
"""
_FORGED = """
  SELECT DISTINCT s.audit_id FROM {table} s
  WHERE s.audit_id IS NOT NULL AND NOT EXISTS (SELECT FROM audit_log l WHERE l.id = s.audit_id)
  ORDER BY 1
"""
_OUTCOMES = """
  SELECT l.id AS audit_id, (l.details ->> 'rows')::bigint AS rows_told,
         l.details ->> 'sha256' AS digest, o.assignment_id, o.no_trade, o.pnl, o.return_ratio,
         o.r_multiple, o.fees, o.slippage, o.size, o.worst_excursion, o.opened_at, o.closed_at,
         o.body_hash,
         (o.arm_id, o.unit_id, o.instrument) = (s.arm_id, s.unit_id, s.instrument) AS is_its_own
  FROM audit_log l
  LEFT JOIN outcomes o ON o.audit_id = l.id
  LEFT JOIN assignments s ON s.id = o.assignment_id
  WHERE l.action = 'outcomes'
  ORDER BY l.id, o.assignment_id
"""


def changed(connection: Connection) -> Generator[ChangedBatch]:
    """Return every batch that was changed behind the triggers, streamed.

    Rows from before batches were digested belong to none and are not looked at.
    """
    for found in streamed(connection, _ASSIGNMENTS):
        yield ChangedBatch(table="assignments", **found)
    for told, rows in groupby(streamed(connection, _OUTCOMES), _told):
        batch = _outcomes(told, rows)
        if batch is not None:
            yield batch
    for table in ("assignments", "outcomes"):
        for found in streamed(connection, _FORGED.format(table=table)):
            yield ChangedBatch(AuditId(found["audit_id"]), table, 0, 1)


def _told(row: dict[str, Any]) -> tuple[int, int, str]:
    return row["audit_id"], row["rows_told"], row["digest"]


def _outcomes(told: tuple[int, int, str], rows: Iterator[dict[str, Any]]) -> ChangedBatch | None:
    audit_id, rows_told, digest = told
    hashed, found, intact = hashlib.sha256(), 0, True
    for row in rows:
        if row["assignment_id"] is None:
            continue
        found += 1
        # Hashed from what the row says, not taken from it: an edited amount shows.
        body = outcome_of(row).body_hash()
        intact = intact and row["is_its_own"] is True and body == bytes(row["body_hash"])
        hashed.update(body)
    if intact and found == rows_told and hashed.hexdigest() == digest:
        return None
    return ChangedBatch(AuditId(audit_id), "outcomes", rows_told, found)
