"""Airflow's DAGs of the schedule: each task is a command of ours, begun when its slot is due.

Airflow runs in an environment of its own, with packages that ours cannot share. So the DAGs are one
file without an import of ours, and the ledger keeps which slots are done: beside cron, systemd or
`liveops scheduler` a task finds that out and ends.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any, Final

from bandit.core.job_runs import RETRY_AFTER, TRIES_MAX
from liveops.installation import Installation
from liveops.schedule import JOBS, Job, cron_of, job_named

DAGS: Final = Path("airflow") / "liveops_dags.py"
"""What Airflow's `dags_folder` is given."""

DEPLOYMENT: Final = "liveops_deployment"
_PARTS_OF_MAINTENANCE: Final = ("retrain", "optuna")
"""Tasks of the weekly maintenance that the training DAG shows by themselves; the rest is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagTask:
    """A command, what it comes after, and how long it may take."""

    name: str
    command: tuple[str, ...]
    limit_seconds: int
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DagPlan:
    """A DAG: its tasks, and its slots as cron counts them in UTC; None waits for a person."""

    name: str
    meaning: str
    cron: str | None
    tasks: tuple[DagTask, ...]


def dag_plans(jobs: Sequence[Job] = JOBS) -> list[DagPlan]:
    """Return the DAGs of the schedule; a job that follows another at the same hour joins its DAG.

    >>> {plan.name: [task.name for task in plan.tasks] for plan in dag_plans()}["liveops_training"]
    ['data', 'retrain', 'optuna', 'maintenance']
    """
    plans: dict[str, DagPlan] = {}
    home: dict[str, str] = {}
    for job in jobs:
        same = [name for name in job.after if job_named(name, jobs).when == job.when]
        if same:
            name, found = home[same[0]], plans[home[same[0]]]
            tasks = (*found.tasks, _task(job, after=job.after))
            plans[name] = DagPlan(name=name, meaning=found.meaning, cron=found.cron, tasks=tasks)
        else:
            name = f"liveops_{job.name if job.group is None else job.group.value}"
            plans[name] = DagPlan(
                name=name, meaning=job.meaning, cron=cron_of(job.when), tasks=_tasks(job, jobs)
            )
        home[job.name] = name
    return [*plans.values(), _deployment()]


def _task(job: Job, *, after: tuple[str, ...] = ()) -> DagTask:
    command = ("liveops", "job", "run", job.name, "--scheduled")
    return DagTask(name=job.name, command=command, limit_seconds=job.limit_seconds, after=after)


def _tasks(job: Job, jobs: Sequence[Job]) -> tuple[DagTask, ...]:
    """Return the tasks of a job's DAG; those before it are done by whoever comes first."""
    before = tuple(_task(job_named(name, jobs)) for name in job.after)
    names, parts = job.after, list[DagTask]()
    if job.command[0] == "weekly_maintenance":
        for part in _PARTS_OF_MAINTENANCE:
            command = ("weekly_maintenance", "--task", part)
            parts.append(
                DagTask(name=part, command=command, limit_seconds=job.limit_seconds, after=names)
            )
            names = (part,)
    return (*before, *parts, _task(job, after=names))


def _deployment() -> DagPlan:
    arm = ("$EXPERIMENT", "$ARM")
    return DagPlan(
        name=DEPLOYMENT,
        meaning="makes a challenger the champion, when a person triggers it",
        cron=None,
        tasks=(
            DagTask(name="evidence", command=("liveops", "explain", *arm), limit_seconds=600),
            DagTask(
                name="promote",
                command=("liveops", "promote", *arm, "--reason", "$REASON"),
                limit_seconds=600,
                after=("evidence",),
            ),
        ),
    )


def render_dags(installation: Installation, jobs: Sequence[Job] = JOBS) -> str:
    """Return the file of DAGs for an installation, for Airflow 3."""
    plans = [_literal(installation, plan) for plan in dag_plans(jobs)]
    written = pformat(plans, width=96, sort_dicts=False)
    return _FILE.format(
        root=str(installation.root),
        variables=dict(installation.variables),
        retries=TRIES_MAX - 1,
        retry_minutes=round(RETRY_AFTER.total_seconds() / 60),
        plans=written,
    )


def _literal(installation: Installation, plan: DagPlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "meaning": plan.meaning,
        "cron": plan.cron,
        "tasks": [
            {
                "name": task.name,
                "command": _command(installation, task),
                "limit_seconds": task.limit_seconds,
                "after": list(task.after),
            }
            for task in plan.tasks
        ],
    }


def _command(installation: Installation, task: DagTask) -> str:
    """Return a task's line for a shell; what a person types is a variable there, never its text."""
    program, *arguments = task.command
    words = [shlex.quote(str(installation.programs / program))]
    words += [f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in arguments]
    return " ".join([*words, *(shlex.quote(word) for word in installation.options())])


_FILE: Final = '''\
"""DAGs of liveops for Airflow 3: each task is a command that does its slot once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

ROOT = {root!r}
VARIABLES = {variables!r}
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,62}}\\Z"
PARAMS = {{
    "experiment": Param(type="string", pattern=NAME, description="Experiment."),
    "arm": Param(type="string", pattern=NAME, description="Policy: name, sha or prefix of it."),
    "reason": Param(type="string", minLength=1, maxLength=1000, description="Why; it is audited."),
}}
TYPED = {{f"{{name.upper()}}": f"{{{{{{{{ params.{{name}} }}}}}}}}" for name in PARAMS}}
PLANS = {plans}


def dag_of(plan: dict) -> DAG:
    """Return one DAG; times are UTC, and what was missed is not made up for by Airflow."""
    typed = plan["cron"] is None
    with DAG(
        plan["name"],
        description=plan["meaning"],
        schedule=plan["cron"],
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params=PARAMS if typed else {{}},
        tags=["liveops"],
        default_args={{
            "retries": 0 if typed else {retries},
            "retry_delay": timedelta(minutes={retry_minutes}),
        }},
    ) as dag:
        tasks = {{}}
        for task in plan["tasks"]:
            tasks[task["name"]] = made = BashOperator(
                task_id=task["name"],
                bash_command="exec " + task["command"],
                cwd=ROOT,
                env=VARIABLES | (TYPED if typed else {{}}),
                append_env=True,
                skip_on_exit_code=None,
                execution_timeout=timedelta(seconds=task["limit_seconds"] + 60),
                # All of the schedule is tried; a promotion follows evidence that could be read.
                trigger_rule="all_success" if typed else "all_done",
            )
            for name in task["after"]:
                tasks[name] >> made
    return dag


for plan in PLANS:
    globals()[plan["name"]] = dag_of(plan)
'''
