"""The week's maintenance, killed anywhere and begun again, ends where an undisturbed one does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from commands import processes_of
from embedded_owner import gone
from ledger import arms, count, open_btc
from made_up_policy import stored
from maintenance_week import STEPS, TABLE, child_of, kill, told, week
from postgres_server import PostgresServer
from sqlalchemy import Engine, text
from waiting import until

from bandit.core.model import ArmMode, Policy, PolicyKind, PolicyName
from bandit.service import experiments, policies
from bandit.storage.engine import connect
from liveops.clock import now
from liveops.maintenance.tasks import week_of

DONE = [(f"maintenance.{task.name}", "done") for task in TABLE]
CANONICAL = """
SELECT 'arm', e.name, p.name, a.status, a.status_reason
FROM arms a JOIN experiments e ON e.id = a.experiment_id JOIN policies p ON p.id = a.policy_id
UNION ALL SELECT 'decision', e.name, d.kind, d.inputs ->> 'policy', d.reason
FROM decisions d JOIN experiments e ON e.id = d.experiment_id
UNION ALL SELECT 'archival', p.name, x.n::text, x.archived::text, x.reason
FROM policy_archivals x JOIN policies p ON p.id = x.policy_id
UNION ALL SELECT 'run', r.job, r.slot::text, r.state, '' FROM job_runs r
ORDER BY 1, 2, 3, 4, 5
"""


def lived(engine: Engine, home: Path) -> None:
    """A ledger of a hundred days before the week: of six challengers four go, one stored here."""
    then = week_of(now()) - timedelta(days=100)
    open_btc(engine, challengers=arms(5), now=then)
    sha = stored(home / "artifacts").sha
    policy = Policy(name=PolicyName("stored-one"), kind=PolicyKind.REINFORCEMENT, sha=sha)
    policies.register(engine, policy, now=then, actor="test")
    experiments.add_arm(
        engine, name="btc", policy=policy.name, mode=ArmMode.SHADOW, now=then, actor="test"
    )


def state_of(engine: Engine, home: Path) -> tuple[list[tuple[object, ...]], dict[str, str]]:
    """What a week leaves in ledger and files, but for when."""
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(CANONICAL))]
    kept = [
        path
        for top in ("made", "artifacts", "archived_artifacts")
        for path in (home / top).rglob("*")
    ]
    files = {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in kept
        if path.is_file()
    }
    return rows, files


def effects(home: Path) -> list[str]:
    return sorted((home / "effects").read_text().splitlines())


@pytest.fixture(scope="module")
def undisturbed(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[tuple[object, ...]], dict[str, str]]:
    """What a week leaves that nobody disturbed, and that a second one does not change."""
    home = tmp_path_factory.mktemp("undisturbed")
    with postgres_server.database() as url:
        engine = connect(url)
        lived(engine, home)
        with week(home, url) as first:
            assert [(row["task"], row["state"]) for row in told(first)] == DONE
        left = state_of(engine, home)
        made = effects(home)
        with week(home, url) as again:
            assert {str(row["state"]) for row in told(again)} == {"done before"}
            assert again.returncode == 0
        assert state_of(engine, home) == left
        assert effects(home) == made
        assert len(made) == 3 * STEPS
        gone_ones = [row for row in left[0] if row[0] == "archival"]
        assert len(gone_ones) == 4
        assert any("archived_artifacts" in name for name in left[1])
        engine.dispose()
    return left


@pytest.fixture
def home(tmp_path: Path, engine: Engine) -> Iterator[Path]:
    home = tmp_path / "var"
    home.mkdir()
    lived(engine, home)
    yield home
    until(lambda: not processes_of(home))  # nobody is left behind


def finished(home: Path, url: str) -> int:
    """Run weeks until one ends well; return how many that took."""
    for tries in range(1, 6):
        with week(home, url) as last:
            told(last)
        if last.returncode == 0:
            return tries
    raise AssertionError("the week does not end well")


def as_undisturbed(
    engine: Engine, home: Path, left: tuple[list[tuple[object, ...]], dict[str, str]]
) -> None:
    assert state_of(engine, home) == left
    made = effects(home)
    assert len(made) == len(set(made))
    assert count(engine, "policy_archivals") == 4


def test_a_runner_that_is_killed_at_every_task(
    engine: Engine,
    database_url: str,
    home: Path,
    undisturbed: tuple[list[tuple[object, ...]], dict[str, str]],
) -> None:
    """Once as each task begins, with its child under way, and once as each has ended."""
    for task in TABLE:
        job = f"maintenance.{task.name}"
        with week(home, database_url) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line) == {"begins": job}:
                    break
            child = child_of(process)
            kill(process.pid)
            process.wait()
            assert gone(child)
        with week(home, database_url) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line).get("task") == job:
                    break
            kill(process.pid)
    assert finished(home, database_url) == 1
    as_undisturbed(engine, home, undisturbed)


def test_a_child_that_is_killed_at_every_task_fails_it_and_no_other(
    engine: Engine,
    database_url: str,
    home: Path,
    undisturbed: tuple[list[tuple[object, ...]], dict[str, str]],
) -> None:
    with week(home, database_url) as process:
        assert process.stdout is not None
        states = []
        for line in process.stdout:
            row = json.loads(line)
            if "begins" in row:
                kill(child_of(process))
            else:
                states.append(row["state"])
        assert process.wait() == 1
    assert states == ["failed"] * len(TABLE)
    with week(home, database_url) as process:
        assert [row["state"] for row in told(process)] == ["done"] * len(TABLE)
    as_undisturbed(engine, home, undisturbed)


@pytest.mark.parametrize("seed", [1])
def test_a_runner_that_is_killed_at_any_moment(
    engine: Engine,
    database_url: str,
    home: Path,
    undisturbed: tuple[list[tuple[object, ...]], dict[str, str]],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(4):
        with week(home, database_url) as process:
            for _ in range(int(rng.integers(1, 5))):
                assert process.stdout is not None
                process.stdout.readline()
            Event().wait(float(rng.uniform(0, 1.5)))
            kill(process.pid)
    finished(home, database_url)
    as_undisturbed(engine, home, undisturbed)


def test_of_two_runners_the_other_does_what_is_left(
    engine: Engine,
    database_url: str,
    home: Path,
    undisturbed: tuple[list[tuple[object, ...]], dict[str, str]],
) -> None:
    (home / "wait_at").write_text("retrain.1")
    with week(home, database_url) as first:
        until((home / "waits").exists)
        with week(home, database_url) as second:
            rows = told(second)
            others = ["done"] * (len(TABLE) - 2)
            assert [row["state"] for row in rows] == ["done before", "busy", *others]
            assert second.returncode == 1
        child = child_of(first)
        kill(first.pid)
        first.wait()
        assert gone(child)
    (home / "wait_at").unlink()
    assert finished(home, database_url) == 1
    as_undisturbed(engine, home, undisturbed)
