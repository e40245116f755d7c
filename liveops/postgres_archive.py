"""The log of every change, copied away while the embedded server runs, and copied back."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
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
_SEGMENT: Final = re.compile(r"[0-9A-F]{24}")
_SEGMENTS_A_LOG: Final = 256  # files of 16 MB, as the embedded server writes them
_START: Final = re.compile(r"^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)$", re.MULTILINE)


def archiving(folder: Path, user: tuple[int, int]) -> dict[str, str]:
    """Return the settings of a server that archives into `folder`, which is made where it is not.

    `user` (uid, gid) is who the server runs as.
    """
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
        os.chown(folder, *user)
        sync_directory(folder.parent)
    return {
        "archive_mode": "on",
        "archive_timeout": f"{TIMEOUT_SECONDS}s",
        "archive_command": _COPY.format(_quoted(folder)),
    }


def recovery_settings(folder: Path, *, at: str | None) -> dict[str, str]:
    """Return the settings of a server that goes on from a copy by the log in `folder`.

    Up to the moment `at`, or where that is None to the log's end; it is then a server of its own.

    >>> recovery_settings(Path("/wal"), at=None)["restore_command"]
    'cp /wal/"%f" "%p"'
    """
    settings = {
        "restore_command": f'cp {_quoted(folder)}/"%f" "%p"',
        "hot_standby": "off",
        "recovery_target_action": "promote",
        "recovery_target_timeline": "latest",
    }
    return settings if at is None else {**settings, "recovery_target_time": at}


def first_needed(cluster: Path) -> str:
    """Return the first file of the log that a copy of a server's files needs."""
    found = _START.search((cluster / "backup_label").read_text(encoding="utf-8"))
    if found is None:
        raise InvalidInput(
            field="backup_label", rule="must name where the log begins", found=cluster
        )
    return found[1]


def holes(names: Iterable[str], *, first: str) -> list[str]:
    """Return where an archived log from `first` on lacks a file: the names before each hole.

    A later timeline goes on with the number at which it left the one before.

    >>> a, b = "0000000100000000000000FE", "0000000100000000000000FF"
    >>> holes([a, b, "000000020000000100000000", "00000002.history"], first=a)
    []
    >>> holes([a, b, "000000010000000100000001"], first=a)
    ['0000000100000000000000FF']
    """
    found = {name[8:]: name for name in names if _SEGMENT.fullmatch(name)}
    numbered = {_number(place): name for place, name in found.items() if place >= first[8:]}
    ordered = sorted(numbered)
    return [numbered[a] for a, b in pairwise(ordered) if b != a + 1]


def _number(place: str) -> int:
    log, segment = place[:8], place[8:]
    return int(log, 16) * _SEGMENTS_A_LOG + int(segment, 16)


def _quoted(folder: Path) -> str:
    # The server replaces what follows a percent sign.
    return shlex.quote(str(folder)).replace("%", "%%")
