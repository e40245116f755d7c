"""What a ledger remembers of snapshots."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from bandit.core.snapshots import SnapshotEvent, SnapshotRecord, SnapshotStore
from bandit.service import snapshots


def was_stored(engine: Engine, *, at: datetime) -> None:
    """The snapshot of a day was stored on this machine."""
    record = SnapshotRecord(
        date=at.date(),
        store=SnapshotStore.LOCAL,
        event=SnapshotEvent.STORED,
        manifest_sha256="5" * 64,
        size=1024,
        recorded_at=at,
    )
    assert snapshots.note(engine, record, actor="test")
