"""Snapshots of the day: taken once, here first, then brought to the bucket; kept, and removed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bandit.core.errors import BanditError, Conflict, InvalidInput
from bandit.core.snapshots import (
    Retention,
    SnapshotEvent,
    SnapshotRecord,
    SnapshotStore,
    needed_dates,
    pending_uploads,
)
from bandit.service import policies
from bandit.service import snapshots as facts
from liveops.blob_stores import bucket_store, local_store
from liveops.snapshot_contents import contents
from snapshots import copies
from snapshots.blob_store import BlobDamaged, BlobExists, BlobMissing, BlobStore, StoreUnavailable
from snapshots.copies import Swept
from snapshots.manifest import Manifest, SnapshotDamaged, manifest_key

if TYPE_CHECKING:
    from config.settings import SettingRow
    from liveops.wiring import App

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What came of taking a snapshot."""

    TAKEN = "taken"
    ALREADY = "already"
    OTHERS = "others"
    WOULD_TAKE = "would_take"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The snapshot of a day, who made it, and the days that no bucket has yet, with the reason."""

    outcome: Outcome
    manifest: Manifest
    uploaded: tuple[date, ...] = ()
    pending: tuple[date, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as the command prints it."""
        found = self.manifest
        said = f"snapshot of {found.date}, {len(found.entries)} files, {found.size} bytes"
        would = self.outcome is Outcome.WOULD_TAKE
        return {
            "would" if would else "done": [said] if would or self.outcome is Outcome.TAKEN else [],
            "date": found.date.isoformat(),
            "outcome": self.outcome.value,
            "made_at": found.made_at.isoformat(),
            "manifest_sha256": found.sha256,
            "files": len(found.entries),
            "bytes": found.size,
            "left_out": dict(found.left_out),
            "uploaded": [day.isoformat() for day in self.uploaded],
            "pending": [day.isoformat() for day in self.pending],
            "problems": list(self.problems),
        }


@dataclass(slots=True, kw_only=True)
class Uploads:
    """What was brought to the bucket, what still waits, and why."""

    uploaded: list[date] = field(default_factory=list)
    others: list[date] = field(default_factory=list)
    pending: list[date] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and nothing went wrong."""
        return not self.pending and not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The stores of snapshots; `bucket` is None where none is set."""

    local: BlobStore
    bucket: BlobStore | None

    def __iter__(self) -> Iterator[BlobStore]:
        """Yield each store, the one on this machine first."""
        yield self.local
        if self.bucket is not None:
            yield self.bucket


def places_of(app: App) -> Places:
    """Return the stores that the settings name; what the demo keeps stays on this machine."""
    settings = app.settings
    bucket = None if app.demo else bucket_store(settings, now=app.clock.now)
    return Places(local=local_store(settings, demo=app.demo), bucket=bucket)


def day_of(app: App, chosen: date | None) -> date:
    """Return the day that a snapshot is of; raises `InvalidInput` for one that is to come."""
    today = app.clock.now().date()
    if chosen is not None and chosen > today:
        raise InvalidInput(field="--date", rule=f"must be {today} at most", found=chosen)
    return chosen or today


def take(
    app: App,
    places: Places,
    settings: Iterable[SettingRow],
    *,
    day: date,
    actor: str,
    dry_run: bool = False,
) -> Taken:
    """Take the snapshot of a day, once: here first, then in the bucket with what still waits.

    Killed anywhere and begun again it comes to the same end. Where the bucket cannot be reached the
    snapshot stays here and waits for `upload`. Raises `SnapshotDamaged` where the day's manifest is
    there and not what was written.
    """
    made = _made(app, places, day)
    outcome = Outcome.ALREADY
    if made is None:
        found = contents(app, settings, day=day)
        made, outcome = found.manifest, Outcome.TAKEN
        if dry_run:
            return Taken(outcome=Outcome.WOULD_TAKE, manifest=made)
        try:
            settled = copies.newest_in(places.local)
            copies.write(places.local, made, found.bodies, settled=settled)
        except BlobExists:
            made, outcome = copies.manifest_in(places.local, day), Outcome.OTHERS
    if dry_run:
        return Taken(outcome=outcome, manifest=made)
    uploads = upload(app, places, actor=actor)
    if day in uploads.others and places.bucket is not None:
        made, outcome = copies.manifest_in(places.bucket, day), Outcome.OTHERS
    return Taken(
        outcome=outcome,
        manifest=made,
        uploaded=tuple(uploads.uploaded),
        pending=tuple(uploads.pending),
        problems=tuple(uploads.problems),
    )


def upload(app: App, places: Places, *, actor: str, dry_run: bool = False) -> Uploads:
    """Bring to the bucket every snapshot that lies here and was never there, oldest first.

    Where another machine stored the same day before, its snapshot stands and ours goes.
    """
    here = copies.dates_in(places.local)
    uploads = Uploads()
    if not dry_run:
        uploads.problems += _note_stored(app, places.local, here, actor=actor)
    if places.bucket is None:
        return uploads
    waiting = [day for day in pending_uploads(facts.noted(app.engine)) if day in here]
    if dry_run:
        uploads.pending += waiting
        return uploads
    for number, day in enumerate(waiting):
        try:
            is_ours = _upload(app, places.local, places.bucket, day, actor=actor)
        except SnapshotDamaged as error:
            uploads.problems.append(f"{day}: {error}")
        except (StoreUnavailable, BlobDamaged) as error:
            log.warning("a snapshot waits for its bucket", extra={"detail": str(error)})
            uploads.problems.append(str(error))
            uploads.pending += waiting[number:]
            break
        else:
            uploads.uploaded += [day] if is_ours else []
            uploads.others += [] if is_ours else [day]
    return uploads


