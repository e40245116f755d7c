"""What is done when: the one table that crontab, systemd's timers, scheduler and Airflow read.

Every instant is UTC. A slot is an instant at which a job is due; the ledger keeps which slots are
done, so that any number of schedulers do each once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Final, Protocol

from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.job_runs import JobRun, RunState
from bandit.core.model import NIGHT_HOUR

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_MONDAY: Final = datetime(2001, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}(\.[a-z][a-z0-9_]{0,30})?")
_WHOLE_HOUR: Final = "must be a whole hour of UTC: the crontab looks at the hour"

GRACE: Final = timedelta(minutes=1)
"""How long a job waits for one before it that is late and was not begun: both begin at boot."""


class Weekday(StrEnum):
    """A day of the week by name: in numbers, schedulers differ about which is the first."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


class When(Protocol):
    """Slots at a fixed distance from each other, which in UTC they keep for ever."""

    @property
    def period(self) -> timedelta:
        """From one slot to the next."""
        ...

    @property
    def anchor(self) -> datetime:
        """One of the slots."""
        ...

    @property
    def fields(self) -> Mapping[str, str]:
        """What a CronTrigger in UTC is given for the same slots."""
        ...

    @property
    def said(self) -> str:
        """The same for a person."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hourly:
    """Each hour at this minute."""

    minute: int

    def __post_init__(self) -> None:
        """Refuse what is no minute."""
        if not 0 <= self.minute < 60:
            raise InvalidInput(field="minute", rule="must be 0 to 59", found=self.minute)

    @property
    def period(self) -> timedelta:
        """An hour."""
        return _HOUR

    @property
    def anchor(self) -> datetime:
        """One of the slots."""
        return _MONDAY.replace(minute=self.minute)

    @property
    def fields(self) -> Mapping[str, str]:
        """What a CronTrigger is given."""
        return {"minute": str(self.minute), "hour": "*", "day_of_week": "*"}

    @property
    def said(self) -> str:
        """For a person."""
        return f"hourly at minute {self.minute}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """Each day at this hour."""

    at: time

    def __post_init__(self) -> None:
        """Refuse what a line that looks at the hour cannot say."""
        if self.at != time(self.at.hour):
            raise InvalidInput(field="at", rule=_WHOLE_HOUR, found=self.at)

    @property
    def period(self) -> timedelta:
        """A day."""
        return _DAY

    @property
    def anchor(self) -> datetime:
        """One of the slots."""
        return _MONDAY.replace(hour=self.at.hour)

    @property
    def fields(self) -> Mapping[str, str]:
        """What a CronTrigger is given."""
        return {"minute": "0", "hour": str(self.at.hour), "day_of_week": "*"}

    @property
    def said(self) -> str:
        """For a person."""
        return f"daily {self.at:%H:%M} UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """Each week on this day at this hour."""

    on: Weekday
    at: time

    def __post_init__(self) -> None:
        """Refuse what a line that looks at the hour cannot say."""
        if self.at != time(self.at.hour):
            raise InvalidInput(field="at", rule=_WHOLE_HOUR, found=self.at)

    @property
    def period(self) -> timedelta:
        """A week."""
        return 7 * _DAY

    @property
    def anchor(self) -> datetime:
        """One of the slots."""
        return _MONDAY.replace(hour=self.at.hour) + [*Weekday].index(self.on) * _DAY

    @property
    def fields(self) -> Mapping[str, str]:
        """What a CronTrigger is given."""
        return {"minute": "0", "hour": str(self.at.hour), "day_of_week": self.on.value}

    @property
    def said(self) -> str:
        """For a person."""
        return f"{self.on.name.capitalize()} {self.at:%H:%M} UTC"


def newest_slot(when: When, now: datetime) -> datetime:
    """Return the newest slot that is not after `now`.

    >>> newest_slot(Daily(at=time(2)), datetime(2026, 3, 1, 1, 59, tzinfo=UTC)).isoformat()
    '2026-02-28T02:00:00+00:00'
    >>> newest_slot(Weekly(on=Weekday.SUNDAY, at=time(3)), datetime(2026, 3, 2, tzinfo=UTC)).day
    1
    """
    return now - (now - when.anchor) % when.period


def next_slot(when: When, now: datetime) -> datetime:
    """Return the first slot after `now`.

    >>> next_slot(Hourly(minute=20), datetime(2026, 3, 1, 1, 20, tzinfo=UTC)).isoformat()
    '2026-03-01T02:20:00+00:00'
    """
    return newest_slot(when, now) + when.period


def cron_of(when: When) -> str:
    """Return the five fields of cron for a clock that shows UTC, weekdays by name.

    >>> cron_of(Weekly(on=Weekday.SUNDAY, at=time(3)))
    '0 3 * * sun'
    """
    fields = when.fields
    return f"{fields['minute']} {fields['hour']} * * {fields['day_of_week']}"


class Group(StrEnum):
    """Which of Airflow's DAGs a job belongs to."""

    DATA = "data"
    TRAINING = "training"
    DEPLOYMENT = "deployment"
    FEATURE_HEALTH = "feature_health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command that is run at each slot, safe to run again, and what it waits for.

    `command` is a program of ours and its arguments, without those of the installation; one that
    `is_dated` is told the slot's day by `--date`. It is ended after `limit_seconds`. Jobs that it
    comes `after` must have ended their slot before it begins, or have had their time.
    """

    name: str
    meaning: str
    when: When
    command: tuple[str, ...]
    limit_seconds: int
    is_dated: bool = False
    after: tuple[str, ...] = ()
    group: Group | None = None

    def __post_init__(self) -> None:
        """Refuse names that files and units cannot have, and work that overtakes itself."""
        if _NAME.fullmatch(self.name) is None:
            rule = "must be lower-case letters, digits and _, at most one . between"
            raise InvalidInput(field="name", rule=rule, found=repr(self.name))
        if not timedelta(0) < self.limit <= self.when.period:
            rule = "must be above 0 and end before the next slot"
            raise InvalidInput(field="limit_seconds", rule=rule, found=self.limit_seconds)

    @property
    def limit(self) -> timedelta:
        """How long a run may take."""
        return timedelta(seconds=self.limit_seconds)


JOBS: Final = (
    Job(
        name="database_backup",
        meaning="backs up the ledger",
        when=Daily(at=time(1)),
        command=("liveops", "backup", "take", "--kind", "database"),
        limit_seconds=3600,
        is_dated=True,
    ),
    Job(
        name="data",
        meaning="fetches, checks and stores candles and features",
        when=Daily(at=time(NIGHT_HOUR)),
        command=("liveops", "data", "run"),
        limit_seconds=2 * 3600,
        is_dated=True,
        group=Group.DATA,
    ),
    Job(
        name="scale",
        meaning="decides tonight's traffic of every experiment",
        when=Daily(at=time(NIGHT_HOUR)),
        command=("live_ops_monitor", "--mode", "scale", "--all"),
        limit_seconds=1800,
        is_dated=True,
    ),
    Job(
        name="rotation",
        meaning="retrains models that are old",
        when=Daily(at=time(NIGHT_HOUR)),
        command=("scheduled_retrain",),
        limit_seconds=6 * 3600,
        is_dated=True,
        after=("data",),
        group=Group.TRAINING,
    ),
    Job(
        name="maintenance",
        meaning="does the week's maintenance",
        when=Weekly(on=Weekday.SUNDAY, at=time(3)),
        command=("weekly_maintenance", "--task", "full"),
        limit_seconds=6 * 3600,
        is_dated=True,
        after=("data",),
        group=Group.TRAINING,
    ),
    Job(
        name="drift",
        meaning="holds new candles against what policies were made from",
        when=Hourly(minute=10),
        command=("liveops", "drift", "--all"),
        limit_seconds=1800,
        group=Group.FEATURE_HEALTH,
    ),
    Job(
        name="state_backup",
        meaning="backs up the state",
        when=Hourly(minute=20),
        command=("liveops", "backup", "take", "--kind", "state"),
        limit_seconds=1800,
    ),
    Job(
        name="snapshot",
        meaning="takes the day's snapshot of models, policies and settings",
        when=Daily(at=time(4)),
        command=("liveops", "snapshot", "take"),
        limit_seconds=1800,
        is_dated=True,
    ),
    Job(
        name="snapshot_upload",
        meaning="uploads snapshots that lie here only",
        when=Hourly(minute=30),
        command=("liveops", "snapshot", "upload"),
        limit_seconds=1800,
    ),
    Job(
        name="drill",
        meaning="restores the newest backup beside the ledger and compares",
        when=Weekly(on=Weekday.SUNDAY, at=time(10)),
        command=("liveops", "drill", "restore"),
        limit_seconds=2 * 3600,
    ),
    Job(
        name="snapshot_prune",
        meaning="removes snapshots that the retention lets go",
        when=Weekly(on=Weekday.SUNDAY, at=time(11)),
        command=("liveops", "snapshot", "prune"),
        limit_seconds=1800,
    ),
    Job(
        name="base_backup",
        meaning="copies the embedded server's files where its log is archived",
        when=Weekly(on=Weekday.SUNDAY, at=time(12)),
        command=("liveops", "backup", "take", "--kind", "base", "--if-archived"),
        limit_seconds=2 * 3600,
        is_dated=True,
    ),
    Job(
        name="weekly_report",
        meaning="sends the week's report",
        when=Weekly(on=Weekday.MONDAY, at=time(6)),
        command=("liveops", "report", "weekly"),
        limit_seconds=1800,
        is_dated=True,
    ),
)
"""The jobs; what comes after another stands behind it."""


def job_named(name: str, jobs: Sequence[Job] = JOBS) -> Job:
    """Return a job; raises `UnknownName` with the names there are.

    >>> job_named("data").limit
    datetime.timedelta(seconds=7200)
    """
    for job in jobs:
        if job.name == name:
            return job
    raise UnknownName(kind="job", name=name, known=[job.name for job in jobs])


def wait_max(job: Job, jobs: Sequence[Job] = JOBS) -> timedelta:
    """Return how long after its slot a job may still wait for those before it.

    >>> wait_max(job_named("maintenance"))  # the data of 02:00 may take until 04:00
    datetime.timedelta(seconds=3600)
    """
    slot = next_slot(job.when, job.when.anchor)
    before = [job_named(name, jobs) for name in job.after]
    ends = [newest_slot(each.when, slot) + each.limit for each in before]
    return max([end - slot for end in ends], default=timedelta(0))


def waits_for(
    job: Job,
    slot: datetime,
    *,
    now: datetime,
    since: datetime,
    run_of: Callable[[str, datetime], JobRun | None],
    jobs: Sequence[Job] = JOBS,
) -> list[str]:
    """Return what a slot of a job waits for at `now`, having waited `since`.

    Waited for is who runs within its limit, and who was not begun while its limit lasts, or
    `GRACE` if that is over. `run_of` reads the run of a job's slot.
    """
    found = []
    for name in job.after:
        other = job_named(name, jobs)
        due = newest_slot(other.when, slot)
        run = run_of(name, due)
        if run is None:
            waits = now < max(due + other.limit, since + GRACE)
        else:
            waits = run.state is RunState.RUNNING and now < run.began_at + other.limit
        if waits:
            found.append(name)
    return found


def overdue(job: Job, done: datetime, *, now: datetime, jobs: Sequence[Job] = JOBS) -> timedelta:
    """Return for how long the slot after the newest one that is `done` should have been over.

    >>> at = datetime(2026, 3, 1, 2, tzinfo=UTC)
    >>> overdue(job_named("data"), at, now=at + timedelta(hours=25))
    datetime.timedelta(0)
    >>> overdue(job_named("data"), at, now=at + timedelta(hours=27))
    datetime.timedelta(seconds=3600)
    """
    end = next_slot(job.when, done) + wait_max(job, jobs) + job.limit
    return max(timedelta(0), now - end)
