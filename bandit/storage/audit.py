"""The audit log and its chain: rows, seals, and both together as the verifier reads them."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.audit_chain import AuditId, AuditRow, Link, Seal, Stray
from bandit.storage.engine import one, rows, run, streamed

LOST = "restored"
"""Action of the row that says: the log is not the one that was anchored."""

# Text, so that what is hashed is what is stored, whatever the session's settings are.
_COLUMNS = """
  l.id, to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
  l.actor, l.action, l.subject, l.details::text AS details
"""


def ledger_id(connection: Connection) -> UUID:
    """Return what tells this ledger from every other one, and from none of its copies."""
    found = one(connection, "SELECT id FROM ledger_identity")
    assert found is not None
    return UUID(str(found["id"]))


def head(connection: Connection) -> Seal | None:
    """Return the newest seal; None while nothing is sealed."""
    found = one(connection, "SELECT * FROM audit_seals ORDER BY sequence DESC LIMIT 1")
    return None if found is None else _seal(found)


def sealed_to(connection: Connection) -> int:
    """Return the newest seal's sequence; 0 while nothing is sealed."""
    found = one(connection, "SELECT coalesce(max(sequence), 0) AS sequence FROM audit_seals")
    assert found is not None
    return int(found["sequence"])


def sealed_rows(
    connection: Connection, *, after: int, to: int, actions: Sequence[str]
) -> list[AuditRow]:
    """Return the rows of these actions with seals above `after`, up to `to`, in their order."""
    statement = (
        f"SELECT {_COLUMNS} FROM audit_seals s JOIN audit_log l ON l.id = s.audit_id "  # noqa: S608 - names are ours
        "WHERE s.sequence > :after AND s.sequence <= :to AND l.action = ANY(:actions) "
        "ORDER BY s.sequence"
    )
    found = rows(connection, statement, after=after, to=to, actions=list(actions))
    return [_row(row) for row in found]


def append(
    connection: Connection,
    *,
    now: datetime,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, Any],
) -> None:
    """Append one row to the audit log."""
    run(
        connection,
        "INSERT INTO audit_log (at, actor, action, subject, details) "
        "VALUES (:now, :actor, :action, :subject, CAST(:details AS jsonb))",
        now=now,
        actor=actor,
        action=action,
        subject=subject,
        details=json.dumps(details, sort_keys=True, allow_nan=False),
    )


def has(connection: Connection, *, action: str, subject: str) -> bool:
    """Say whether the audit log has a row of this action on this subject."""
    statement = "SELECT id FROM audit_log WHERE action = :action AND subject = :subject LIMIT 1"
    return one(connection, statement, action=action, subject=subject) is not None


def begun_not_ended(connection: Connection, *, began: str, ended: str) -> str | None:
    """Return the subject of the newest row of action `began` without one of `ended` behind it.

    None where there is no such row, or no ledger.
    """
    held = one(connection, "SELECT to_regclass('audit_log') IS NOT NULL AS found")
    assert held is not None
    if not held["found"]:
        return None
    statement = """
        SELECT b.subject FROM audit_log b WHERE b.action = :began AND NOT EXISTS (
          SELECT FROM audit_log e WHERE e.action = :ended AND e.subject = b.subject AND e.id > b.id)
        ORDER BY b.id DESC LIMIT 1
    """
    found = one(connection, statement, began=began, ended=ended)
    return None if found is None else str(found["subject"])


def newest_details(
    connection: Connection, *, action: str, subject: str
) -> Mapping[str, Any] | None:
    """Return what the newest row of this action on this subject tells; None without one."""
    found = one(
        connection,
        "SELECT details FROM audit_log WHERE action = :action AND subject = :subject "
        "ORDER BY id DESC LIMIT 1",
        action=action,
        subject=subject,
    )
    return None if found is None else dict(found["details"])


def appended(connection: Connection) -> int:
    """Return how many rows the audit log has."""
    found = one(connection, "SELECT count(*) AS n FROM audit_log")
    assert found is not None
    return int(found["n"])


def waiting(connection: Connection) -> int:
    """Return how many rows wait to be sealed."""
    found = one(connection, "SELECT count(*) AS n FROM audit_unsealed")
    assert found is not None
    return int(found["n"])


