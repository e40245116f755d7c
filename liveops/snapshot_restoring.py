"""Snapshots read back: all of it held against the manifest, artefacts read as they are served."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.model import PolicySha
from learners.sealed_files import MANIFEST, ArtifactRefused, seal
from snapshots import copies
from snapshots.blob_store import BlobMissing, BlobStore, StoreUnavailable
from snapshots.durable_files import sync_directory
from snapshots.manifest import EntryKind, Manifest, SnapshotDamaged

_ARTIFACTS, _CARDS = "artifacts", "cards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was read back, and from where; `artifacts` are those that were put anew."""

    store: str
    manifest: Manifest
    artifacts: tuple[str, ...]


def unpack(store: BlobStore, manifest: Manifest, into: Path) -> None:
    """Write a snapshot to a new directory, which appears whole or not at all.

    Every file is held against the manifest before it is written, and every artefact is read as a
    service reads it. Raises `SnapshotDamaged`, `ArtifactRefused`, and `InvalidInput` where
    something lies at `into`.
    """
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise InvalidInput(field="--into", rule="must be a new or empty directory", found=into)
    into.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{into.name}.part-", dir=into.parent))
    try:
        for entry in manifest.entries:
            if not entry.path.startswith(f"{_ARTIFACTS}/"):
                path = part / entry.path
                path.parent.mkdir(exist_ok=True)
                _write(path, copies.content_of(store, entry))
        _write(part / MANIFEST, manifest.to_bytes())
        _put_artifacts(store, manifest, part / _ARTIFACTS)
        sync_directory(part)
        if into.exists():
            into.rmdir()
        part.rename(into)
        sync_directory(into.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def verify(store: BlobStore, day: date, *, known_sha256: str | None) -> Manifest:
    """Read back a whole snapshot, artefacts as they are served; nothing is left of it.

    Raises `BlobMissing`, `SnapshotDamaged`, `ArtifactRefused`.
    """
    manifest = copies.manifest_in(store, day, known_sha256=known_sha256)
    with tempfile.TemporaryDirectory(prefix="liveops-snapshot-") as folder:
        unpack(store, manifest, Path(folder, "read"))
    return manifest


def put_back(store: BlobStore, manifest: Manifest, home: Path) -> list[str]:
    """Put the artefacts and cards that are missing below `home` back there; return the artefacts.

    All of the snapshot is read and accepted before anything is put. What lies there stays.
    """
    with tempfile.TemporaryDirectory(prefix="liveops-snapshot-") as folder:
        read = Path(folder, "read")
        unpack(store, manifest, read)
        put = []
        for sha in _encoders_first(manifest):
            if not os.path.lexists(home / _ARTIFACTS / sha):
                seal(home / _ARTIFACTS, _files(read / _ARTIFACTS / sha))
                put.append(sha)
        for card in sorted((read / _CARDS).glob("*.json")):
            place = home / _CARDS / card.name
            if not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                part = place.with_name(f".{place.name}.part")
                _write(part, card.read_bytes())
                part.replace(place)
    return put


def restore(
    stores: Mapping[str, tuple[BlobStore, str | None]],
    day: date,
    *,
    into: Path | None,
    home: Path | None,
) -> Restored:
    """Read back the snapshot of a day from the first store that has a sound one.

    `stores` has each store by its name, with the SHA-256 of the manifest that the ledger knows. It
    is written to `into`, its missing artefacts are put below `home`, or nothing but read where both
    are None. Raises what the last store raised.
    """
    failed: BanditError = BlobMissing(f"no store has a snapshot of {day}")
    for name, (store, known_sha256) in stores.items():
        try:
            manifest = verify(store, day, known_sha256=known_sha256)
        except BlobMissing:
            continue
        except (StoreUnavailable, SnapshotDamaged, ArtifactRefused) as error:
            failed = error  # another may have it
            continue
        if into is not None:
            unpack(store, manifest, into)
        put = [] if home is None else put_back(store, manifest, home)
        return Restored(store=name, manifest=manifest, artifacts=tuple(put))
    raise failed


def _put_artifacts(store: BlobStore, manifest: Manifest, root: Path) -> None:
    for sha in _encoders_first(manifest):
        entries = manifest.artifacts[sha]
        files = {name: copies.content_of(store, entry) for name, entry in entries.items()}
        named = files.pop(MANIFEST, b"")
        # Named by its own manifest, and that by its files: `seal` writes it anew.
        if hashlib.sha256(named).hexdigest() != sha or seal(root, files) != sha:
            rule = "its files must be those it is named by"
            raise SnapshotDamaged(file=f"{_ARTIFACTS}/{sha}", rule=rule, found="other files")
        _read(root, sha, is_encoder=_is_encoder(manifest, sha))


def _read(root: Path, sha: str, *, is_encoder: bool) -> None:
    from learners.artifact import read
    from learners.encoder_artifact import read_encoder

    if is_encoder:
        read_encoder(root, PolicySha(sha))
    else:
        read(root, PolicySha(sha))


def _encoders_first(manifest: Manifest) -> list[str]:
    return sorted(manifest.artifacts, key=lambda sha: (not _is_encoder(manifest, sha), sha))


def _is_encoder(manifest: Manifest, sha: str) -> bool:
    return any(entry.kind is EntryKind.ENCODER for entry in manifest.artifacts[sha].values())


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
