"""What `/metrics` shows of the jobs of the schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import Engine

from bandit.core.job_runs import JobRun, RunState
from bandit.service import job_runs
from liveops.health_metrics import Sample
from liveops.schedule import JOBS, overdue


def read_jobs(engine: Engine, *, now: datetime) -> list[Sample]:
    """Return what the ledger knows of every job that was ever begun."""
    newest = job_runs.newest(engine)
    done = job_runs.newest(engine, state=RunState.DONE)
    failed = job_runs.newest(engine, state=RunState.FAILED)
    return [*of_runs(newest, done, failed, now=now)]


def of_runs(
    newest: Sequence[JobRun], done: Sequence[JobRun], failed: Sequence[JobRun], *, now: datetime
) -> Iterator[Sample]:
    """Yield what is known of each job: its newest slots, that are done, and that failed."""
    last_done = {run.job: run for run in done}
    ended: dict[str, JobRun] = {}
    for run in (*done, *failed):
        if run.job not in ended or run.slot > ended[run.job].slot:
            ended[run.job] = run
    for run in done:
        at = run.changed_at.timestamp()
        yield "liveops_job_last_success_timestamp_seconds", (run.job,), at
    for job, run in ended.items():
        seconds = max(0.0, (run.changed_at - run.began_at).total_seconds())
        yield "liveops_job_last_duration_seconds", (job,), seconds
        yield "liveops_job_last_run_failed", (job,), float(run.state is RunState.FAILED)
    begun = {run.job: run.slot for run in newest}
    for each in JOBS:
        if each.name not in begun:
            continue
        if (known := last_done.get(each.name)) is not None:
            since = known.slot
        else:  # never done: as if the slot before the newest had been
            since = begun[each.name] - each.when.period
        late = overdue(each, since, now=now).total_seconds()
        yield "liveops_job_overdue_seconds", (each.name,), late
