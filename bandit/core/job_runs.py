"""Runs of scheduled jobs: each slot of a job is claimed, run, and done once.

A slot is an instant of the schedule. Whoever claims it gets a fence, higher than all before it:
what a process that was stopped writes when it comes back is refused by its fence.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

RESULT_MAX: Final = 1_000
TRIES_MAX: Final = 4
"""How often schedulers begin a slot; a person may always begin it again."""

RETRY_AFTER: Final = timedelta(minutes=15)
"""How long schedulers let a slot rest that has failed."""


class RunState(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One slot of a job: how often it was begun, by whom last, and what came of it.

    `began_at` is that of the last attempt; `result` is what a run said that ended.
    """

    job: str
    slot: datetime
    fence: int
    state: RunState
    attempts: int
    began_at: datetime
    changed_at: datetime
    actor: str
    result: str | None

    def begun_again(self, *, now: datetime, actor: str) -> JobRun:
        """Return the run once somebody else, or the same again, is at it."""
        return replace(
            self,
            fence=self.fence + 1,
            state=RunState.RUNNING,
            attempts=self.attempts + 1,
            began_at=now,
            changed_at=now,
            actor=actor,
            result=None,
        )

    def ended(self, *, succeeded: bool, result: str, now: datetime, actor: str) -> JobRun:
        """Return the run once it ended."""
        return replace(
            self,
            state=RunState.DONE if succeeded else RunState.FAILED,
            changed_at=now,
            actor=actor,
            result=result[:RESULT_MAX] or "nothing said",
        )


def first_run(job: str, slot: datetime, *, now: datetime, actor: str) -> JobRun:
    """Return the first attempt at a slot.

    >>> from datetime import UTC
    >>> two = datetime(2026, 3, 1, 2, tzinfo=UTC)
    >>> run = first_run("data", two, now=two, actor="cli:ana")
    >>> run.fence, run.attempts, run.begun_again(now=two, actor="cli:ana").fence
    (1, 1, 2)
    """
    return JobRun(
        job=job,
        slot=slot,
        fence=1,
        state=RunState.RUNNING,
        attempts=1,
        began_at=now,
        changed_at=now,
        actor=actor,
        result=None,
    )


def due_at(run: JobRun | None, *, now: datetime) -> datetime | None:
    """Return from when on a scheduler may begin a slot whose run is this; None for no more.

    At once where there is no run, and where one still runs: who gets the lock of its job finds it
    left. One that failed may be begun again once it has rested, `TRIES_MAX` times in all.

    >>> from datetime import UTC
    >>> two = datetime(2026, 3, 1, 2, tzinfo=UTC)
    >>> due_at(None, now=two) == two
    True
    """
    if run is None or run.state is RunState.RUNNING:
        return now
    if run.state is RunState.DONE or run.attempts >= TRIES_MAX:
        return None
    return max(now, run.changed_at + RETRY_AFTER)


def key_of(job: str) -> int:
    """Return the key of a job's lock: a 32-bit number with a sign, the same everywhere.

    >>> key_of("data")
    770962275
    """
    return zlib.crc32(job.encode()) - 2**31
