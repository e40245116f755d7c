"""The DAGs say what the schedule says, and nothing that a person types becomes a command."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from installations import HERE

from liveops.airflow_dags import DEPLOYMENT, dag_plans, render_dags
from liveops.schedule import JOBS, cron_of, job_named

PLANS = {plan.name: plan for plan in dag_plans()}


def test_every_job_is_in_a_dag_with_its_own_slots() -> None:
    for job in JOBS:
        command = ("liveops", "job", "run", job.name, "--scheduled")
        crons = {
            plan.cron
            for plan in PLANS.values()
            if any(task.command == command and task.name == job.name for task in plan.tasks)
        }
        assert cron_of(job.when) in crons, job.name


def test_the_night_is_in_its_order() -> None:
    data = {task.name: task.after for task in PLANS["liveops_data"].tasks}
    assert data == {"data": (), "rotation": ("data",)}
    training = {task.name: task.after for task in PLANS["liveops_training"].tasks}
    assert training == {
        "data": (),
        "retrain": ("data",),
        "optuna": ("retrain",),
        "maintenance": ("optuna",),
    }
    assert PLANS["liveops_training"].cron == "0 3 * * sun"
    assert PLANS["liveops_feature_health"].cron == cron_of(job_named("drift").when)
    assert PLANS[DEPLOYMENT].cron is None


def test_the_file_is_python_without_an_import_of_ours() -> None:
    tree = ast.parse(render_dags(HERE))
    imported = {
        node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.partition(".")[0] for name in imported} == {"__future__", "airflow", "datetime"}


def test_paths_are_quoted_and_what_people_type_is_no_part_of_a_command() -> None:
    odd = replace(HERE, programs=Path("/srv/a b;c/bin"), config=Path("/srv/it's/c.yaml"))
    [literal] = [
        ast.literal_eval(node.value)
        for node in ast.parse(render_dags(odd)).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLANS"
    ]
    commands: dict[str, Any] = {
        f"{plan['name']}.{task['name']}": task["command"]
        for plan in literal
        for task in plan["tasks"]
    }
    end = "--config '/srv/it'\"'\"'s/c.yaml'"
    assert commands["liveops_scale.scale"] == (
        f"'/srv/a b;c/bin/liveops' job run scale --scheduled {end}"
    )
    assert commands[f"{DEPLOYMENT}.promote"] == (
        f'\'/srv/a b;c/bin/liveops\' promote "$EXPERIMENT" "$ARM" --reason "$REASON" {end}'
    )


@pytest.mark.parametrize("arm", ["-x", "--demo", "", "a b", "$(x)", "a" * 64, "a\n"])
def test_no_name_that_is_typed_can_be_an_option(arm: str) -> None:
    [pattern] = [
        ast.literal_eval(node.value)
        for node in ast.parse(render_dags(HERE)).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAME"
    ]
    assert re.search(pattern, "dqn-btc_1.5")
    assert re.search(pattern, arm) is None
