"""`liveops verify`, and `weekly_maintenance` (= `liveops maintain`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.errors import LockHeldElsewhere
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Day,
    Demo,
    DryRun,
    actor,
    ledger_app,
    print_json,
)
from liveops.maintenance.tasks import WeeklyTask

if TYPE_CHECKING:
    from threading import Event

    from rich.progress import Task

    from liveops.job_runner import Command
    from liveops.maintenance.weekly import TaskReport
    from liveops.schedule import Job
    from liveops.wiring import App


def verify(
    day: Day = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Check whether what is kept is to be relied on; exit 1 when a check fails.

    INCONCLUSIVE is what could not be checked, and why. Everything is checked as it is now.
    """
    from bandit.core.model import Verdict
    from liveops.maintenance.days import moment_of
    from liveops.maintenance.verify import CHECKS, verified

    if dry_run:
        would = [f"check {kept.name}: {kept.meaning}" for kept in CHECKS]
        if as_json:
            print_json({"dry_run": True, "done": would})
        else:
            sys.stdout.write("".join(f"{line}\n" for line in would))
        return
    found = []
    with ledger_app(config=config, demo=demo) as app:
        moment = moment_of(None if day is None else day.date(), now=app.clock.now())
        for checked in verified(app):
            found.append(checked)
            if not as_json:
                sys.stdout.write(f"{checked}\n")
    if as_json:
        checks = [checked.to_json() for checked in found]
        told = {"date": f"{moment:%Y-%m-%d}", "dry_run": False, "done": [*map(str, found)]}
        print_json({**told, "checks": checks})
    failed = [checked.name for checked in found if checked.verdict is Verdict.FAIL]
    if failed:
        sys.stderr.write(f"not to be relied on: {', '.join(failed)}\n")
        raise typer.Exit(1)


def weekly_maintenance(
    task: Annotated[
        WeeklyTask, typer.Option("--task", help="One task, or all of them in their order.")
    ] = WeeklyTask.FULL,
    day: Day = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Do the week's maintenance: snapshot, retrain, optuna, purge, database, verify.

    Each task is a command of its own with its own time limit, and each is tried whatever becomes of
    the others; exit 1 if any failed, 3 if another process is at those that are left, or at their
    work. What is done this week is not done again: it belongs to the newest Sunday 03:00 UTC.
    Killed anywhere, the next run goes on. What tasks say is appended to logs/ under `home`.
    """
    from liveops.job_runner import cli_command
    from liveops.maintenance.days import moment_of
    from liveops.maintenance.tasks import jobs_of, limits_of, week_of
    from liveops.maintenance.weekly import TaskState
    from liveops.stopping import stopped_by_signals

    command = cli_command(config=config, demo=demo)
    # What becomes of a task is told here, in words for who reads them.
    logging.getLogger("liveops.job_runner").setLevel(logging.ERROR)
    with stopped_by_signals() as stop, ledger_app(config=config, demo=demo) as app:
        slot = week_of(moment_of(None if day is None else day.date(), now=app.clock.now()))
        jobs = jobs_of(task, limits_of(app.settings.maintenance), demo=demo)
        reports = _reports(app, command, jobs, slot, stop=stop, dry_run=dry_run)
    failed, left = sum(r.state.is_failure for r in reports), len(jobs) - len(reports)
    if as_json:
        told = {"week": slot.isoformat(), "dry_run": dry_run, "failed": failed, "left": left}
        made = [f"{report.task}: {report.state}" for report in reports]
        print_json({**told, "done": made, "tasks": [report.to_json() for report in reports]})
    else:
        _print(reports, slot)
    busy = [report.task for report in reports if report.state is TaskState.BUSY]
    if busy and len(busy) == failed and not left:
        raise LockHeldElsewhere(f"{', '.join(busy)}: another process is at it now")
    if failed or left:
        raise typer.Exit(1)


def _reports(
    app: App, command: Command, jobs: Sequence[Job], slot: datetime, *, stop: Event, dry_run: bool
) -> list[TaskReport]:
    """Do each task, or rehearse it, and tell of it as it ends; after a stop none is begun."""
    from liveops.job_runner import Runner
    from liveops.ledger_server import state_home
    from liveops.maintenance.weekly import do, rehearse

    logs = state_home(app.settings) / "logs"
    runner = Runner(app.engine, app.clock, logs=logs, command=command, actor=actor())
    reports: list[TaskReport] = []
    for job in jobs:
        with _shown(job):
            if dry_run:
                report = rehearse(app.engine, command, job, slot, stop=stop)
            else:
                report = do(runner, job, slot, stop=stop)
        reports.append(report)
        made = "".join(f": {line}" if n == 0 else f"; {line}" for n, line in enumerate(report.made))
        sys.stderr.write(f"{report.task} {report.state}, {report.seconds:.1f} s{made}\n")
        if stop.is_set():
            break
    return reports


@contextmanager
def _shown(job: Job) -> Iterator[None]:
    """Show on a terminal how much of its time a task has used."""
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress_bar import ProgressBar

    class OfLimit(ProgressColumn):
        """A bar that is full at the task's limit."""

        max_refresh = 0.5

        def render(self, task: Task) -> ProgressBar:
            return ProgressBar(total=job.limit_seconds, completed=task.elapsed or 0.0, width=40)

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), OfLimit(), TimeElapsedColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        bars.add_task(job.name, total=None)
        yield


def _print(reports: Sequence[TaskReport], slot: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Maintenance of the week of {slot:%Y-%m-%d %H:%M} UTC")
    table.add_column("task")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    table.add_column("what was made", overflow="fold")
    for report in reports:
        made = Text("\n".join(report.made) or "nothing to do")
        table.add_row(report.task, report.state.value, f"{report.seconds:.1f}", made)
    Console().print(table)
