"""The status file: how the service is, for whoever reads files, and for when it is down itself."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bandit.core.health import PAUSED
from bandit.core.health_table import HealthLevel
from liveops.background import repeated
from liveops.health import Checkup, look, status_json
from liveops.ledger_server import status_file
from liveops.status_reading import StatusUnknown, read_status
from liveops.whole_files import write_whole
from liveops.wiring import App, with_own_engine

TICK_SECONDS = 5.0
"""How soon a change of the level is noticed."""

STATEMENT_SECONDS = 2
ALERTS_MAX = 20
_SEVERITY: Final = {
    HealthLevel.HEALTHY: logging.INFO,
    HealthLevel.DEGRADED: logging.WARNING,
    HealthLevel.UNHEALTHY: logging.ERROR,
}
log = logging.getLogger(__name__)


@contextmanager
def keeping_status_file(app: App) -> Iterator[None]:
    """Keep the file in step while the context lasts, in a thread and on a connection of its own.

    What it says at the end stays: `written_at` tells its readers how old it is.
    """
    path = status_file(app.settings, demo=app.demo)
    tick = min(TICK_SECONDS, app.settings.operations.health_check_interval_seconds)
    trouble = "the status file is not written"
    with with_own_engine(app, pool_size=1, statement_seconds=STATEMENT_SECONDS) as own:
        keeper = StatusKeeper(own, path)
        with repeated("status-file", lambda _: keeper.look(), seconds=tick, trouble=trouble):
            yield


class StatusKeeper:
    """Knows what it said last, so that each change is said once."""

    def __init__(self, app: App, path: Path) -> None:
        """Write how `app` is to `path`; nothing is read or written before the first look."""
        self._app = app
        self._path = path
        self._interval = timedelta(seconds=app.settings.operations.health_check_interval_seconds)
        self._level: HealthLevel | None = None
        self._halts: frozenset[str] = frozenset()
        self._alerts: deque[dict[str, str]] | None = None
        self._written_at: datetime | None = None

    def look(self) -> None:
        """Measure; log what changed; write when the level did, and when the interval is over.

        Raises `FileNotWritten` and `OSError`; the next look tries again.
        """
        found = look(self._app)
        now = found.vitals.now
        if self._alerts is None:
            self._alerts = deque(_alerts_before(self._path), maxlen=ALERTS_MAX)
        if self._tell(found, self._alerts):
            self._written_at = None
        # Also where the clock was set back: nobody may wait for it to catch up.
        if self._written_at is None or not timedelta(0) <= now - self._written_at < self._interval:
            self._write(found, self._alerts)
            self._written_at = now

    def _tell(self, found: Checkup, alerts: deque[dict[str, str]]) -> bool:
        """Log what is new, and say whether anything is."""
        level, before = found.level, self._level
        is_news = level is not before
        if is_news and (before is not None or level is not HealthLevel.HEALTHY):
            why = "; ".join(issue.text for issue in found.health.issues) or "nothing is wrong"
            event = f"[ALERT] health {level.value}"
            log.log(_SEVERITY[level], event, extra={"before": before, "why": why})
            alerts.append({"at": found.vitals.now.isoformat(), "text": f"{event}: {why}"})
        self._level = level
        if found.halted is None:  # the ledger is away: what it said last may still be so
            return is_news
        halts = frozenset(_halts(found))
        if halts and halts != self._halts:
            log.warning("Trading halted", extra={"why": "; ".join(sorted(halts))})
        elif self._halts and not halts:
            log.info("Trading resumed")
        is_news, self._halts = is_news or halts != self._halts, halts
        return is_news

    def _write(self, found: Checkup, alerts: deque[dict[str, str]]) -> None:
        document = status_json(found) | {
            "written_at": found.vitals.now.isoformat(),
            "interval_seconds": int(self._interval.total_seconds()),
            "recent_alerts": list(alerts),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=2, allow_nan=False)
        # Several services of one host write the same file.
        write_whole(self._path, f"{text}\n".encode(), part_suffix=f"{os.getpid()}.part")


def _halts(found: Checkup) -> Iterator[str]:
    for account in found.vitals.accounts:
        if account.kill is not None:
            yield f"account {account.name}: {account.kill.reason}"
        if account.is_blocked:
            # Not by how much: that is another with each heartbeat, and would be said each time.
            yield f"account {account.name}: bots and ledger differ"
    if found.vitals.latch is not None:
        yield f"latch: {found.vitals.latch}"
    if found.vitals.guard == PAUSED:
        yield "the performance guard paused"


def _alerts_before(path: Path) -> list[dict[str, str]]:
    """What the file of an earlier run tells; whatever else lies there tells nothing."""
    try:
        found: Any = read_status(path).document.get("recent_alerts")
    except StatusUnknown:
        return []
    told = found if isinstance(found, list) else []
    return [
        {"at": str(alert["at"]), "text": str(alert["text"])}
        for alert in told
        if isinstance(alert, dict) and {"at", "text"} <= alert.keys()
    ]
