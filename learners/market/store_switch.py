"""The store's one step from a version to another: all its series at once, or none.

What each changed series is to be is written into `switch.json`: from then on readers read that.
Then every `series.json` is replaced, and `switch.json` goes. Whoever was killed in between has
switched; the next one to write finishes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bandit.core.errors import LockHeldElsewhere
from learners.durable_files import sync_directory, write_durably
from learners.market.stored_series import MANIFEST, DamagedSeries, Document, encoded

SWITCH = "switch.json"
VERSIONS = "versions"
Documents = Mapping[str, Document | None]
"""What `series.json` says by the folder of a series below the store; None where there is none."""


def document_of(root: Path, folder: str) -> Document | None:
    """Return what is known of a series now; None where it is not there.

    Raises `DamagedSeries` for what is no JSON object.
    """
    switching = pending(root)
    if folder in switching:
        return switching[folder]
    path = root / folder / MANIFEST
    try:
        return _read(path)
    except FileNotFoundError:
        return None


def documents(root: Path) -> dict[str, Document]:
    """Return what is known of every series, in the order of folders; raises `DamagedSeries`."""
    found = {path.parent.relative_to(root).as_posix() for path in root.glob(f"*/*/*/{MANIFEST}")}
    told = {name: document_of(root, name) for name in sorted(found | set(pending(root)))}
    return {name: document for name, document in told.items() if document is not None}


def pending(root: Path) -> Documents:
    """Return the changes of a switch that was begun and not finished; none otherwise."""
    try:
        return _read(root / SWITCH)
    except FileNotFoundError:
        return {}


def switch(root: Path, changes: Documents) -> None:
    """Make these series what `changes` says, all at once.

    For whoever holds the locks of these series. Raises `LockHeldElsewhere`, and `OSError` where the
    disk refuses; nothing is changed then, or all.
    """
    with _switching(root):
        _finish(root)
        write_durably(root / SWITCH, encoded(changes))
        _finish(root)


def finish(root: Path) -> None:
    """Finish a switch that was begun, if there is one; raises `LockHeldElsewhere`."""
    if pending(root):
        with _switching(root):
            _finish(root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What the load of a date changed: each series `before` it and `after` it.

    `digest` is that of the whole store before it.
    """

    day: date
    digest: str
    before: Documents
    after: Documents

    def to_json(self) -> dict[str, object]:
        """Return the document that lies in `versions/`."""
        return {
            "date": self.day.isoformat(),
            "digest": self.digest,
            "before": self.before,
            "after": self.after,
        }


def versions(root: Path) -> list[Version]:
    """Return the loads that can be rolled back, the oldest first; raises `DamagedSeries`."""
    return [_version(path) for path in sorted((root / VERSIONS).glob("*.json"))]


def keep_version(root: Path, version: Version) -> None:
    """Write down what a load changes, before it does."""
    folder = root / VERSIONS
    folder.mkdir(exist_ok=True)
    write_durably(folder / f"{version.day}.json", encoded(version.to_json()))


def forget_version(root: Path, date: date) -> None:
    """Take the load of a date from those that can be rolled back."""
    (root / VERSIONS / f"{date}.json").unlink(missing_ok=True)
    sync_directory(root / VERSIONS)


def kept_documents(root: Path, folder: str) -> Iterator[Document]:
    """Yield what versions that are kept say of a series: their files must stay."""
    for version in versions(root):
        for document in (version.before.get(folder), version.after.get(folder)):
            if document is not None:
                yield document


def version_digest(root: Path) -> str:
    """Return what names the whole store as it is now: equal digests, equal content.

    >>> version_digest(Path("/nowhere"))[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    for folder, document in documents(root).items():
        digest.update(folder.encode() + b"\0" + encoded(document))
    return digest.hexdigest()


def _version(path: Path) -> Version:
    told = _read(path)
    try:
        return Version(
            day=date.fromisoformat(told["date"]),
            digest=told["digest"],
            before=told["before"],
            after=told["after"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedSeries(f"{path} cannot be read: {error!r}") from error


def _finish(root: Path) -> None:
    changes = pending(root)
    for folder, document in changes.items():
        path = root / folder / MANIFEST
        if document is None:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_directory(path.parent)
        else:
            write_durably(path, encoded(document))
    if changes:
        (root / SWITCH).unlink()
        sync_directory(root)


@contextmanager
def _switching(root: Path) -> Iterator[None]:
    with (root / ".switch.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeldElsewhere(f"another process is switching {root}") from None
        yield


def _read(path: Path) -> Document:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedSeries(f"{path} cannot be read: {error!r}") from error
    if not isinstance(document, dict):
        raise DamagedSeries(f"{path} cannot be read: it holds no object")
    return document
