"""The tasks of the week's maintenance: what each does, by which command, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from liveops.schedule import Job, job_named, newest_slot

if TYPE_CHECKING:
    from config.upkeep import Maintenance

WEEK: Final = job_named("maintenance").when
"""A week's maintenance belongs to its Sunday, whenever it is done."""

DEMO_SECONDS_MAX: Final = 900
"""How long all tasks may take together in the demo."""


class WeeklyTask(StrEnum):
    """What `weekly_maintenance --task` takes: one task, or all of them in this order."""

    FULL = "full"
    SNAPSHOT = "snapshot"
    RETRAIN = "retrain"
    OPTUNA = "optuna"
    PURGE = "purge"
    DATABASE = "database"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task: a command that a person could type, safe to run again.

    In the demo it is ended after `demo_seconds`, and `demo_options` keep it short.
    """

    name: WeeklyTask
    meaning: str
    command: tuple[str, ...]
    demo_seconds: int = 30
    demo_options: tuple[str, ...] = ()


TASKS: Final = (
    Task(
        name=WeeklyTask.SNAPSHOT,
        meaning="keeps encoders, TabNet weights, policies and configuration",
        command=("liveops", "snapshot", "take"),
    ),
    Task(
        name=WeeklyTask.RETRAIN,
        meaning="retrains models that are old or lose",
        command=("scheduled_retrain", "--weekly"),
        demo_seconds=260,
    ),
    Task(
        name=WeeklyTask.OPTUNA,
        meaning="searches for better parameters",
        command=("liveops", "tune", "--weekly"),
        demo_seconds=520,
        # A third of what a sweep trains with its own: three folds instead of four, half as long.
        demo_options=("--train-bars", "4000", "--test-bars", "4000", "--workers", "2"),
    ),
    Task(
        name=WeeklyTask.PURGE,
        meaning="puts away policies that are old or lose",
        command=("liveops", "policy", "purge"),
    ),
    Task(
        name=WeeklyTask.DATABASE,
        meaning="ages decisions, compares statistics, vacuums tables",
        command=("liveops", "db", "maintain"),
    ),
    Task(
        name=WeeklyTask.VERIFY,
        meaning="checks whether what is kept is to be relied on",
        command=("liveops", "verify"),
    ),
)
"""In the order they are done: what is about to change is kept first, and all is checked last."""


def jobs_of(
    task: WeeklyTask, limits: Mapping[str, int], *, demo: bool, tasks: Iterable[Task] = TASKS
) -> list[Job]:
    """Return the jobs that a task stands for, each with its limit in seconds.

    Those of the demo fit in `DEMO_SECONDS_MAX` together.

    >>> limits = {name.value: 2100 for name in WeeklyTask}
    >>> [job.name for job in jobs_of(WeeklyTask.PURGE, limits, demo=False)]
    ['maintenance.purge']
    >>> [job.limit_seconds for job in jobs_of(WeeklyTask.PURGE, limits, demo=True)]
    [30]
    """
    return [
        Job(
            name=f"maintenance.{each.name}",
            meaning=each.meaning,
            when=WEEK,
            command=(*each.command, *(each.demo_options if demo else ())),
            limit_seconds=min(limits[each.name], each.demo_seconds) if demo else limits[each.name],
            is_dated=True,
        )
        for each in tasks
        if task in (WeeklyTask.FULL, each.name)
    ]


def limits_of(settings: Maintenance) -> dict[str, int]:
    """Return each task's limit in seconds.

    >>> from config.upkeep import Maintenance
    >>> sum(limits_of(Maintenance()).values()) < 6 * 3600
    True
    """
    return {task.name.value: getattr(settings, f"{task.name}_seconds_max") for task in TASKS}


def week_of(moment: datetime) -> datetime:
    """Return the slot of the week that a moment belongs to.

    >>> from datetime import UTC
    >>> week_of(datetime(2026, 3, 4, 12, tzinfo=UTC)).isoformat()
    '2026-03-01T03:00:00+00:00'
    """
    return newest_slot(WEEK, moment)
