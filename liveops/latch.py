"""The kill switch of last resort: a file of this host, which works while the ledger does not.

Present, or not readable, means killed. Any way of making the file will do, `touch` among them.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from pathlib import Path

from bandit.core.errors import Killed
from config.settings import Settings
from liveops.ledger_server import state_home

FILE_NAME = "KILLED"
log = logging.getLogger(__name__)


class Latch:
    """One file; every process of the host looks at it before each answer and claim."""

    def __init__(self, path: Path) -> None:
        """Look at `path`."""
        self.path = path
        self._name = os.fspath(path)

    def is_set(self) -> bool:
        """Say whether the file is there; what cannot be looked at counts as there."""
        try:
            os.stat(self._name)  # noqa: PTH116 - before every answer: Path.stat takes thrice the time
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def require_open(self) -> None:
        """Raise `Killed` while the latch is set."""
        if self.is_set():
            raise Killed(f"the latch {self.path} is set: `liveops release` on this host removes it")

    def set(self, *, reason: str, actor: str, now: datetime) -> bool:
        """Make the file, durably; False when it was there before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"reason": reason, "actor": actor, "at": now.isoformat()})
        try:
            file = os.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        # The file counts from here on: a full disk may refuse the words, not the latch.
        try:
            os.write(file, text.encode())
            os.fsync(file)
        except OSError as error:
            log.warning("the latch is set, but its reason could not be written: %s", error)
        finally:
            os.close(file)
        return True

    def reason(self) -> str:
        """Return why the latch was set, as far as the file tells."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return f"latch set by {found['actor']}: {found['reason']}"[:1000]
        except (OSError, ValueError, TypeError, KeyError):
            return f"the latch {self.path} is set"[:1000]

    def clear(self) -> bool:
        """Remove the file; False when there was none."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True


def latch_of(settings: Settings, *, demo: bool) -> Latch:
    """Return this host's latch: the configured file, else `KILLED` in the state directory.

    The demo has one of its own, beside it: an exercise there must not stop real trading.
    """
    chosen = settings.kill_switch.latch_file
    path = state_home(settings) / FILE_NAME if chosen is None else chosen.expanduser()
    return Latch(path.with_name(f"{path.name}.demo") if demo else path)
