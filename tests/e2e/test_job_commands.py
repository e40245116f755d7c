"""`liveops job` and `liveops scheduler` as a person, cron and systemd type them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import REPOSITORY, environment, free_port, script
from ledger import open_btc
from sqlalchemy import Engine
from waiting import until

from bandit.core.job_runs import JobRun, RunState, key_of
from bandit.service import job_runs
from bandit.storage import locks
from bandit.storage.locks import Lease, LockClass
from liveops.schedule import JOBS, Job, newest_slot

SCHEDULER = "from liveops.cli import main; main()"


def job(url: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return script("liveops", "job", *arguments, home=home, LIVEOPS_DATABASE_URL=url)


def runs(engine: Engine) -> dict[str, JobRun]:
    return {run.job: run for run in job_runs.newest(engine)}


def test_a_slot_is_done_once_and_the_list_says_so(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    before = json.loads(job(database_url, tmp_path, "list", "--json").stdout)
    assert [row["job"] for row in before] == [each.name for each in JOBS]
    assert {row["run"] for row in before} == {None}
    first = job(database_url, tmp_path, "run", "drift", "--scheduled")
    assert first.returncode == 0, first.stderr
    assert ': done: [{"policy":' in first.stdout
    again = json.loads(job(database_url, tmp_path, "run", "drift", "--json").stdout)
    slot = datetime.now(UTC) - timedelta(minutes=10)
    if slot.hour == runs(engine)["drift"].slot.hour:  # else the next slot began meanwhile
        assert (again["outcome"], again["run"]["attempts"]) == ("done_before", 1)
    assert '"skipped": "it was not made here"' in (tmp_path / "logs" / "drift.log").read_text()
    assert "done, slot" in job(database_url, tmp_path, "list").stdout


def test_a_command_that_fails_is_tried_again_by_hand(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    """What the child says last is the result."""
    (tmp_path / "backups").write_text("no directory")
    day = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    asked = ("run", "state_backup", "--slot", "2026-03-01T10:20:00Z", "--json")
    for attempt in (1, 2):
        failed = job(database_url, tmp_path, *asked)
        assert failed.returncode == 1
        assert json.loads(failed.stdout)["run"]["attempts"] == attempt
    assert runs(engine)["state_backup"].state is RunState.FAILED
    by_day = job(database_url, tmp_path, "run", "scale", "--date", day)
    assert by_day.returncode == 0, by_day.stderr
    assert runs(engine)["scale"].slot.date().isoformat() == day
    assert "is not decided now" in (tmp_path / "logs" / "scale.log").read_text()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("nothing",), "known: database_backup, data"),
        (("data", "--slot", "2026-03-01T02:01:00Z"), "must be a slot of data, daily 02:00 UTC"),
        (("data", "--slot", "2026-03-01T02:00:00"), "must be an instant with its offset"),
        (("data", "--slot", "2099-03-01T02:00:00Z"), "that is not to come"),
        (("drill", "--date", "2026-03-02"), "must be a slot of drill, Sunday 10:00 UTC"),
        (("data", "--date", "yesterday"), "--date: must be a day as YYYY-MM-DD"),
        (("data", "--date", "2026-03-01", "--slot", "x"), "must not go with --date"),
    ],
)
def test_what_is_no_slot_is_told_what_one_is(
    engine: Engine, database_url: str, tmp_path: Path, asked: tuple[str, ...], said: str
) -> None:
    done = job(database_url, tmp_path, "run", *asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert job_runs.newest(engine) == []


def test_beside_another_process_at_the_job_it_exits_3(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    other = Lease(engine, LockClass.JOB, key_of("drift"), seconds=600)
    assert other.hold()
    done = job(database_url, tmp_path, "run", "drift")
    other.leave()
    assert done.returncode == 3
    assert "drift: another process is at it now" in done.stderr


def test_beside_another_process_at_its_work_it_exits_3_and_can_be_done_afterwards(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    asked = ("run", "state_backup", "--slot", "2026-03-01T10:20:00Z", "--json")
    with locks.backup(engine, doing="drill", is_drill=False):
        busy = job(database_url, tmp_path, *asked)
    told = json.loads(busy.stdout)
    assert (busy.returncode, told["outcome"]) == (3, "busy")
    assert "another process is at it now" in told["why"]
    assert runs(engine)["state_backup"].state is RunState.RUNNING
    assert job(database_url, tmp_path, *asked).returncode == 0
    assert runs(engine)["state_backup"].state is RunState.DONE


def test_a_scheduled_slot_without_a_try_left_exits_4(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    slot = datetime(2026, 3, 1, 10, 20, tzinfo=UTC)
    for _ in range(4):
        run = job_runs.claim(engine, "state_backup", slot, now=slot, actor="test")
        assert run is not None
        job_runs.finish(engine, run, succeeded=False, result="no disk", now=slot, actor="test")
    asked = ("run", "state_backup", "--slot", slot.isoformat())
    spent = job(database_url, tmp_path, *asked, "--scheduled")
    assert (spent.returncode, spent.stderr) == (4, "")
    assert "failed 4 times, and is not tried again: no disk" in spent.stdout
    assert job(database_url, tmp_path, *asked).returncode == 0


@pytest.mark.parametrize("way", ["scheduler", "serve"])
def test_it_does_what_is_due_until_it_is_told_to_stop(
    engine: Engine, database_url: str, tmp_path: Path, way: str
) -> None:
    open_btc(engine)
    for each in JOBS:
        if each.name not in ("drift", "scale"):
            _done_for_now(engine, each)
    config = tmp_path / "config.yaml"
    config.write_text("scheduler:\n  in_service: true\n")
    here = environment(
        tmp_path,
        LIVEOPS_DATABASE_URL=database_url,
        LIVEOPS_PORT=str(free_port()),
        LIVEOPS_ADMIN_PORT="0",
    )
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", SCHEDULER, way, "--config", str(config)],
            env=here,
            cwd=REPOSITORY,
            stdout=said,
            stderr=said,
        )
    try:
        until(lambda: _is_done(engine, "drift") and _is_done(engine, "scale"))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, (tmp_path / "said").read_text()
    assert runs(engine)["scale"].actor.startswith("scheduler@")


def _done_for_now(engine: Engine, each: Job) -> None:
    """Write down that the newest slots of a job are done, so that none begins meanwhile."""
    now = datetime.now(UTC)
    newest = newest_slot(each.when, now)
    for slot in (newest, newest + each.when.period):
        run = job_runs.claim(engine, each.name, slot, now=now, actor="test")
        assert run is not None
        job_runs.finish(engine, run, succeeded=True, result="ok", now=now, actor="test")


def _is_done(engine: Engine, name: str) -> bool:
    run = runs(engine).get(name)
    return run is not None and run.state is RunState.DONE
