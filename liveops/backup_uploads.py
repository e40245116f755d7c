"""Copies of backups in a bucket: sent and read back, sent later where that failed, and fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from bandit.core.backups import BackupDamaged, BackupKind, RestoreRefused, kind_and_second
from bandit.core.errors import AmbiguousName, BanditError, UnknownName
from config.settings import Settings
from liveops import backups
from liveops.blob_stores import bucket_store
from snapshots import backup_files
from snapshots.backup_files import LATEST, METADATA, Backup
from snapshots.blob_store import BlobStore

KINDS: Final = (BackupKind.STATE, BackupKind.DATABASE)
"""What is uploaded: a copy of the server's files holds its password."""

_ROOT: Final = "backups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """Which backups are in the bucket since now, and which are not there yet, and why."""

    done: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    why: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the report for `--json`."""
        return {"uploaded": list(self.done), "pending": list(self.pending), "why": self.why}


def upload(settings: Settings, root: Path, *, now: Callable[[], datetime]) -> Uploads:
    """Send every backup of `root` that the bucket does not hold; nothing where none is set.

    Each file is read back by the store, and the metadata is sent last: so whoever finds that finds
    all of it. What cannot be sent stays pending, for the next call; it never raises for that. One
    that is damaged here stops no other.
    """
    store = bucket_store(settings, now=now) if settings.backup.upload else None
    if store is None:
        return Uploads()
    names = [name for kind in KINDS for name in backup_files.names(root, kind)]
    left, done, why = sorted(names, key=_second, reverse=True), list[str](), list[str]()
    try:
        held = {name for _, name in _listed(store)}
        left = [name for name in left if name not in held]
        for name in tuple(left):
            try:
                _send(store, backup_files.opened(root, name))
            except BackupDamaged as damage:
                why.append(str(damage))
                continue
            left.remove(name)
            done.append(name)
    except BanditError as error:
        why.append(str(error))
    return Uploads(done=tuple(done), pending=tuple(left), why="; ".join(why) or None)


def fetch(settings: Settings, root: Path, name: str, *, now: Callable[[], datetime]) -> Backup:
    """Bring a backup, or the latest of the database, from the bucket into `root`, and verify it.

    Raises `UnknownName`, `AmbiguousName` where the bucket holds that of several ledgers,
    `RestoreRefused` without a bucket, and `BackupDamaged`; then nothing is in `root`.
    """
    store = bucket_store(settings, now=now)
    if store is None:
        raise RestoreRefused("no bucket is set: snapshots.bucket")
    held = list(_listed(store))
    ledgers = sorted({ledger for ledger, _ in held})
    if len(ledgers) > 1:
        raise AmbiguousName(name=name, candidates=ledgers, kind="ledgers in the bucket")
    names = [its_name for _, its_name in held]
    if name == LATEST:
        of_ledger = (n for n in names if kind_and_second(n)[0] is BackupKind.DATABASE)
        name = max(of_ledger, key=_second, default=name)
    if name not in names:
        raise UnknownName(kind="backup in the bucket", name=name, known=names[:5])
    prefix = f"{_ROOT}/{ledgers[0]}/{name}/"
    backup_files.clear_parts(root, name)
    with backup_files.appearing_backup(root, name) as part:
        for key in store.keys(prefix):
            target = part / key.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(key, target)
    made = backup_files.opened(root, name)
    try:
        backups.check(made)
    except BanditError:
        backup_files.remove(made)
        raise
    return made


def _send(store: BlobStore, backup: Backup) -> None:
    backup_files.verify(backup)
    prefix = f"{_ROOT}/{backup.metadata['ledger']}/{backup.name}"
    for file in (*sorted(backup.metadata["files"]), METADATA):
        store.put(f"{prefix}/{file}", backup.path / file, if_absent=True)


def _listed(store: BlobStore) -> Iterator[tuple[str, str]]:
    """Yield ledger and name of every backup that the bucket holds whole."""
    for key in store.keys(f"{_ROOT}/"):
        parts = key.split("/")
        if len(parts) == 4 and parts[3] == METADATA:
            yield parts[1], parts[2]


def _second(name: str) -> datetime:
    return kind_and_second(name)[1]
