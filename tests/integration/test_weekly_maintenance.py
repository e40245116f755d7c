"""The week's tasks: limits, failures, dry runs, and what the command prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from embedded_owner import gone
from ledger import count, open_btc
from sqlalchemy import Engine, text

from bandit.core.job_runs import RunState, key_of
from bandit.service import job_runs
from bandit.storage.locks import Lease, LockClass
from config.settings import Settings
from liveops import cli
from liveops.clock import SystemClock, now
from liveops.job_runner import Command, Runner
from liveops.maintenance.days import moment_of
from liveops.maintenance.tasks import (
    DEMO_SECONDS_MAX,
    TASKS,
    Task,
    WeeklyTask,
    jobs_of,
    limits_of,
    week_of,
)
from liveops.maintenance.weekly import TaskReport, TaskState, do, rehearse
from liveops.schedule import Job

SLOT = week_of(now())
ARMS = [("one", "1" * 8), ("two", "2" * 8), ("three", "3" * 8)]
# Begins something that outlives it, unless its whole group is ended.
LINGERS = """
import subprocess, sys, threading
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
Path(sys.argv[1]).write_text(str(child.pid))
threading.Event().wait()
"""


def python(scripts: Mapping[str, str], *arguments: str) -> Command:
    return lambda job, _: ["-c", scripts[job.name.partition(".")[2]], *arguments]


def jobs(*names: WeeklyTask, seconds: int = 60) -> list[Job]:
    known = [Task(name=name, meaning="a drill", command=("drill",)) for name in names]
    limits = dict.fromkeys(WeeklyTask, seconds)
    return jobs_of(WeeklyTask.FULL, limits, demo=False, tasks=known)


def runner(engine: Engine, home: Path, command: Command) -> Runner:
    return Runner(engine, SystemClock(), logs=home, command=command, actor="test")


def done(engine: Engine, home: Path, command: Command, tasks: list[Job]) -> list[TaskReport]:
    made = runner(engine, home, command)
    return [do(made, job, SLOT, stop=Event()) for job in tasks]


def test_a_task_over_its_limit_is_ended_with_all_it_began_and_the_next_is_tried(
    engine: Engine, tmp_path: Path
) -> None:
    began = tmp_path / "pid"
    command = python({"purge": LINGERS, "verify": 'print(\'{"done": ["looked"]}\')'}, str(began))
    slow, quick = jobs(WeeklyTask.PURGE, seconds=3), jobs(WeeklyTask.VERIFY)
    purge, verify = done(engine, tmp_path / "logs", command, [*slow, *quick])
    assert (purge.state, purge.made) == (TaskState.FAILED, ("ended at its limit of 3 s",))
    assert gone(int(began.read_text()))
    assert (verify.state, verify.made) == (TaskState.DONE, ("looked",))
    run = job_runs.find(engine, "maintenance.purge", SLOT)
    assert run is not None
    assert run.state is RunState.FAILED


def test_what_failed_is_tried_again_and_what_is_done_is_not(engine: Engine, tmp_path: Path) -> None:
    """The first task fails as long as a file is missing; the second counts how often it is done."""
    needs = "import sys; from pathlib import Path; sys.exit('no file') if not Path(sys.argv[1])"
    counts = "import sys; open(sys.argv[1] + '.count', 'a').write('x'); print('{\"done\": []}')"
    needed = tmp_path / "file"
    command = python({"purge": f"{needs}.exists() else 0", "verify": counts}, str(needed))
    both = jobs(WeeklyTask.PURGE, WeeklyTask.VERIFY)
    logs = tmp_path / "logs"
    first = done(engine, logs, command, both)
    assert [(r.state, r.made) for r in first] == [
        (TaskState.FAILED, ("no file",)),
        (TaskState.DONE, ()),
    ]
    needed.touch()
    second = done(engine, logs, command, both)
    assert [r.state for r in second] == [TaskState.DONE, TaskState.DONE_BEFORE]
    assert [r.state for r in done(engine, logs, command, both)] == [TaskState.DONE_BEFORE] * 2
    assert Path(f"{needed}.count").read_text() == "x"


def test_a_task_that_another_process_is_at_is_told_and_the_next_is_tried(
    engine: Engine, tmp_path: Path
) -> None:
    lease = Lease(engine, LockClass.JOB, key_of("maintenance.purge"))
    assert lease.hold()
    command = python({"verify": 'print(\'{"done": ["looked"]}\')'})
    purge, verify = done(engine, tmp_path, command, jobs(WeeklyTask.PURGE, WeeklyTask.VERIFY))
    lease.leave()
    assert (purge.state, purge.state.is_failure) == (TaskState.BUSY, True)
    assert "maintenance.purge: another process is at it now" in purge.made[0]
    assert verify.state is TaskState.DONE
    assert count(engine, "job_runs") == 1


def test_a_task_whose_work_another_process_does_is_left_to_the_next_call(
    engine: Engine, tmp_path: Path
) -> None:
    """As where a rotation of the night still trains when the week's retraining is due."""
    busy = "import sys; print('lock_held_elsewhere: rotation', file=sys.stderr); sys.exit(3)"
    looks = 'print(\'{"done": ["looked"]}\')'
    both = jobs(WeeklyTask.RETRAIN, WeeklyTask.VERIFY)
    for _ in range(2):
        retrain, verify = done(engine, tmp_path, python({"retrain": busy, "verify": looks}), both)
        assert (retrain.state, retrain.made) == (
            TaskState.BUSY,
            ("lock_held_elsewhere: rotation",),
        )
        run = job_runs.find(engine, "maintenance.retrain", SLOT)
        assert run is not None
        assert (run.state, run.result) == (RunState.RUNNING, None)
    assert verify.state is TaskState.DONE_BEFORE
    free = python({"retrain": 'print(\'{"done": ["trained"]}\')'})
    [retrain] = done(engine, tmp_path, free, both[:1])
    assert (retrain.state, retrain.made) == (TaskState.DONE, ("trained",))


