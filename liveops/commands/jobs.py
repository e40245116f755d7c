"""`liveops job` and `liveops scheduler`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit.core.errors import InvalidInput
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    actor,
    ledger_app,
    print_json,
    utc_day,
)

if TYPE_CHECKING:
    from bandit.core.job_runs import JobRun
    from liveops.job_runner import Attempt
    from liveops.schedule import Job

commands = typer.Typer(help="The jobs of the schedule, and their runs.", no_args_is_help=True)


@commands.command("run")
def run(
    name: Annotated[str, typer.Argument(help="Job, as `liveops job list` names it.")],
    slot: Annotated[
        str | None,
        typer.Option("--slot", help="Slot in ISO 8601; the newest that is due if left out."),
    ] = None,
    day: Annotated[
        str | None, typer.Option("--date", help="Newest slot of this UTC day, as YYYY-MM-DD.")
    ] = None,
    scheduled: Annotated[
        bool,
        typer.Option("--scheduled", help="As cron and systemd do: at most four tries a slot."),
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Do a slot of a job unless it is done: run its command, and write down what came of it.

    It waits for the jobs that come before it. Whatever is said meanwhile is appended to
    logs/NAME.log under `home`. Ended by a signal, the slot is left to whoever begins it again.
    Exit 1 where it failed, 3 while another process is at it or its work (`--scheduled` waits for
    the work), 4 where `--scheduled` has no try left.
    """
    from liveops.job_runner import BUSY_CODE, SPENT_CODE, Outcome, Runner, cli_command
    from liveops.ledger_server import state_home
    from liveops.schedule import job_named
    from liveops.stopping import stopped_by_signals

    job = job_named(name)
    with stopped_by_signals() as stop, ledger_app(config=config, demo=demo) as app:
        chosen = _slot_of(job, slot, day, now=app.clock.now())
        runner = Runner(
            app.engine,
            app.clock,
            logs=state_home(app.settings) / "logs",
            command=cli_command(config=config, demo=demo),
            actor=actor(),
        )
        done = runner.run(job, chosen, stop=stop, is_scheduled=scheduled)
    if as_json:
        told = {"outcome": done.outcome.value, "why": done.why, "run": _shown(done.run)}
        print_json(told)
    else:
        sys.stdout.write(f"{_said(job, chosen, done)}\n")
    if done.outcome in (Outcome.FAILED, Outcome.LEFT):
        raise typer.Exit(1)
    if done.outcome is Outcome.BUSY:
        raise typer.Exit(BUSY_CODE)
    if done.outcome is Outcome.SPENT:
        raise typer.Exit(SPENT_CODE)


@commands.command("list")
def list_jobs(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print each job, when it is due next, and what came of its newest run."""
    from bandit.service import job_runs
    from liveops.schedule import JOBS, cron_of, next_slot

    with ledger_app(config=config, demo=demo) as app:
        now = app.clock.now()
        runs = {run.job: run for run in job_runs.newest(app.engine)}
    if as_json:
        print_json(
            [
                {
                    "job": job.name,
                    "meaning": job.meaning,
                    "command": " ".join(job.command),
                    "cron": cron_of(job.when),
                    "next": next_slot(job.when, now).isoformat(),
                    "limit_seconds": job.limit_seconds,
                    "after": list(job.after),
                    "run": _shown(runs.get(job.name)),
                }
                for job in JOBS
            ]
        )
        return
    for job in JOBS:
        due = f"{next_slot(job.when, now):%Y-%m-%d %H:%M}"
        sys.stdout.write(f"{job.name:16} {job.when.said:20} next {due}  {job.meaning}\n")
        last = runs.get(job.name)
        if last is not None:
            sys.stdout.write(f"{'':17}{_line(last)}\n")


def scheduler(demo: Demo = False, config: ConfigFile = None) -> None:
    """Begin the jobs of the schedule when they are due, until stopped.

    Any number may run, on any number of hosts: one leads, another takes over when it is gone.
    """
    from liveops.scheduler import scheduling
    from liveops.stopping import wait_for_stop

    with ledger_app(config=config, demo=demo) as app, scheduling(app, config=config):
        sys.stderr.write("scheduling; Ctrl-C stops it\n")
        wait_for_stop(meanwhile=app.revive)


def _slot_of(job: Job, slot: str | None, day: str | None, *, now: datetime) -> datetime:
    """Return the slot that was asked for; raises `InvalidInput` for what is none, or to come."""
    from liveops.schedule import newest_slot

    if slot is None and day is None:
        return newest_slot(job.when, now)
    if slot is not None and day is not None:
        raise InvalidInput(field="--slot", rule="must not go with --date", found=slot)
    if slot is not None:
        moment = _instant(slot)
        is_one = newest_slot(job.when, moment) == moment <= now
        asked, option = slot, "--slot"
    else:
        assert day is not None
        midnight = datetime.combine(utc_day(day), time(), tzinfo=UTC)
        last = min(now, midnight + timedelta(days=1) - timedelta(microseconds=1))
        moment = newest_slot(job.when, last)
        is_one, asked, option = moment >= midnight, day, "--date"
    if not is_one:
        rule = f"must be a slot of {job.name}, {job.when.said}, that is not to come"
        raise InvalidInput(field=option, rule=rule, found=asked)
    return moment


def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        rule = "must be an instant with its offset, such as 2026-03-01T02:00:00Z"
        raise InvalidInput(field="--slot", rule=rule, found=repr(text))
    return moment.astimezone(UTC)


def _said(job: Job, slot: datetime, done: Attempt) -> str:
    from liveops.job_runner import Outcome

    about = f"{job.name} of {slot:%Y-%m-%d %H:%M} UTC"
    if done.run is None:
        return f"{about}: stopped before it began"
    said = {
        Outcome.DONE: "done",
        Outcome.FAILED: "failed",
        Outcome.DONE_BEFORE: "was done before",
        Outcome.SPENT: f"failed {done.run.attempts} times, and is not tried again",
        Outcome.LEFT: "stopped, and left to whoever begins it again",
        Outcome.BUSY: "another process is at its work, and it is left to whoever begins it again",
    }[done.outcome]
    result = done.run.result or done.why
    return f"{about}: {said}" + (f": {result}" if result else "")


def _line(run: JobRun) -> str:
    tries = "" if run.attempts == 1 else f" at attempt {run.attempts}"
    result = f": {run.result}" if run.result else ""
    return (
        f"{run.state.value}{tries}, slot {run.slot:%Y-%m-%d %H:%M}, "
        f"{run.changed_at:%Y-%m-%d %H:%M:%S} by {run.actor}{result}"
    )


def _shown(run: JobRun | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "slot": run.slot.isoformat(),
        "state": run.state.value,
        "attempts": run.attempts,
        "fence": run.fence,
        "began_at": run.began_at.isoformat(),
        "changed_at": run.changed_at.isoformat(),
        "actor": run.actor,
        "result": run.result,
    }
