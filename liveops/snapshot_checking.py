"""Snapshots looked at: with the ledger, which remembers what was found, or without one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandit.core.errors import LedgerUnavailable
from bandit.core.snapshots import SnapshotEvent, SnapshotRecord, SnapshotStore
from bandit.service import snapshots as facts
from learners.sealed_files import ArtifactRefused
from liveops.blob_stores import bucket_store, local_store
from liveops.clock import SystemClock
from liveops.commands.options import ledger_app, settings_from
from liveops.ledger_server import state_home
from liveops.snapshot_restoring import Restored
from liveops.snapshot_restoring import restore as restored
from liveops.snapshot_restoring import verify as verified
from liveops.snapshotting import Places, known_sha256
from snapshots import copies
from snapshots.blob_store import BlobMissing, BlobStore, StoreUnavailable
from snapshots.manifest import SnapshotDamaged

if TYPE_CHECKING:
    from liveops.wiring import App

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A snapshot in a store, its size in bytes, and what is wrong with it; None where nothing.

    It `was_read` unless its store could not be reached.
    """

    date: date
    store: str
    size: int | None
    problem: str | None
    was_read: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as the command prints it."""
        return {
            "date": self.date.isoformat(),
            "store": self.store,
            "bytes": self.size,
            "problem": self.problem,
        }


def verify(app: App, places: Places, *, day: date | None, actor: str) -> list[Checked]:
    """Read back the snapshot of a day, or every one, in every store; the ledger hears of each."""
    records, checked = facts.noted(app.engine), list[Checked]()
    for store in places:
        for each in dates_of(store, records, day=day):
            one = _checked(store, each, records)
            checked.append(one)
            known = _stored(records, each, store.kind)
            if known is not None and one.was_read:
                event = SnapshotEvent.VERIFIED if one.problem is None else SnapshotEvent.DAMAGED
                found = SnapshotRecord(
                    date=each,
                    store=known.store,
                    event=event,
                    manifest_sha256=known.manifest_sha256,
                    size=known.size,
                    recorded_at=app.clock.now(),
                )
                facts.note(app.engine, found, actor=actor)
    return checked


def restore(
    config: Path | None, day: date, *, demo: bool, into: Path | None, policies: bool
) -> Restored:
    """Read back a snapshot; where no ledger answers it is held against its manifest alone."""
    settings = settings_from(config)
    records: list[SnapshotRecord] = []
    try:
        with ledger_app(config=config, demo=demo) as app:
            records = facts.noted(app.engine)
    except LedgerUnavailable as error:
        log.warning(
            "the snapshot is held against its own manifest alone", extra={"detail": str(error)}
        )
    bucket = None if demo else bucket_store(settings, now=SystemClock().now)
    stores: dict[str, tuple[BlobStore, str | None]] = {
        store.kind: (store, known_sha256(records, day, store.kind))
        for store in Places(local=local_store(settings, demo=demo), bucket=bucket)
    }
    return restored(stores, day, into=into, home=state_home(settings) if policies else None)


def dates_of(
    store: BlobStore, records: list[SnapshotRecord], *, day: date | None = None
) -> list[date]:
    """Return the days, or the one, that a store has, and those that the ledger says it has.

    Of a store that cannot be reached the latter alone.
    """
    there = {
        record.date
        for record in records
        if record.store.value == store.kind and record.event is SnapshotEvent.STORED
    }
    gone = {
        record.date
        for record in records
        if record.store.value == store.kind and record.event is SnapshotEvent.PRUNED
    }
    known = (there - gone) | set(_dates_in(store))
    return [each for each in sorted(known) if day in (None, each)]


def _checked(store: BlobStore, day: date, records: list[SnapshotRecord]) -> Checked:
    known = known_sha256(records, day, store.kind)
    try:
        manifest = verified(store, day, known_sha256=known)
    except (SnapshotDamaged, ArtifactRefused, BlobMissing) as error:
        return Checked(date=day, store=store.kind, size=None, problem=str(error))
    except StoreUnavailable as error:
        problem = str(error)
        return Checked(date=day, store=store.kind, size=None, problem=problem, was_read=False)
    return Checked(date=day, store=store.kind, size=manifest.size, problem=None)


def _dates_in(store: BlobStore) -> list[date]:
    try:
        return copies.dates_in(store)
    except StoreUnavailable as error:
        log.warning("a store of snapshots cannot be reached", extra={"detail": str(error)})
        return []


def _stored(records: list[SnapshotRecord], day: date, kind: str) -> SnapshotRecord | None:
    for record in records:
        if (record.date, record.store, record.event) == (
            day,
            SnapshotStore(kind),
            SnapshotEvent.STORED,
        ):
            return record
    return None
