"""Snapshots in a store: written manifest last, read with distrust, copied, and swept."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

from snapshots.blob_store import (
    BlobExists,
    BlobMissing,
    BlobStore,
    BlobTooLarge,
    body_sha256,
)
from snapshots.manifest import (
    MANIFEST_SIZE_MAX,
    MANIFESTS,
    OBJECTS,
    Entry,
    Manifest,
    SnapshotDamaged,
    dates_of,
    manifest_key,
    object_key,
    object_sha256,
    read_manifest,
)

GRACE: Final = timedelta(hours=24)
"""For how long an object may lie there before a manifest names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What was removed from a store: snapshots, objects that none names, parts of files."""

    dates: tuple[date, ...]
    objects: int
    unfinished: int


def dates_in(store: BlobStore) -> list[date]:
    """Return the days of which a store has a manifest, oldest first."""
    return dates_of(store.keys(MANIFESTS))


def manifest_in(store: BlobStore, day: date, *, known_sha256: str | None = None) -> Manifest:
    """Return the manifest of a day; `known_sha256` is what the ledger remembers of it.

    Raises `BlobMissing` where there is none, `SnapshotDamaged`.
    """
    try:
        content = store.get(manifest_key(day), size_max=MANIFEST_SIZE_MAX)
    except BlobTooLarge:
        rule = f"must have at most {MANIFEST_SIZE_MAX} bytes"
        raise SnapshotDamaged(file="manifest", rule=rule, found="more") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if known_sha256 is not None and sha256 != known_sha256:
        rule = f"must have the SHA-256 that the ledger knows, {known_sha256}"
        raise SnapshotDamaged(file="manifest", rule=rule, found=sha256)
    return read_manifest(content, day=day)


def content_of(store: BlobStore, entry: Entry) -> bytes:
    """Return one file of a snapshot, held against the manifest; raises `SnapshotDamaged`."""
    try:
        content = store.get(entry.key, size_max=entry.size)
    except BlobMissing:
        raise SnapshotDamaged(file=entry.path, rule="must be there", found="nothing") from None
    except BlobTooLarge:
        rule = f"must have {entry.size} bytes"
        raise SnapshotDamaged(file=entry.path, rule=rule, found="more") from None
    found = hashlib.sha256(content).hexdigest()
    if len(content) != entry.size or found != entry.sha256:
        rule = f"must have {entry.size} bytes with the SHA-256 {entry.sha256}"
        raise SnapshotDamaged(file=entry.path, rule=rule, found=f"{len(content)}, {found}")
    return content


def write(
    store: BlobStore,
    manifest: Manifest,
    bodies: Mapping[str, bytes | Path],
    *,
    settled: Manifest | None,
) -> None:
    """Store a snapshot: objects first, then its manifest, then all of it is read back.

    `bodies` are its files by SHA-256. Objects that `settled` names, a snapshot that is not about
    to be removed, are only looked at; any other one is stored anew though it may be there, so that
    nobody who sweeps takes it for something old. Raises `BlobExists` where the day has another
    manifest: that one stands. Raises `SnapshotDamaged` for bodies that changed meanwhile.
    """
    lasting = set() if settled is None else {entry.sha256 for entry in settled.entries}
    for entry in _once(manifest.entries):
        _put_object(store, entry, bodies[entry.sha256], is_lasting=entry.sha256 in lasting)
    store.put(manifest_key(manifest.date), manifest.to_bytes(), if_absent=True)
    for entry in _once(manifest.entries):
        try:
            content_of(store, entry)
        except SnapshotDamaged:  # whoever swept took it in the last moment: no other can
            _put_object(store, entry, bodies[entry.sha256], is_lasting=False)


def copy(
    source: BlobStore, target: BlobStore, manifest: Manifest, *, settled: Manifest | None
) -> None:
    """Bring a snapshot from one store into another, each file held against the manifest.

    Raises as `write` does.
    """
    write(target, manifest, _Bodies(source, manifest), settled=settled)


def check(store: BlobStore, manifest: Manifest) -> None:
    """Read back every file of a snapshot; raises `SnapshotDamaged` for the first that is not."""
    for entry in _once(manifest.entries):
        content_of(store, entry)


def newest_in(store: BlobStore) -> Manifest | None:
    """Return the newest sound manifest; None where there is none."""
    for day in reversed(dates_in(store)):
        with suppress(SnapshotDamaged, BlobMissing):
            return manifest_in(store, day)
    return None


def prune(store: BlobStore, *, gone: Collection[date], now: datetime) -> Swept:
    """Remove the snapshots of some days, and what no snapshot names and nobody just stored.

    While a manifest cannot be read no object goes: it may be named there.
    """
    for day in gone:
        store.delete(manifest_key(day))
    before = now - GRACE
    unfinished = store.forget_unfinished(before=before)
    return Swept(dates=tuple(gone), objects=len(_sweep(store, before)), unfinished=unfinished)


def orphans(store: BlobStore, *, gone: Collection[date], before: datetime) -> list[str]:
    """Return the keys of objects that were stored before a moment and that no snapshot names.

    What only the days `gone` name counts as named by none.
    """
    # Objects first: one that is stored from here on is not looked at.
    keys = list(store.keys(OBJECTS))
    named: set[str] = set()
    for day in dates_in(store):
        if day in gone:
            continue
        try:
            named.update(entry.sha256 for entry in manifest_in(store, day).entries)
        except BlobMissing:  # removed meanwhile
            continue
        except SnapshotDamaged:
            return []
    return [key for key in keys if _is_old_orphan(store, key, named, before)]


def _is_old_orphan(store: BlobStore, key: str, named: Collection[str], before: datetime) -> bool:
    sha256 = object_sha256(key)
    if sha256 is None or sha256 in named:
        return False
    with suppress(BlobMissing):
        return store.facts(key).stored_at < before
    return False


def _sweep(store: BlobStore, before: datetime) -> list[str]:
    found = orphans(store, gone=(), before=before)
    swept = []
    for key in found:
        with suppress(BlobMissing):
            # Looked at again at the last moment: a writer may just have stored it anew.
            if store.facts(key).stored_at < before:
                store.delete(key)
                swept.append(key)
    return swept


def _put_object(store: BlobStore, entry: Entry, body: bytes | Path, *, is_lasting: bool) -> None:
    if body_sha256(body) != entry.sha256:
        rule = f"must still have the SHA-256 {entry.sha256}"
        raise SnapshotDamaged(file=entry.path, rule=rule, found="another content")
    try:
        store.put(object_key(entry.sha256), body, if_absent=is_lasting)
    except BlobExists:  # damaged: its name says what it has to be
        store.put(object_key(entry.sha256), body)


def _once(entries: Iterable[Entry]) -> Iterator[Entry]:
    return iter({entry.sha256: entry for entry in entries}.values())


class _Bodies(Mapping[str, bytes | Path]):
    """The files of a snapshot in a store, each read when it is asked for."""

    def __init__(self, store: BlobStore, manifest: Manifest) -> None:
        self._store = store
        self._entries = {entry.sha256: entry for entry in manifest.entries}

    def __getitem__(self, sha256: str) -> bytes:
        return content_of(self._store, self._entries[sha256])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
