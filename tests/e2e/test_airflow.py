"""The DAGs in a real Airflow: read without an error, due when the schedule says, and run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from installations import HERE

from liveops.airflow_dags import DEPLOYMENT, dag_plans, render_dags
from liveops.schedule import JOBS, job_named, newest_slot, next_slot

ROOT = Path(__file__).parents[2]
AIRFLOW = ROOT / ".venv-airflow" / "bin"
FIRST = datetime(2026, 10, 20, tzinfo=UTC)  # clocks change on the 25th in Europe
LAST = FIRST + timedelta(days=21)  # and on 1 November in America

pytestmark = [
    pytest.mark.real_part,
    pytest.mark.skipif(not AIRFLOW.exists(), reason="Airflow is not set up: make airflow"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of DAGs whose programs write down how they were begun."""
    folder = tmp_path_factory.mktemp("airflow")
    programs = folder / "bin"
    programs.mkdir()
    for name in ("liveops", "weekly_maintenance"):
        said = shlex.quote(str(folder / "said"))
        script = f'#!/bin/sh\nprintf "%s\\n" {name} "$@" END >> {said}\n'
        (programs / name).write_text(script + 'test "$1" != explain || test "$3" != unknown\n')
        (programs / name).chmod(0o755)
    (folder / "dags").mkdir()
    here = replace(HERE, root=folder, programs=programs, config=None)
    (folder / "dags" / "liveops_dags.py").write_text(render_dags(here))
    return folder


def airflow(home: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "TZ": "America/New_York",
        "PATH": os.environ["PATH"],
    }
    command = [str(AIRFLOW / program), *arguments]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def read(home: Path) -> dict[str, Any]:
    """What Airflow makes of the folder."""
    window = [FIRST.isoformat(), LAST.isoformat()]
    probe = str(ROOT / "tests" / "airflow_probe.py")
    answer = airflow(home, "python", probe, str(home / "dags"), *window)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_airflow_reads_them_without_an_error(read: Mapping[str, Any]) -> None:
    assert read["errors"] == {}
    assert set(read["dags"]) == {plan.name for plan in dag_plans()}
    for plan in dag_plans():
        told = read["dags"][plan.name]
        assert told["tasks"] == {task.name: sorted(task.after) for task in plan.tasks}
        assert told["catchup"] is False


def test_each_job_is_due_when_the_schedule_says(read: Mapping[str, Any]) -> None:
    for plan in dag_plans():
        slots = [datetime.fromisoformat(slot) for slot in read["dags"][plan.name]["slots"]]
        if plan.cron is None:
            assert slots == []
            continue
        job = next(job for job in JOBS if job.name == plan.tasks[-1].name)
        due, slot = list[datetime](), newest_slot(job.when, FIRST)
        while slot <= LAST:
            due += [slot] if slot >= FIRST else []
            slot = next_slot(job.when, slot)
        assert slots == due, plan.name


def test_a_task_has_the_time_of_its_job(read: Mapping[str, Any]) -> None:
    seconds = read["dags"]["liveops_data"]["seconds"]
    assert seconds["data"] >= job_named("data").limit_seconds


@pytest.fixture(scope="module")
def migrated(home: Path) -> Path:
    """The same, with Airflow's own database."""
    answer = airflow(home, "airflow", "db", "migrate")
    assert answer.returncode == 0, answer.stderr
    return home


def begun(home: Path, *arguments: str) -> tuple[int, list[list[str]]]:
    """Run a DAG to its end; return how it ended, and which programs were begun."""
    said = home / "said"
    said.unlink(missing_ok=True)
    answer = airflow(home, "airflow", "dags", "test", *arguments)
    lines = said.read_text().split("END\n") if said.exists() else []
    return answer.returncode, [line.splitlines() for line in lines if line]


def test_a_promotion_takes_what_is_typed_for_text_and_follows_its_evidence(migrated: Path) -> None:
    typed = {"experiment": "btc", "arm": "dqn", "reason": 'it\'s; $(touch x) "so" {{ ds }}'}
    _, found = begun(migrated, DEPLOYMENT, "2026-11-01", "--conf", json.dumps(typed))
    assert found == [
        ["liveops", "explain", "btc", "dqn"],
        ["liveops", "promote", "btc", "dqn", "--reason", typed["reason"]],
    ]
    assert not (migrated / "x").exists()
    unknown = json.dumps(typed | {"arm": "unknown"})
    _, found = begun(migrated, DEPLOYMENT, "2026-11-03", "--conf", unknown)
    assert found == [["liveops", "explain", "btc", "unknown"]], "and no promotion"


@pytest.mark.slow
@pytest.mark.parametrize("name", [plan.name for plan in dag_plans() if plan.cron is not None])
def test_each_dag_runs_its_commands_in_order(migrated: Path, name: str) -> None:
    plan = next(plan for plan in dag_plans() if plan.name == name)
    code, found = begun(migrated, name, "2026-11-01")
    assert (code, found) == (0, [list(task.command) for task in plan.tasks])
