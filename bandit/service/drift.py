"""Record what drift checks found, and read the newest of it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from bandit.core.drift import DriftRun
from bandit.core.errors import Conflict
from bandit.core.model import EARLIEST, checked_instant, checked_text, require_past
from bandit.storage import audit, drift
from bandit.storage.engine import snapshot, transaction

ARTIFACTS_MAX: Final = 20
"""Of how many artefacts the newest run is read."""


def record(engine: Engine, run: DriftRun, *, now: datetime, actor: str) -> tuple[DriftRun, bool]:
    """Store the checks of one window; the same again returns what is stored, and False.

    Checks of a window may come in parts: what is new is added, with one row of the audit log.
    Raises `Conflict` where a check of the same window found something else before, and
    `InvalidInput` for a window or a check of the future.
    """
    now = checked_instant(now, field="now")
    require_past(run.window_to, field="window_to", now=now)
    require_past(run.checked_at, field="checked_at", now=now)
    actor = checked_text(actor, field="actor", length_max=200)
    with transaction(engine) as connection:
        added = drift.append(connection, run)
        stored = drift.of_window(connection, run.sha, run.window_from, run.window_to)
        assert stored is not None
        _require_same(run, stored)
        if added:
            audit.append(
                connection,
                now=now,
                actor=actor,
                action="drift",
                subject=run.sha,
                details={
                    "run": run.run_id,
                    "window_from": run.window_from.isoformat(),
                    "window_to": run.window_to.isoformat(),
                    "checks": added,
                    "drifted": sum(check.drifted for check in run.checks),
                },
            )
    return stored, added > 0


def latest(engine: Engine, *, since: datetime = EARLIEST) -> list[DriftRun]:
    """Return the newest run of each artefact checked at `since` or later, the newest check first.

    Of more artefacts than `ARTIFACTS_MAX`, those that were checked last.
    """
    with snapshot(engine) as connection:
        return drift.newest(connection, since=since, artifacts_max=ARTIFACTS_MAX)


def _require_same(run: DriftRun, stored: DriftRun) -> None:
    known = {(check.metric, check.subject): check for check in stored.checks}
    for check in run.checks:
        if known[check.metric, check.subject] != check:
            raise Conflict(
                f"{check.metric} of {check.subject} of {run.sha[:12]} was recorded at "
                f"{stored.checked_at.isoformat()} with other numbers; a check never changes"
            )
