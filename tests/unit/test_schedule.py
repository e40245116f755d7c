"""The schedule: one table, and everything that is written from it says the same instants."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import typer
from apscheduler.triggers.cron import CronTrigger
from installations import installation, parsed
from test_crontab_schedule import line_of

from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.job_runs import JobRun, first_run, key_of
from liveops import cli
from liveops.crontab import render_crontab
from liveops.maintenance.tasks import TASKS, Task
from liveops.schedule import (
    GRACE,
    JOBS,
    Daily,
    Hourly,
    Job,
    Weekday,
    Weekly,
    cron_of,
    job_named,
    newest_slot,
    next_slot,
    overdue,
    wait_max,
    waits_for,
)
from liveops.scheduler import trigger_of
from liveops.systemd_units import calendar_of, render_units, timers

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2028, 1, 1, tzinfo=UTC)
"""Two years, with four changes of the clocks in Berlin and in New York, and a leap day ahead."""

WANTED: dict[str, tuple[set[int], set[int], int]] = {
    # name: ISO weekdays, hours and minute, written by hand
    "database_backup": ({1, 2, 3, 4, 5, 6, 7}, {1}, 0),
    "data": ({1, 2, 3, 4, 5, 6, 7}, {2}, 0),
    "scale": ({1, 2, 3, 4, 5, 6, 7}, {2}, 0),
    "rotation": ({1, 2, 3, 4, 5, 6, 7}, {2}, 0),
    "maintenance": ({7}, {3}, 0),
    "drift": ({1, 2, 3, 4, 5, 6, 7}, set(range(24)), 10),
    "state_backup": ({1, 2, 3, 4, 5, 6, 7}, set(range(24)), 20),
    "snapshot": ({1, 2, 3, 4, 5, 6, 7}, {4}, 0),
    "snapshot_upload": ({1, 2, 3, 4, 5, 6, 7}, set(range(24)), 30),
    "drill": ({7}, {10}, 0),
    "snapshot_prune": ({7}, {11}, 0),
    "base_backup": ({7}, {12}, 0),
    "weekly_report": ({1}, {6}, 0),
}
TAKES_A_BACKUP = {"database_backup", "state_backup", "base_backup", "drill"}
"""Those that want the one lock of backups: a drill takes a backup where there is none."""

SUNDAY = datetime(2026, 3, 1, tzinfo=UTC)


def instants(name: str) -> list[datetime]:
    """The slots of a job from `START` to before `END`, by the table above."""
    weekdays, hours, minute = WANTED[name]
    count = int((END - START) / timedelta(hours=1))
    found = (START + timedelta(hours=hour, minutes=minute) for hour in range(count))
    return [now for now in found if now.isoweekday() in weekdays and now.hour in hours]


def by_table(job: Job) -> list[datetime]:
    found, slot = [], next_slot(job.when, START - timedelta(seconds=1))
    while slot < END:
        found.append(slot)
        slot = next_slot(job.when, slot)
    return found


def fired(trigger: CronTrigger) -> list[datetime]:
    found: list[datetime] = []
    slot = trigger.get_next_fire_time(None, START)
    while slot < END:
        found.append(slot)
        slot = trigger.get_next_fire_time(slot, slot)
    return found


def by_systemd(calendar: str) -> list[datetime]:
    """What systemd makes of a calendar of the two forms that are written, and of no other."""
    match = re.fullmatch(r"(?:(Sun|Mon) )?\*-\*-\* (\*|\d\d):(\d\d):00 UTC", calendar)
    assert match is not None, calendar
    weekday = {"Sun": 7, "Mon": 1, None: None}[match[1]]
    hours = int((END - START) / timedelta(hours=1))
    found = (START + timedelta(hours=hour, minutes=int(match[3])) for hour in range(hours))
    return [
        now
        for now in found
        if weekday in (None, now.isoweekday()) and match[2] in ("*", f"{now:%H}")
    ]


def by_cron(fields: list[str], command: str, zone: str) -> list[datetime]:
    """When cron on a machine of this zone gets a command past its look at the time."""
    assert fields[1:] == ["*"] * 4
    quarters = [START + timedelta(minutes=15 * n) for n in range(4 * 24 * (END - START).days)]
    offsets = [now.astimezone(ZoneInfo(zone)).utcoffset() for now in quarters]
    shifts = np.repeat([int(o.total_seconds() // 60) for o in offsets if o is not None], 15)
    minutes = np.arange(len(quarters) * 15)
    local = (minutes + shifts) % 60
    launched = minutes[np.isin(local, [int(minute) for minute in fields[0].split(",")])]
    found = [START + timedelta(minutes=int(minute)) for minute in launched]
    if (look := re.match(r'case "\$\(date -u \+(\S+)\)" in (\S+)\) ;; \*\) exit', command)) is None:
        assert command.startswith("mkdir"), command
        return found
    asked, due = look[1], set(look[2].split("|"))
    return [now for now in found if now.strftime(asked) in due]


def test_table_and_hand_name_the_same_jobs() -> None:
    assert [job.name for job in JOBS] == [*WANTED]
    assert len({key_of(job.name) for job in JOBS}) == len(JOBS), "each has a lock of its own"


def test_no_two_that_take_a_backup_are_due_at_the_same_instant() -> None:
    groups = ({"backup", "take"}, {"drill", "restore"})
    takers = [job for job in JOBS if any(group <= {*job.command} for group in groups)]
    assert {job.name for job in takers} == TAKES_A_BACKUP
    due = [slot for job in takers for slot in by_table(job)]
    assert len(due) == len(set(due))


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_table_apscheduler_airflow_and_systemd_say_the_same_instants(job: Job) -> None:
    wanted = instants(job.name)
    assert by_table(job) == wanted
    assert fired(trigger_of(job.when)) == wanted
    assert fired(CronTrigger.from_crontab(cron_of(job.when), timezone=UTC)) == wanted
    timer = parsed(render_units(installation())[f"liveops-{job.name}.timer"])["Timer"]
    assert timer["OnCalendar"] == calendar_of(job.when)
    assert by_systemd(timer["OnCalendar"]) == wanted


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_cron_says_the_same_instants_and_tries_again_after_each(job: Job, zone: str) -> None:
    found = by_cron(*line_of(job.name, render_crontab(installation())), zone)
    slots = [newest_slot(job.when, now) for now in found]
    firsts = dict(zip(reversed(slots), reversed(found), strict=True))
    assert [slot for slot in sorted(firsts) if slot >= START] == instants(job.name)
    assert all(slot == first for slot, first in firsts.items() if slot >= START)
    tries = {slot: slots.count(slot) for slot in slots[:200] if slots[0] < slot < slots[190]}
    hours = 1 + wait_max(job) / timedelta(hours=1)
    assert set(tries.values()) == {4 * hours}


@pytest.mark.real_part
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_systemd_itself_says_the_same_instants(job: Job) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not beside this checkout")
    base = "--base-time=2026-03-28 00:00:00 UTC"
    asked = [program, "calendar", base, "--iterations=60", calendar_of(job.when)]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    told = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found)
    begin = datetime(2026, 3, 28, tzinfo=UTC)
    wanted = [slot for slot in instants(job.name) if slot > begin][:60]
    assert [*dict.fromkeys(told)] == [f"{slot:%Y-%m-%d %H:%M:%S} UTC" for slot in wanted]


def test_a_weekday_in_numbers_would_be_another_day() -> None:
    """The control: APScheduler takes the 0 of cron's Sunday for Monday."""
    [first, *_] = fired(CronTrigger.from_crontab("0 3 * * 0", timezone=UTC))
    assert first.isoweekday() == 1


