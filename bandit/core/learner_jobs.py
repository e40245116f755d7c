"""Work that a learner is asked for, and what becomes of it: waiting, running, done or failed.

What was asked once for a cause is asked once: a monitor that looks every five minutes asks the same
again each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from bandit.core.model import NIGHT_HOUR, PolicyName
from bandit.core.upkeep import UpkeepAction

ATTEMPTS_MAX: Final = 3
RETRY_AFTER: Final = timedelta(seconds=10)
"""How long a learner that failed rests before it is begun again."""

REST: Final = timedelta(days=7)
"""How long a policy is left alone after a job of the same kind ended, whatever was found since."""

RESULT_MAX: Final = 1_000


class JobState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


OPEN: Final = frozenset({JobState.WAITING, JobState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerJob:
    """One job: what is to be done to which policy, since when and why, and how far it is.

    `cause` names what it was asked for: the drift run of an encoder's refresh. `attempts` were
    begun; `result` is what came of the last one, of a job that is done the name of the new policy.
    """

    id: int
    policy: PolicyName
    action: UpkeepAction
    cause: str
    reason: str
    actor: str
    requested_at: datetime
    due_at: datetime
    state: JobState
    attempts: int
    changed_at: datetime
    result: str | None

    def begun(self, *, now: datetime) -> LearnerJob:
        """Return the job once another attempt is begun."""
        return replace(self, state=JobState.RUNNING, attempts=self.attempts + 1, changed_at=now)

    def ended(self, *, succeeded: bool, result: str, now: datetime) -> LearnerJob:
        """Return the job once its attempt ended: done, failed, or waiting for another one."""
        told = replace(self, result=result[:RESULT_MAX], changed_at=now)
        if succeeded:
            return replace(told, state=JobState.DONE)
        if self.attempts >= ATTEMPTS_MAX:
            return replace(told, state=JobState.FAILED)
        return replace(told, state=JobState.WAITING, due_at=now + RETRY_AFTER)

    def given_back(self, *, now: datetime) -> LearnerJob:
        """Return the job once whoever was at it left: its attempt does not count."""
        state, attempts = JobState.WAITING, self.attempts - 1
        return replace(self, state=state, attempts=attempts, changed_at=now)


def tonight(now: datetime) -> datetime:
    """Return when the coming night's work begins.

    >>> tonight(datetime(2026, 3, 1, 14, 30, tzinfo=UTC))
    datetime.datetime(2026, 3, 2, 2, 0, tzinfo=datetime.timezone.utc)
    >>> tonight(datetime(2026, 3, 1, 2, tzinfo=UTC)).day  # that night has begun
    2
    """
    moment = now.astimezone(UTC)
    night = moment.replace(hour=NIGHT_HOUR, minute=0, second=0, microsecond=0)
    return night if night > moment else night + timedelta(days=1)


def is_wanted(before: Sequence[LearnerJob], *, cause: str, now: datetime) -> bool:
    """Say whether a job may be asked for, beside those of its policy and kind from before.

    Not twice for one cause, not beside one that is open, and not within `REST` of one that ended.
    """
    return not any(
        job.cause == cause or job.state in OPEN or now - job.changed_at < REST for job in before
    )
