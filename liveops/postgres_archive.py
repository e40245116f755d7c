"""The log of every change, copied away while the embedded server runs, and copied back."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from bandit.core.errors import InvalidInput
from snapshots.durable_files import sync_directory

TIMEOUT_SECONDS: Final = 60
"""After how long a change is archived, however little was written since."""

# A copy appears whole and on disk, or not at all, and takes the place of none: the server asks
# again for what failed, and is told that it succeeded only for the same bytes.
_COPY: Final = (
    'if test -e {0}/"%f"; then cmp -s "%p" {0}/"%f"; else '
    'cp "%p" {0}/"%f.part" && sync {0}/"%f.part" && ln {0}/"%f.part" {0}/"%f" && '
    'rm {0}/"%f.part" && sync {0}; fi'
)
_IDENTIFIER_BYTES: Final = 8  # with which pg_control begins
_SEGMENT: Final = re.compile(r"[0-9A-F]{24}")
_SEGMENTS_A_LOG: Final = 256  # files of 16 MB, as the embedded server writes them
_START: Final = re.compile(r"^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)$", re.MULTILINE)


def log_of(folder: Path, cluster: Path) -> Path:
    """Return where below `folder` the log of a server with these files, or of a copy, is archived.

    By the identifier that no other server has: one that takes the place of a lost one begins its
    log with the same names.
    """
    with (cluster / "global" / "pg_control").open("rb") as control:
        identifier = control.read(_IDENTIFIER_BYTES)
    return folder / str(int.from_bytes(identifier, sys.byteorder))


def archiving(folder: Path, user: tuple[int, int]) -> dict[str, str]:
    """Return the settings of a server that archives into `folder`, which is made where it is not.

    `user` (uid, gid) is who the server runs as.
    """
    for each in (folder.parent, folder):
        if not each.exists():
            each.mkdir(parents=True, mode=0o700)
            os.chown(each, *user)
            sync_directory(each.parent)
    return {
        "archive_mode": "on",
        "archive_timeout": f"{TIMEOUT_SECONDS}s",
        "archive_command": _COPY.format(_quoted(folder)),
    }


def recovery_settings(folder: Path, *, at: str | None) -> dict[str, str]:
    """Return the settings of a server that goes on from a copy by the log in `folder`.

    Up to the moment `at`, or where that is None to the log's end; it is then a server of its own,
    whose files of the log have names that no earlier restore has used.

    >>> recovery_settings(Path("/wal"), at=None)["restore_command"]
    'cp /wal/"%f" "%p"'
    """
    settings = {
        "restore_command": f'cp {_quoted(folder)}/"%f" "%p"',
        "hot_standby": "off",
        "recovery_target_action": "promote",
        "recovery_target_timeline": "current",
    }
    return settings if at is None else {**settings, "recovery_target_time": at}


def first_needed(cluster: Path) -> str:
    """Return the first file of the log that a copy of a server's files needs."""
    found = _START.search((cluster / "backup_label").read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise InvalidInput(
            field="backup_label", rule="must name where the log begins", found=cluster
        )
    return found[1]


def archived_since(folder: Path, at: datetime) -> list[str]:
    """Return the files of a log that were archived at a moment or later.

    What was written to the log from then on is in them.
    """
    return [
        path.name
        for path in folder.iterdir()
        if _SEGMENT.fullmatch(path.name) and path.stat().st_mtime >= at.timestamp()
    ]


def holes(names: Iterable[str], *, first: str) -> list[str]:
    """Return where an archived log from `first` on lacks a file: the names before each hole.

    What a server wrote that came back by an earlier restore is another log, of another timeline.

    >>> a, b = "0000000100000000000000FE", "0000000100000000000000FF"
    >>> holes([a, b, "000000010000000100000000", "00000002.history"], first=a)
    []
    >>> holes([a, b, "000000020000000100000000", "000000010000000100000001"], first=a)
    ['0000000100000000000000FF']
    """
    ordered = sorted(
        name
        for name in names
        if _SEGMENT.fullmatch(name) and name.startswith(first[:8]) and name >= first
    )
    return [a for a, b in pairwise(ordered) if _number(b) != _number(a) + 1]


def _number(name: str) -> int:
    log, segment = name[8:16], name[16:]
    return int(log, 16) * _SEGMENTS_A_LOG + int(segment, 16)


def _quoted(folder: Path) -> str:
    # The server replaces what follows a percent sign.
    return shlex.quote(str(folder)).replace("%", "%%")