def test_every_timer_is_enabled() -> None:
    units = render_units(installation())
    assert timers() == [name for name in units if name.endswith(".timer")]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hourly(minute=60),
        lambda: Daily(at=time(2, 30)),
        lambda: Weekly(on=Weekday.SUNDAY, at=time(3, 1)),
        lambda: a_job(limit_seconds=86_401),
        lambda: a_job(limit_seconds=0),
        lambda: a_job(name="a b"),
    ],
)
def test_what_the_crontab_could_not_say_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        make()


def a_job(*, name: str = "a", limit_seconds: int = 60) -> Job:
    when = Daily(at=time(2))
    return Job(name=name, meaning="m", when=when, command=("x",), limit_seconds=limit_seconds)


def test_an_unknown_job_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="known: database_backup, data, scale"):
        job_named("scael")


def options_of(command: tuple[str, ...]) -> set[str] | None:
    """The options of a command of ours; None where there is no such command."""
    program, *arguments = command
    entries = {
        "live_ops_monitor": cli.monitor_app,
        "scheduled_retrain": cli.retrain_app,
        "weekly_maintenance": cli.maintenance_app,
    }
    entry = cli.app if program == "liveops" else entries.get(program)
    if entry is None:
        return None
    found: Any = typer.main.get_command(entry)
    for word in takewhile(lambda word: not word.startswith("--"), arguments):
        inner = getattr(found, "commands", {})
        if word not in inner:
            return None
        found = inner[word]
    return {option for parameter in found.params for option in parameter.opts}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_each_command_is_there_and_takes_what_it_is_given(job: Job) -> None:
    options = options_of(job.command)
    assert options is not None
    given = {word for word in job.command if word.startswith("--")}
    given |= {"--json", "--config", "--demo"} | ({"--date"} if job.is_dated else set())
    assert given <= options


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name.value)
def test_each_task_of_the_week_is_there_and_takes_what_it_is_given(task: Task) -> None:
    options = options_of(task.command)
    assert options is not None
    given = {word for word in (*task.command, *task.demo_options) if word.startswith("--")}
    assert given | {"--json", "--config", "--demo", "--date", "--dry-run"} <= options


