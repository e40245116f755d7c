"""A sweep that is killed with kill -9, wherever it was, goes on to the end it would have had."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from made_up_candles import random_walk
from postgres_server import PostgresServer
from sqlalchemy import Engine
from sweeps import OPTIONS, STUDY, swept, trials_of, tuner, written
from waiting import until

from bandit.service import learner_jobs, optimizing, policies, trials
from bandit.storage.engine import connect

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")


def environment_of(home: Path, database_url: str) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    written(random_walk(1_560, seed=5), home / "BTCUSD.csv")
    return {"LIVEOPS_HOME": str(home), "LIVEOPS_DATABASE_URL": database_url}


def arguments(home: Path, trials: int) -> tuple[str, ...]:
    return (*OPTIONS, "--candles", str(home / "BTCUSD.csv"), "--trials", str(trials))


def killed_at(environment: Mapping[str, str], home: Path, line: str, *, trials: int) -> None:
    """Run a sweep until it says `line`, and kill it at that moment."""
    process = tuner(environment, *arguments(home, trials))
    assert process.stderr is not None
    heard = []
    for said in process.stderr:
        heard.append(said)
        if said.startswith(line):
            os.kill(process.pid, signal.SIGKILL)
            break
    else:
        pytest.fail("".join(heard))
    process.communicate()
    until(lambda: not at_work(home))  # all that it had started


def at_work(home: Path) -> list[str]:
    """Return the processes that know this home: of a sweep, its trials and their trainings."""
    mark, found = f"LIVEOPS_HOME={home}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
    return found


def end_state(engine: Engine, home: Path) -> dict[str, Any]:
    """Return all that a sweep leaves, but for times."""
    found = optimizing.find(engine, STUDY)
    assert found is not None
    policy = policies.find(engine, "tuned_20260301").policy
    recipe = learner_jobs.recipe_of(engine, policy.name)
    assert recipe is not None
    return {
        "trials": trials_of(engine),
        "recorded": [(t.id, t.verdict, t.metrics) for t in trials.listed(engine, STUDY)],
        "run": (found.state, found.counts, found.best_value, found.parameters, found.policy),
        "policy": policy,
        "tuned": recipe["options"]["tuned"],
        "kept": sorted(path.name for path in (home / "tuning" / STUDY).iterdir()),
        "artifacts": sorted(path.name for path in (home / "artifacts").iterdir()),
    }


@pytest.mark.parametrize(
    ("trials_wanted", "moments"),
    [
        pytest.param(1, ["trial 0: fold 1"], id="inside"),
        pytest.param(
            2,
            ["trial 0: fold 1", "trial 0: complete", "trial 1: fold 2", "trial 1: complete"],
            id="everywhere",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_sweep_that_was_killed_ends_as_one_that_was_not(
    engine: Engine,
    database_url: str,
    postgres_server: PostgresServer,
    tmp_path: Path,
    trials_wanted: int,
    moments: list[str],
) -> None:
    """Killed inside a trial, between two, and once all are done; all that it started goes too."""
    whole = environment_of(tmp_path / "whole", database_url)
    swept(whole, *arguments(tmp_path / "whole", trials_wanted))
    expected = end_state(engine, tmp_path / "whole")
    assert len(expected["trials"]) == len(expected["recorded"]) == trials_wanted
    with postgres_server.database() as url:
        home = tmp_path / "killed"
        environment = environment_of(home, url)
        for line in moments:
            killed_at(environment, home, line, trials=trials_wanted)
        swept(environment, *arguments(home, trials_wanted))
        other = connect(url)
        try:
            assert end_state(other, home) == expected
        finally:
            other.dispose()