def unsealed(connection: Connection, *, rows_max: int) -> list[AuditRow]:
    """Return the rows that wait to be sealed, by id, at most `rows_max` of them."""
    statement = (
        f"SELECT {_COLUMNS} FROM audit_unsealed u JOIN audit_log l ON l.id = u.audit_id "  # noqa: S608 - names are ours
        "ORDER BY u.audit_id LIMIT :rows_max"
    )
    return [_row(found) for found in rows(connection, statement, rows_max=rows_max)]


def append_seals(connection: Connection, seals: Sequence[Seal]) -> None:
    """Append the next seals of the chain; their rows wait no more."""
    run(
        connection,
        """
        INSERT INTO audit_seals (sequence, audit_id, row_hash, chain_hash, sealed_at)
        SELECT * FROM unnest(
          CAST(:sequences AS bigint[]), CAST(:audit_ids AS bigint[]), CAST(:row_hashes AS bytea[]),
          CAST(:chain_hashes AS bytea[]), CAST(:moments AS timestamptz[])) AS s (sequence)
        ORDER BY s.sequence
        """,
        sequences=[seal.sequence for seal in seals],
        audit_ids=[seal.audit_id for seal in seals],
        row_hashes=[seal.row_hash for seal in seals],
        chain_hashes=[seal.chain_hash for seal in seals],
        moments=[seal.sealed_at for seal in seals],
    )


def links(connection: Connection) -> Generator[Link]:
    """Return every seal with its row, streamed in the order of sealing."""
    statement = (
        f"SELECT s.sequence, s.audit_id, s.row_hash, s.chain_hash, s.sealed_at, {_COLUMNS} "  # noqa: S608 - names are ours
        "FROM audit_seals s LEFT JOIN audit_log l ON l.id = s.audit_id ORDER BY s.sequence"
    )
    for found in streamed(connection, statement):
        yield Link(seal=_seal(found), row=None if found["id"] is None else _row(found))


def strays(connection: Connection) -> Generator[Stray]:
    """Return every audit id that has no seal, streamed by id."""
    statement = """
        SELECT coalesce(l.id, u.audit_id) AS audit_id, l.id IS NOT NULL AS is_there,
               u.audit_id IS NOT NULL AS waits
        FROM audit_log l FULL JOIN audit_unsealed u ON u.audit_id = l.id
        LEFT JOIN audit_seals s ON s.audit_id = coalesce(l.id, u.audit_id)
        WHERE s.audit_id IS NULL ORDER BY 1
    """
    for found in streamed(connection, statement):
        yield Stray(**found)


def chain_hashes(connection: Connection, sequences: Sequence[int]) -> dict[int, bytes]:
    """Return the chain's hash at each of these sequences that has a seal."""
    statement = "SELECT sequence, chain_hash FROM audit_seals WHERE sequence = ANY(:sequences)"
    found = rows(connection, statement, sequences=list(sequences))
    return {row["sequence"]: bytes(row["chain_hash"]) for row in found}


def noted_as_lost(connection: Connection) -> int:
    """Return up to which sequence anchors are known to be lost; 0 where none are."""
    statement = """
        SELECT coalesce(max((details ->> 'anchored_to')::bigint), 0) AS sequence FROM audit_log
        WHERE action = :action AND CASE WHEN pg_input_is_valid(details ->> 'anchored_to', 'bigint')
                                        THEN (details ->> 'anchored_to')::bigint > 0 END
    """
    found = one(connection, statement, action=LOST)
    assert found is not None
    return int(found["sequence"])


def _seal(found: Mapping[str, Any]) -> Seal:
    return Seal(
        sequence=found["sequence"],
        audit_id=AuditId(found["audit_id"]),
        row_hash=bytes(found["row_hash"]),
        chain_hash=bytes(found["chain_hash"]),
        sealed_at=found["sealed_at"],
    )


def _row(found: Mapping[str, Any]) -> AuditRow:
    return AuditRow(
        id=AuditId(found["id"]),
        at=found["at"],
        actor=found["actor"],
        action=found["action"],
        subject=found["subject"],
        details=found["details"],
    )