# The night: data at 02:00, which takes two hours at most; what comes after it, and what does not.

RUNS = dict[tuple[str, datetime], JobRun]
AT_TWO = SUNDAY.replace(hour=2)


def waiting(name: str, slot: datetime, *, now: datetime, runs: RUNS, late: bool = False) -> bool:
    since = now - GRACE if late else now
    found = waits_for(
        job_named(name), slot, now=now, since=since, run_of=lambda *key: runs.get(key)
    )
    assert found in ([], ["data"])
    return found != []


def data_run(*, began: datetime = AT_TWO) -> JobRun:
    return first_run("data", AT_TWO, now=began, actor="test")


def test_scaling_waits_for_nobody() -> None:
    assert not waiting("scale", AT_TWO, now=AT_TWO, runs={})


@pytest.mark.parametrize(("name", "hour"), [("rotation", 2), ("maintenance", 3)])
def test_models_are_made_after_the_data_of_the_same_night(name: str, hour: int) -> None:
    slot, now = SUNDAY.replace(hour=hour), SUNDAY.replace(hour=3, minute=30)
    run = data_run()
    assert waiting(name, slot, now=now, runs={("data", AT_TWO): run})
    for succeeded in (True, False):
        over = run.ended(succeeded=succeeded, result="x", now=now, actor="test")
        assert not waiting(name, slot, now=now, runs={("data", AT_TWO): over})
    # The data of another night are not waited for.
    other = {("data", AT_TWO - timedelta(days=1)): run, ("data", AT_TWO): over}
    assert not waiting(name, slot, now=now, runs=other)


def test_data_that_take_too_long_or_never_come_are_waited_for_until_their_limit() -> None:
    four, second = SUNDAY.replace(hour=4), timedelta(seconds=1)
    for runs in ({}, {("data", AT_TWO): data_run()}):
        assert waiting("rotation", AT_TWO, now=four - second, runs=runs, late=True)
        assert not waiting("rotation", AT_TWO, now=four, runs=runs, late=True)


def test_after_an_outage_what_comes_later_lets_the_data_begin_first() -> None:
    noon = SUNDAY.replace(hour=12)
    assert waiting("rotation", AT_TWO, now=noon, runs={})
    begun = {("data", AT_TWO): data_run(began=noon)}
    assert waiting("rotation", AT_TWO, now=noon + timedelta(minutes=119), runs=begun, late=True)
    assert not waiting("rotation", AT_TWO, now=noon + timedelta(hours=2), runs=begun, late=True)
    assert not waiting("rotation", AT_TWO, now=noon, runs={}, late=True)


def test_a_job_is_overdue_once_its_waiting_and_its_work_should_be_over() -> None:
    rotation, next_night = job_named("rotation"), AT_TWO + timedelta(days=1)
    deadline = next_night + timedelta(hours=2 + 6)
    assert overdue(rotation, AT_TWO, now=deadline) == timedelta(0)
    assert overdue(rotation, AT_TWO, now=deadline + timedelta(minutes=5)) == timedelta(minutes=5)
