"""Files that were asked for: written whole, or left as they were."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bandit.core.errors import BanditError, InvalidInput


class FileNotWritten(BanditError):
    """A file that was asked for could not be written; what was there before still is."""

    code = "file_not_written"


def checked_file(path: Path, *, field: str) -> Path:
    """Return the path of a file that can be written; raises `InvalidInput` where it cannot lie.

    >>> checked_file(Path("report.html"), field="html").name
    'report.html'
    """
    if not path.parent.is_dir():
        raise InvalidInput(field=field, rule="must lie in a directory that exists", found=path)
    if path.is_dir():
        raise InvalidInput(field=field, rule="must be a file", found=path)
    return path


def write_whole(path: Path, content: bytes, *, part_suffix: str = "part") -> None:
    """Put a file in the place of what is there, at once; raises `FileNotWritten`.

    Whoever shares the file with other writers has a `part_suffix` that none of them has.
    """
    part = path.with_name(f"{path.name}.{part_suffix}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # what keeps it from being written may keep it from being removed
            part.unlink()
        raise FileNotWritten(f"{path} was not written: {error.strerror or error}") from error
