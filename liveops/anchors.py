"""Where the audit chain's anchors are kept: a file outside the database, only ever appended to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from bandit.core.audit_chain import Anchor, parsed_anchor
from bandit.core.errors import BanditError
from bandit.service import auditing
from liveops.ledger_server import anchor_dir
from liveops.wiring import App
from snapshots.durable_files import sync_directory

_TAIL_BYTES = 4096


class AnchorsUnreadable(BanditError):
    """The file of the anchors is there and cannot be read."""

    code = "anchors_unreadable"


class AnchorFile:
    """One JSON line for each anchor of one ledger; several processes may append to it."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`, which need not be there yet."""
        self.path = path

    def append(self, anchor: Anchor) -> None:
        """Write an anchor down and return once it is on disk; one that is the last already stays.

        What is there is never rewritten: a line that a crash cut off is ended, not removed. Raises
        `OSError`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = f"{anchor.line}\n".encode()
        with FileIO(self.path, "a+", opener=_private) as file:
            end = _tail(file)
            if end.splitlines(keepends=True)[-1:] != [line]:
                torn = bool(end) and not end.endswith(b"\n")
                _write(file, b"\n" + line if torn else line)
            os.fsync(file.fileno())
        sync_directory(self.path.parent)

    def recent(self) -> list[Anchor]:
        """Return the anchors that were written last, a few dozen at most.

        Raises `AnchorsUnreadable`: what cannot be read may say that the ledger was restored.
        """
        try:
            with FileIO(self.path) as file:
                lines = _tail(file).splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AnchorsUnreadable(f"the anchors of the audit log: {error}") from error
        # The first line may be cut off by where the tail begins, another one by a crash.
        found = (parsed_anchor(line.decode("utf-8", errors="replace")) for line in lines)
        return [anchor for anchor in found if anchor is not None]

    def read(self) -> Iterator[Anchor | None]:
        """Return the anchors that are there at the time of this call, None for a torn line.

        What is appended while they are gone through is left out: a verification that began before
        knows nothing of it.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return iter(())
        return _anchors(file, size=os.fstat(file.fileno()).st_size)


def anchor_file(app: App) -> AnchorFile:
    """Return the anchors of the ledger of `app`; each ledger has a file of its own."""
    name = f"audit_anchors_{auditing.ledger_id(app.engine)}.jsonl"
    return AnchorFile(anchor_dir(app.settings) / name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _tail(file: FileIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    return file.read(_TAIL_BYTES)


def _write(file: FileIO, data: bytes) -> None:
    # In one call, so that the lines of several processes do not mix.
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, "an anchor was written in part", str(file.name))


def _anchors(file: BinaryIO, *, size: int) -> Iterator[Anchor | None]:
    with file:
        while file.tell() < size:
            line = file.readline(size - file.tell())
            if line.strip():
                yield parsed_anchor(line.decode("utf-8", errors="replace"))