def prune(
    app: App, places: Places, *, day: date, actor: str, dry_run: bool = False
) -> dict[str, Swept]:
    """Remove from each store what its retention lets go; return it by store.

    The newest snapshot stays, what still waits for the bucket, and whatever is the newest snapshot
    that holds the artefact of a registered policy. Raises what the first store raised, once every
    store was tried.
    """
    chosen = app.settings.snapshots
    rule = Retention(days=chosen.keep_days, weeks=chosen.keep_weeks)
    records = facts.noted(app.engine)
    waiting = set() if places.bucket is None else set(pending_uploads(records))
    needed = {record.policy.sha for record in policies.listed(app.engine)}
    swept: dict[str, Swept] = {}
    failed: StoreUnavailable | None = None
    for store in places:
        try:
            dates = copies.dates_in(store)
            held = waiting | needed_dates(_artifacts(store, dates), needed=needed)
            kept = rule.kept(dates, today=day, held=held)
            gone = [each for each in dates if each not in kept]
            swept[store.kind] = _prune(app, store, gone, records, actor=actor, dry_run=dry_run)
        except StoreUnavailable as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return swept


def known_sha256(records: Iterable[SnapshotRecord], day: date, kind: str) -> str | None:
    """Return the SHA-256 of a manifest as the ledger remembers it; None where it does not."""
    for record in records:
        if (record.date, record.store.value, record.event) == (day, kind, SnapshotEvent.STORED):
            return record.manifest_sha256
    return None


def note(app: App, store: BlobStore, event: SnapshotEvent, found: Manifest, *, actor: str) -> None:
    """Write down in the ledger what happened to a snapshot."""
    record = SnapshotRecord(
        date=found.date,
        store=SnapshotStore(store.kind),
        event=event,
        manifest_sha256=found.sha256,
        size=found.size,
        recorded_at=app.clock.now(),
    )
    facts.note(app.engine, record, actor=actor)


def _made(app: App, places: Places, day: date) -> Manifest | None:
    """Return the snapshot of a day where there is one, here or in the bucket."""
    records = facts.noted(app.engine)
    for store in places:
        try:
            known = known_sha256(records, day, store.kind)
            found = copies.manifest_in(store, day, known_sha256=known)
        except BlobMissing:
            continue
        except StoreUnavailable as error:
            if store is places.local:
                raise
            log.warning("the bucket is not looked at", extra={"detail": str(error)})
            continue
        _require_own(app, found)
        return found
    return None


def _require_own(app: App, found: Manifest) -> None:
    own = facts.ledger_identity(app.engine)
    if found.ledger != own:
        raise Conflict(
            f"the snapshot of {found.date} is of ledger {found.ledger}, not of ours, {own}: "
            "give each ledger a snapshots.prefix, or a snapshots.local_dir, of its own"
        )


def _note_stored(app: App, store: BlobStore, dates: Iterable[date], *, actor: str) -> list[str]:
    """Tell the ledger of snapshots that it does not know: whoever stored them was killed.

    Return what is wrong with those that cannot be read.
    """
    records, problems = facts.noted(app.engine), list[str]()
    for day in dates:
        if known_sha256(records, day, store.kind) is None:
            try:
                found = copies.manifest_in(store, day)
            except SnapshotDamaged as error:
                problems.append(f"{day}: {error}")
            else:
                note(app, store, SnapshotEvent.STORED, found, actor=actor)
    return problems


def _upload(app: App, here: BlobStore, bucket: BlobStore, day: date, *, actor: str) -> bool:
    """Bring one snapshot to the bucket; False where another machine's was there first."""
    known = known_sha256(facts.noted(app.engine), day, here.kind)
    found = copies.manifest_in(here, day, known_sha256=known)
    try:
        copies.copy(here, bucket, found, settled=copies.newest_in(bucket))
    except BlobExists:
        theirs = copies.manifest_in(bucket, day)
        _require_own(app, theirs)
        copies.check(bucket, theirs)
        note(app, bucket, SnapshotEvent.STORED, theirs, actor=actor)
        note(app, here, SnapshotEvent.PRUNED, found, actor=actor)
        here.delete(manifest_key(day))
        return False
    note(app, bucket, SnapshotEvent.STORED, found, actor=actor)
    return True


def _artifacts(store: BlobStore, dates: Iterable[date]) -> Iterator[tuple[date, set[str]]]:
    for day in dates:
        try:
            yield day, set(copies.manifest_in(store, day).artifacts)
        except BanditError as error:
            if isinstance(error, StoreUnavailable):
                raise
            yield day, set()  # damaged or gone: it holds nothing that anybody could use


def _prune(
    app: App,
    store: BlobStore,
    gone: list[date],
    records: Iterable[SnapshotRecord],
    *,
    actor: str,
    dry_run: bool,
) -> Swept:
    now: datetime = app.clock.now()
    if dry_run:
        orphans = copies.orphans(store, gone=gone, before=now - copies.GRACE)
        return Swept(dates=tuple(gone), objects=len(orphans), unfinished=0)
    for record in records:
        if (
            record.date in gone
            and record.store.value == store.kind
            and record.event is SnapshotEvent.STORED
        ):
            # Before it goes: who is killed in between comes again, and the file with it.
            pruned = SnapshotRecord(
                date=record.date,
                store=record.store,
                event=SnapshotEvent.PRUNED,
                manifest_sha256=record.manifest_sha256,
                size=record.size,
                recorded_at=now,
            )
            facts.note(app.engine, pruned, actor=actor)
    return copies.prune(store, gone=gone, now=now)
