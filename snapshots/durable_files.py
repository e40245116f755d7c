"""Files that are complete and on disk, or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Yield where to write a file that appears at `path`, complete, when the context ends well.

    After an error, or a crash, nothing is at `path`; a crash leaves a `.part` beside it. Raises
    `FileExistsError` when something is there already.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, "is there already", str(path))
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(path)
        sync_directory(path.parent)
    finally:
        part.unlink(missing_ok=True)