def test_a_task_whose_log_is_on_a_full_disk_fails_and_the_next_is_tried(
    engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "maintenance.snapshot.log").symlink_to("/dev/full")
    command = python({"snapshot": "pass", "verify": 'print(\'{"done": ["looked"]}\')'})
    both = jobs(WeeklyTask.SNAPSHOT, WeeklyTask.VERIFY)
    snapshot, verify = done(engine, tmp_path, command, both)
    assert (snapshot.state, snapshot.made) == (
        TaskState.FAILED,
        ("[Errno 28] No space left on device",),
    )
    assert verify.state is TaskState.DONE
    run = job_runs.find(engine, "maintenance.snapshot", SLOT)
    assert run is not None
    assert run.state is RunState.FAILED


def test_a_stop_leaves_the_task_to_whoever_comes_next(engine: Engine, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    command = python({"purge": "import threading; threading.Event().wait()"})
    [job] = jobs(WeeklyTask.PURGE)
    report = do(runner(engine, tmp_path, command), job, SLOT, stop=stop)
    assert (report.state, report.state.is_failure) == (TaskState.STOPPED, True)
    assert report.made == ("the next run goes on with it",)
    again = python({"purge": 'print(\'{"done": ["swept"]}\')'})
    [report] = done(engine, tmp_path, again, [job])
    assert (report.state, report.made) == (TaskState.DONE, ("swept",))
    run = job_runs.find(engine, job.name, SLOT)
    assert run is not None
    assert run.attempts == 2


def test_a_rehearsal_claims_nothing_and_says_what_the_command_would_do(
    engine: Engine, tmp_path: Path
) -> None:
    script = "import json, sys; print(json.dumps({'done': sys.argv[1:]}))"
    [job] = jobs(WeeklyTask.PURGE)

    def rehearsed(script: str, *, seconds: int = 60, stop: bool = False) -> tuple[TaskState, Any]:
        [limited] = jobs(WeeklyTask.PURGE, seconds=seconds)
        stopped = Event()
        if stop:
            stopped.set()
        report = rehearse(engine, python({"purge": script}), limited, SLOT, stop=stopped)
        return report.state, report.made

    assert rehearsed(script) == (TaskState.WOULD, ("--dry-run",))
    assert rehearsed("import sys; sys.exit('no such thing')") == (
        TaskState.WOULD_FAIL,
        ("no such thing",),
    )
    waits = "import threading; threading.Event().wait()"
    assert rehearsed(waits, seconds=1) == (
        TaskState.WOULD_FAIL,
        ("ended at its limit of 1 s",),
    )
    assert rehearsed(waits, stop=True)[0] is TaskState.STOPPED
    assert count(engine, "job_runs") == 0
    done(engine, tmp_path, python({"purge": script}, "swept"), [job])
    assert rehearsed("raise SystemExit(1)") == (TaskState.DONE_BEFORE, ("swept",))


@pytest.fixture
def weekly(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path / "var"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.exit_code(cli.maintenance_app, arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_command_does_a_task_once_a_week_and_shows_it(
    engine: Engine, weekly: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    moment = moment_of(SLOT.date(), now=now())  # what the tasks of the week count from
    open_btc(engine, now=moment - timedelta(days=100), challengers=ARMS)
    code, out, err = weekly("--task", "purge", "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["failed"], told["dry_run"]) == (0, 0, True)
    [task] = told["tasks"]
    assert (task["task"], task["state"]) == ("maintenance.purge", "would be done")
    assert task["made"] == ["would archive two: 100 days old, limit 60"]
    assert count(engine, "policy_archivals") == count(engine, "job_runs") == 0

    code, out, err = weekly("--task", "purge")
    assert code == 0
    assert "archived two: 100 days old, limit 60" in out
    assert err.splitlines()[-1].startswith("maintenance.purge done, ")
    assert count(engine, "policy_archivals") == 1
    log = tmp_path / "var" / "logs" / "maintenance.purge.log"
    assert '"purged": true' in log.read_text()

    code, out, err = weekly("--task", "purge", "--json")
    assert code == 0
    assert json.loads(out)["done"] == ["maintenance.purge: done before"]
    assert json.loads(out)["week"] == SLOT.isoformat()
    assert count(engine, "policy_archivals") == 1


def test_a_task_that_fails_makes_the_command_fail_and_the_lock_another_code(
    engine: Engine, weekly: Callable[..., tuple[int, str, str]]
) -> None:
    open_btc(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE arm_statistics SET fees = 7"))
    code, out, _ = weekly("--task", "verify", "--json")
    [task] = json.loads(out)["tasks"]
    assert (code, task["state"]) == (1, "failed")
    assert task["made"] == ["not to be relied on: statistics"]
    lease = Lease(engine, LockClass.JOB, key_of("maintenance.verify"))
    assert lease.hold()
    code, out, err = weekly("--task", "verify", "--json")
    assert (code, json.loads(out)["tasks"][0]["state"]) == (3, "busy")
    assert "maintenance.verify: another process is at it now" in err
    lease.leave()
    assert weekly("--task", "everything")[0] == 2
    assert weekly("--date", "2999-01-01")[0] == 2


def test_beside_a_rotation_the_week_exits_3_and_retrains_when_that_is_over(
    engine: Engine, weekly: Callable[..., tuple[int, str, str]]
) -> None:
    open_btc(engine)
    rotation = Lease(engine, LockClass.ROTATION, 0)
    assert rotation.hold()
    code, out, err = weekly("--task", "retrain", "--json")
    told = json.loads(out)
    assert (code, told["done"]) == (3, ["maintenance.retrain: busy"])
    assert told["tasks"][0]["made"] == [
        "lock_held_elsewhere: rotation: another process is at it now"
    ]
    assert "maintenance.retrain: another process is at it now" in err
    rotation.leave()
    code, out, _ = weekly("--task", "retrain", "--json")
    assert (code, json.loads(out)["done"]) == (0, ["maintenance.retrain: done"])


def test_all_limits_fit_in_six_hours_and_those_of_the_demo_in_a_quarter() -> None:
    limits = limits_of(Settings().maintenance)
    assert set(limits) == {task.name.value for task in TASKS}
    full = jobs_of(WeeklyTask.FULL, limits, demo=False)
    assert [job.name for job in full] == [
        f"maintenance.{name}"
        for name in ("snapshot", "retrain", "optuna", "purge", "database", "verify")
    ]
    assert sum(job.limit_seconds for job in full) < 6 * 3600
    demo = jobs_of(WeeklyTask.FULL, limits, demo=True)
    assert sum(job.limit_seconds for job in demo) <= DEMO_SECONDS_MAX
