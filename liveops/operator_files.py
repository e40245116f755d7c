"""The files that an operator installs: rendered, compared with what is there, and written.

Each begins with a line that holds the fingerprint of the rest. A file whose fingerprint is right is
ours to write again; any other was made or edited by somebody, and stays unless that is asked for.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from config.section import leaves
from config.settings import Settings
from liveops.airflow_dags import DAGS, render_dags
from liveops.crontab import CRONTAB, render_crontab
from liveops.installation import Installation
from liveops.schedule import JOBS
from liveops.systemd_units import render_units
from liveops.whole_files import FileNotWritten, write_whole

UNITS: Final = Path("systemd")
LOGROTATE: Final = Path("logrotate") / "liveops"
WATCHING: Final = Path("prometheus")
SECRETS_EXAMPLE: Final = Path("liveops.env.example")

_DIGITS = 16
_HEAD = re.compile(rf"# written by setup_live_ops, fingerprint ([0-9a-f]{{{_DIGITS}}})\n")


class FileState(StrEnum):
    """What was found where a file belongs, and so what is done."""

    NEW = "new"
    UNCHANGED = "unchanged"
    CHANGED = "changed"
    EDITED = "edited"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFile:
    """A file as it has to be, beside what is there; `diff` leads from there to here."""

    path: Path
    content: str
    state: FileState
    diff: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {"path": str(self.path), "state": self.state.value, "diff": self.diff}


def planned(
    installation: Installation, *, out: Path, watching: Mapping[str, str]
) -> list[OperatorFile]:
    """Return every file; `watching` are those of Prometheus and Alertmanager, by name."""
    texts = {CRONTAB: render_crontab(installation)}
    texts |= {UNITS / name: text for name, text in render_units(installation).items()}
    texts |= {
        LOGROTATE: render_logrotate(installation),
        SECRETS_EXAMPLE: render_secrets_example(installation),
    }
    texts |= {WATCHING / name: text for name, text in watching.items()}
    texts[DAGS] = render_dags(installation)
    return [_compared(out / name, sealed(text)) for name, text in texts.items()]


def write(files: Sequence[OperatorFile], *, force: bool) -> None:
    """Write what is new or changed, and with `force` what somebody has edited.

    Each file is written whole or left as it was; raises `FileNotWritten` at the first that cannot.
    """
    for file in files:
        if file.state is FileState.UNCHANGED or (file.state is FileState.EDITED and not force):
            continue
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileNotWritten(
                f"{file.path} was not written: {error.strerror or error}"
            ) from error
        write_whole(file.path, file.content.encode())


def sealed(text: str) -> str:
    """Put the line with the fingerprint before a text.

    >>> sealed("5 * * * * x\\n").splitlines()[0]
    '# written by setup_live_ops, fingerprint 2a1e7f6fe2669c2c'
    >>> is_ours(sealed("5 * * * * x\\n")), is_ours(sealed("5 * * * * x\\n") + "# mine\\n")
    (True, False)
    """
    return f"# written by setup_live_ops, fingerprint {_fingerprint(text)}\n{text}"


def is_ours(content: str) -> bool:
    """Whether a file is to the letter what was written here, be it by another release."""
    head = _HEAD.match(content)
    return head is not None and head[1] == _fingerprint(content[head.end() :])


def render_logrotate(installation: Installation) -> str:
    """Return logrotate's rules for the logs that grow."""
    logs = [installation.logs / f"{job.name}.log" for job in JOBS]
    parts = [_rotated(installation, logs, ["create"])]
    if installation.is_embedded:
        # The server keeps its log open, and appends.
        server = installation.home / "postgres" / "server.log"
        parts.append(_rotated(installation, [server], ["copytruncate"]))
    return "\n".join(parts)


def _rotated(installation: Installation, logs: Sequence[Path], how: Sequence[str]) -> str:
    rules = [
        *(f"su {installation.user} {installation.group}", "weekly", "maxsize 50M", "rotate 8"),
        *("missingok", "notifempty", "compress", "delaycompress", *how),
    ]
    names = " ".join(f'"{log}"' for log in logs)
    return "\n".join([f"{names} {{", *(f"    {rule}" for rule in rules), "}", ""])


def render_secrets_example(installation: Installation) -> str:
    """Return an example of the file of secret variables; it holds none."""
    lines = [
        f"# Make {installation.secrets} of it: mode 600, owner {installation.user}.",
        "# Take the # away where you fill something in; docs/security.md has safer places.",
    ]
    for leaf in leaves(Settings):
        if leaf.secret and leaf.environment is not None:
            lines += ["", f"# {leaf.field.description}", f"# {leaf.environment}="]
    return "\n".join([*lines, ""])


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _text(path: Path) -> str | None:
    """Return what a file says; None where there is none."""
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileNotWritten(f"{path} cannot be read: {error.strerror or error}") from error


def _compared(path: Path, content: str) -> OperatorFile:
    found = _text(path)
    if found is None:
        return OperatorFile(path=path, content=content, state=FileState.NEW)
    if found == content:
        return OperatorFile(path=path, content=content, state=FileState.UNCHANGED)
    lines = difflib.unified_diff(
        found.splitlines(keepends=True),
        content.splitlines(keepends=True),
        fromfile=str(path),
        tofile="as setup_live_ops writes it",
    )
    state = FileState.CHANGED if is_ours(found) else FileState.EDITED
    return OperatorFile(path=path, content=content, state=state, diff="".join(lines))
