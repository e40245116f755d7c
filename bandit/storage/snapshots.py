"""What happened to snapshots, as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from bandit.core.snapshots import SnapshotEvent, SnapshotRecord, SnapshotStore
from bandit.storage.engine import one, rows


def append(connection: Connection, record: SnapshotRecord) -> bool:
    """Store what happened; False where it happened before and can but once."""
    made = one(
        connection,
        """
        INSERT INTO snapshots (snapshot_date, store, event, manifest_sha256, size_bytes,
                               recorded_at)
        VALUES (:date, :store, :event, :sha256, :size, :recorded_at)
        ON CONFLICT DO NOTHING RETURNING id
        """,
        date=record.date,
        store=record.store.value,
        event=record.event.value,
        sha256=bytes.fromhex(record.manifest_sha256),
        size=record.size,
        recorded_at=record.recorded_at,
    )
    return made is not None


def newest(connection: Connection) -> list[SnapshotRecord]:
    """Return the newest of each event of each day and store, by day."""
    found = rows(
        connection,
        "SELECT DISTINCT ON (snapshot_date, store, event) * FROM snapshots "
        "ORDER BY snapshot_date, store, event, id DESC",
    )
    return [_record(row) for row in found]


def identity(connection: Connection) -> tuple[str, str]:
    """Return the ledger's own id and the revision of its schema."""
    found = one(
        connection,
        "SELECT id::text AS id, (SELECT version_num FROM alembic_version) AS revision "
        "FROM ledger_identity",
    )
    assert found is not None
    return found["id"], found["revision"]


def _record(row: Mapping[str, Any]) -> SnapshotRecord:
    return SnapshotRecord(
        date=row["snapshot_date"],
        store=SnapshotStore(row["store"]),
        event=SnapshotEvent(row["event"]),
        manifest_sha256=bytes(row["manifest_sha256"]).hex(),
        size=row["size_bytes"],
        recorded_at=row["recorded_at"],
    )
