"""Snapshots as the ledger remembers them, and which of them are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum


class SnapshotEvent(StrEnum):
    """What happened to a snapshot in a store."""

    STORED = "stored"
    VERIFIED = "verified"
    DAMAGED = "damaged"
    PRUNED = "pruned"


class SnapshotStore(StrEnum):
    """Where a snapshot lies: in the directory of this machine, or in the bucket."""

    LOCAL = "local"
    S3 = "s3"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """Something that happened to the snapshot of a day; `size` are its bytes.

    `manifest_sha256` is the SHA-256 of its manifest, which names everything in it.
    """

    date: date
    store: SnapshotStore
    event: SnapshotEvent
    manifest_sha256: str
    size: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Every snapshot of the last `days` is kept, then the first of each week for `weeks` in all.

    >>> days = [date(2026, 3, 1) + timedelta(days=n) for n in range(31)]
    >>> rule = Retention(days=3, weeks=3)
    >>> [day.day for day in rule.kept(days, today=date(2026, 3, 31))]
    [16, 23, 29, 30, 31]
    """

    days: int
    weeks: int

    def kept(
        self, dates: Iterable[date], *, today: date, held: Collection[date] = ()
    ) -> list[date]:
        """Return which of these days keep their snapshot, oldest first.

        The newest does always, and those `held` by something that needs them. A week begins on
        Monday. Days after `today` are kept: whoever's clock was wrong, it is not for us to say.
        """
        days = sorted(dates)
        first_of_week: dict[date, date] = {}
        for day in days:
            first_of_week.setdefault(day - timedelta(days=day.weekday()), day)
        weekly = {day for day in first_of_week.values() if (today - day).days < 7 * self.weeks}
        return [
            day
            for day in days
            if day in weekly or day in held or day == days[-1] or (today - day).days < self.days
        ]


def pending_uploads(records: Iterable[SnapshotRecord]) -> list[date]:
    """Return the days whose snapshot lies here and in no bucket yet, oldest first."""
    happened = {(record.date, record.store, record.event) for record in records}
    return sorted(
        day
        for day, store, event in happened
        if store is SnapshotStore.LOCAL
        and event is SnapshotEvent.STORED
        and (day, SnapshotStore.LOCAL, SnapshotEvent.PRUNED) not in happened
        and (day, SnapshotStore.S3, SnapshotEvent.STORED) not in happened
    )


def damaged(records: Iterable[SnapshotRecord]) -> list[SnapshotRecord]:
    """Return those that were damaged when they were last read back, and are still there.

    `records` are the newest of each event of each day and store.
    """
    known = {(record.date, record.store, record.event): record for record in records}
    found = []
    for (day, store, event), record in known.items():
        verified = known.get((day, store, SnapshotEvent.VERIFIED))
        is_mended = verified is not None and verified.recorded_at > record.recorded_at
        is_gone = (day, store, SnapshotEvent.PRUNED) in known
        if event is SnapshotEvent.DAMAGED and not is_mended and not is_gone:
            found.append(record)
    return found


def needed_dates(
    contents: Iterable[tuple[date, Collection[str]]], *, needed: Collection[str]
) -> set[date]:
    """Return the days whose snapshot is the newest that holds an artefact which is `needed`.

    `contents` are days with the artefacts in their snapshots.

    >>> held = [(date(2026, 3, 1), {"a", "b"}), (date(2026, 3, 2), {"a"})]
    >>> sorted(day.day for day in needed_dates(held, needed={"a", "b", "c"}))
    [1, 2]
    """
    newest: dict[str, date] = {}
    for day, artifacts in contents:
        for sha in artifacts:
            if sha in needed:
                newest[sha] = max(day, newest.get(sha, day))
    return set(newest.values())
