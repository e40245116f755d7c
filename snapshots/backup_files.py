"""Backups on disk: directories that appear whole, and files that are what their metadata says.

A backup is a directory of files and `backup_metadata.json`, which names each of them with its size
and SHA-256, and carries a SHA-256 of itself. While one is made, or removed, it bears another name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bandit.core.backups import BackupDamaged, BackupKind, kind_and_second
from bandit.core.errors import InvalidInput, UnknownName
from snapshots.durable_files import sync_directory

METADATA: Final = "backup_metadata.json"
FORMAT: Final = 1
LATEST: Final = "latest"
_PART = ".part"
_OWN_DIGEST = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup on disk, with what its metadata says; its files are not looked at yet."""

    path: Path
    kind: BackupKind
    taken_at: datetime
    metadata: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.path.name

    @property
    def size_bytes(self) -> int:
        """What its files take together."""
        return sum(int(file["bytes"]) for file in self.metadata["files"].values())

    def to_json(self) -> dict[str, Any]:
        """Return the backup as commands print it."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "taken_at": self.taken_at.isoformat(),
            "bytes": self.size_bytes,
            "path": str(self.path),
        }


@contextmanager
def appearing_backup(root: Path, name: str) -> Iterator[Path]:
    """Yield a private directory to fill, which appears as `name` when the context ends well.

    Whoever fills it calls `seal` last. After an error nothing is left; a crash leaves a directory
    that no reader takes for a backup, and that `clear_parts` removes.
    """
    root.mkdir(parents=True, exist_ok=True)
    if (root / name).exists():
        raise FileExistsError(errno.EEXIST, "is there already", str(root / name))
    part = root / f"{name}{_PART}"
    part.mkdir(mode=0o700)
    try:
        yield part
        part.rename(root / name)
        sync_directory(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def seal(part: Path, metadata: Mapping[str, Any]) -> None:
    """Write the metadata of everything in `part`, and return once all of it is on disk."""
    files = {}
    for path in _files_below(part):
        files[path.relative_to(part).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
        _sync(path)
    document = {**metadata, "format": FORMAT, "files": files}
    document[_OWN_DIGEST] = _digest_of(document)
    target = part / METADATA
    target.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _sync(target)
    for folder in sorted((p for p in part.rglob("*") if p.is_dir()), reverse=True):
        sync_directory(folder)
    sync_directory(part)


def clear_parts(root: Path, name: str = "*") -> None:
    """Remove what killed takers and removers left; the caller is the only one there is."""
    for part in root.glob(f"{name}{_PART}"):
        shutil.rmtree(part, ignore_errors=True)


def remove(backup: Backup) -> None:
    """Remove a backup; whoever looks meanwhile finds it whole, or not at all."""
    part = backup.path.with_name(f"{backup.name}{_PART}")
    backup.path.rename(part)
    sync_directory(part.parent)
    shutil.rmtree(part, ignore_errors=True)


def names(root: Path, kind: BackupKind | None = None) -> list[str]:
    """Return the names of the backups of one kind, or of all, the newest first."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        try:
            its_kind, second = kind_and_second(path.name)
        except InvalidInput:
            continue
        if kind in (None, its_kind):
            found.append((second, path.name))
    return [name for _, name in sorted(found, reverse=True)]


def opened(root: Path, name: str) -> Backup:
    """Return a backup with its metadata; raises `UnknownName` and `BackupDamaged`.

    Its files may still be anything: `verify` reads them.
    """
    kind, second = kind_and_second(name)
    path = root / name
    if not path.is_dir():
        raise UnknownName(kind="backup", name=name, known=names(root)[:5])
    try:
        document = json.loads((path / METADATA).read_text(encoding="utf-8"))
        told = document.pop(_OWN_DIGEST)
        taken_at = datetime.fromisoformat(document["taken_at"])
        fits = told == _digest_of(document) and document["format"] == FORMAT
        fits = fits and (document["kind"], document["name"]) == (kind.value, name)
        fits = fits and timedelta(0) <= taken_at - second < timedelta(seconds=1)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackupDamaged(f"{name}: {METADATA} cannot be read: {error!r}") from error
    if not fits:
        raise BackupDamaged(f"{name}: {METADATA} is not what was written")
    return Backup(path=path, kind=kind, taken_at=taken_at, metadata=document)


def verify(backup: Backup) -> None:
    """Read every file; raises `BackupDamaged` unless each is there and what it was, and no other.

    One flipped bit is found, and a missing, shorter or longer file.
    """
    told = backup.metadata["files"]
    found = {path.relative_to(backup.path).as_posix(): path for path in _files_below(backup.path)}
    found.pop(METADATA, None)
    strange = sorted(found.keys() ^ told.keys())
    if strange:
        what = "is missing" if strange[0] in told else "is not of it"
        raise BackupDamaged(f"{backup.name}: the file {strange[0]} {what}")
    for name, path in sorted(found.items()):
        if path.stat().st_size != told[name]["bytes"]:
            raise BackupDamaged(f"{backup.name}: the file {name} has another size")
        if _sha256(path) != told[name]["sha256"]:
            raise BackupDamaged(f"{backup.name}: the file {name} has another SHA-256")


def expired(root: Path, *, before: datetime) -> list[Backup]:
    """Return the backups taken before a moment, but the newest of each kind whatever its age."""
    found = []
    for kind in BackupKind:
        for name in names(root, kind)[1:]:
            if kind_and_second(name)[1] < before:
                try:
                    found.append(opened(root, name))
                except BackupDamaged:  # it stays for a person to look at
                    continue
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise BackupDamaged(f"{folder.name}: {path.name} is a link")
        if path.is_file():
            yield path


def _digest_of(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
