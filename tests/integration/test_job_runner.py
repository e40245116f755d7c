"""One slot of a job: its child, its limit, its claim, and the jobs that come before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from embedded_owner import gone
from ledger import NIGHT
from sqlalchemy import Engine
from waiting import until

from bandit.core.errors import FenceLost, LockHeldElsewhere
from bandit.core.job_runs import RETRY_AFTER, RunState, key_of
from bandit.service import job_runs
from bandit.storage.locks import Lease, LockClass
from liveops import job_runner
from liveops.clock import SystemClock, VirtualClock
from liveops.job_runner import Attempt, Command, Outcome, Runner, cli_command
from liveops.schedule import JOBS, Job, job_named, newest_slot
from liveops.scheduler import Scheduler

DATA, ROTATION = job_named("data"), job_named("rotation")
Scripts = Mapping[str, str]


def scripted(scripts: Scripts) -> Command:
    return lambda job, _: ["-I", "-S", "-c", scripts[job.name]]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def ran(engine: Engine, logs: Path) -> Callable[..., Attempt]:
    """Run a slot of the data job whose command is a script."""

    def run(script: str, *, job: Job = DATA, is_scheduled: bool = True) -> Attempt:
        clock = VirtualClock(NIGHT)
        command = scripted({job.name: script})
        runner = Runner(engine, clock, logs=logs, command=command, actor="test")
        return runner.run(job, NIGHT, stop=threading.Event(), is_scheduled=is_scheduled)

    return run


def result(done: Attempt) -> str | None:
    assert done.run is not None
    return done.run.result


SAYS = "import sys; print('looking', file=sys.stderr); "


def test_what_a_command_answers_is_the_result_and_its_log_has_all(
    ran: Callable[..., Attempt], logs: Path
) -> None:
    done = ran(SAYS + 'print(\'{\\n "done": ["a"]\\n}\')')
    assert (done.outcome, result(done)) == (Outcome.DONE, '{"done":["a"]}')
    first, *said = (logs / "data.log").read_text().splitlines()
    assert first == "--- data of 2026-03-03T02:00:00+00:00, attempt 1"
    assert said == ["looking", "{", ' "done": ["a"]', "}"]
    assert [path.name for path in logs.iterdir()] == ["data.log"]


def test_a_slot_that_is_done_is_not_run_again(ran: Callable[..., Attempt], logs: Path) -> None:
    assert ran("pass").outcome is Outcome.DONE
    again = ran("raise SystemExit(1)", is_scheduled=False)
    assert again.outcome is Outcome.DONE_BEFORE
    assert (logs / "data.log").read_text().count("---") == 1


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (SAYS + "sys.exit('no disk')", "no disk"),
        ("print('half'); raise SystemExit(5)", "half"),
        ("import os; os._exit(9)", "exit code 9, and nothing said"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9, and nothing said"),
    ],
)
def test_what_fails_says_why(ran: Callable[..., Attempt], script: str, said: str) -> None:
    done = ran(script)
    assert (done.outcome, result(done)) == (Outcome.FAILED, said)


def test_schedulers_try_a_slot_four_times_and_a_person_as_often_as_wanted(
    ran: Callable[..., Attempt],
) -> None:
    tries = [ran("raise SystemExit(1)").outcome for _ in range(5)]
    assert tries == [Outcome.FAILED] * 4 + [Outcome.SPENT]
    by_hand = ran("pass", is_scheduled=False)
    assert by_hand.outcome is Outcome.DONE
    assert by_hand.run is not None
    assert by_hand.run.attempts == 5


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "BUSY_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_command_that_finds_another_at_its_work_waits_for_it_in_one_try(
    ran: Callable[..., Attempt], tmp_path: Path
) -> None:
    """It exits 3 twice, as a backup does beside another one."""
    tries = str(tmp_path / "tries")
    script = (
        f"import os; n = os.path.getsize({tries!r}) if os.path.exists({tries!r}) else 0\n"
        f"open({tries!r}, 'a').write('x')\n"
        "raise SystemExit(0 if n == 2 else 3)"
    )
    done = ran(script)
    assert (done.outcome, Path(tries).read_text()) == (Outcome.DONE, "xxx")
    assert done.run is not None
    assert done.run.attempts == 1


@pytest.mark.usefixtures("impatient")
def test_it_waits_no_longer_than_its_limit_and_not_for_a_person(
    ran: Callable[..., Attempt], logs: Path
) -> None:
    script = "import sys; print('another is at it', file=sys.stderr); sys.exit(3)"
    by_hand = ran(script, is_scheduled=False)
    assert (by_hand.outcome, by_hand.why) == (Outcome.BUSY, "another is at it")
    assert by_hand.run is not None
    assert (by_hand.run.state, by_hand.run.result) == (RunState.RUNNING, None)
    assert (logs / "data.log").read_text().count("---") == 1
    late = ran(script, job=replace(DATA, limit_seconds=3))
    assert late.outcome is Outcome.FAILED
    assert result(late) in ("another is at it", "ended at its limit of 3 s")
    assert late.run is not None
    assert late.run.attempts == 2
    assert (logs / "data.log").read_text().count("---") > 2


def fill_disk(logs: Path) -> None:
    """Let the log of the data job lie on a disk that is full."""
    logs.mkdir()
    (logs / "data.log").symlink_to("/dev/full")


def test_a_runner_whose_disk_is_full_says_so_of_the_slot(
    ran: Callable[..., Attempt], logs: Path
) -> None:
    fill_disk(logs)
    done = ran("pass")
    assert (done.outcome, result(done)) == (
        Outcome.FAILED,
        "[Errno 28] No space left on device",
    )


@pytest.mark.parametrize(
    ("ends", "outcome", "said"),
    [
        ('print(\'{"done": ["a"]}\')', Outcome.DONE, '{"done":["a"]}'),
        ("raise SystemExit(5)", Outcome.FAILED, "exit code 5, and nothing said"),
    ],
)
def test_how_a_command_ended_counts_also_where_its_log_cannot_be_written(
    ran: Callable[..., Attempt], logs: Path, ends: str, outcome: Outcome, said: str
) -> None:
    log = str(logs / "data.log")
    done = ran(f"import os; os.unlink({log!r}); os.mkdir({log!r}); {ends}")
    assert (done.outcome, result(done)) == (outcome, said)
    assert [path.name for path in logs.iterdir()] == ["data.log"]


def test_a_slot_whose_runners_all_vanished_has_failed(
    engine: Engine, ran: Callable[..., Attempt]
) -> None:
    for _ in range(4):
        job_runs.claim(engine, "data", NIGHT, now=NIGHT, actor="gone")
    done = ran("pass")
    assert (done.outcome, result(done)) == (Outcome.SPENT, "left by whoever ran it, each time")
    [kept] = job_runs.newest(engine)
    assert kept.state is RunState.FAILED


def test_at_its_limit_a_job_is_ended_with_all_that_it_started(
    ran: Callable[..., Attempt], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    script = (
        "import os, subprocess, sys, time\n"
        f"inner = subprocess.Popen([sys.executable, '-I', '-S', '-c', {deaf!r}])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{inner.pid}}')\n"
        "time.sleep(600)"
    )
    done = ran(script, job=replace(DATA, limit_seconds=2))
    assert (done.outcome, result(done)) == (Outcome.FAILED, "ended at its limit of 2 s")
    for pid in pids.read_text().split():
        until(lambda pid=pid: gone(int(pid)))


def test_of_two_at_a_job_the_second_is_told(engine: Engine, ran: Callable[..., Attempt]) -> None:
    other = Lease(engine, LockClass.JOB, key_of("data"))
    assert other.hold()
    with pytest.raises(LockHeldElsewhere, match="data: another process is at it now"):
        ran("pass")
    other.leave()
    assert ran("pass").outcome is Outcome.DONE


def test_stopped_it_leaves_the_slot_to_the_next(engine: Engine, logs: Path) -> None:
    stop, begun = threading.Event(), logs / "begun"
    script = f"import time; open({str(begun)!r}, 'w').close(); time.sleep(600)"
    runner = Runner(
        engine, SystemClock(), logs=logs, command=scripted({"data": script}), actor="test"
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(runner.run, DATA, NIGHT, stop=stop, is_scheduled=True)
        try:
            until(begun.exists)
        finally:
            stop.set()
        assert running.result().outcome is Outcome.LEFT
    assert job_runs.newest(engine)[0].state is RunState.RUNNING


def test_who_was_overtaken_writes_no_end(engine: Engine, logs: Path) -> None:
    """A process that comes back after another took its slot: what it did counts no more."""
    begun, go = logs / "begun", logs / "go"
    script = (
        f"import os, time; open({str(begun)!r}, 'w').close()\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)"
    )
    runner = Runner(
        engine, SystemClock(), logs=logs, command=scripted({"data": script}), actor="zombie"
    )
    with ThreadPoolExecutor(1) as pool:
        stop = threading.Event()
        running = pool.submit(runner.run, DATA, NIGHT, stop=stop, is_scheduled=True)
        try:
            until(begun.exists)
            taken = job_runs.claim(engine, "data", NIGHT, now=NIGHT, actor="next")
        finally:
            go.touch()
        with pytest.raises(FenceLost):
            running.result()
    assert job_runs.newest(engine) == [taken]


def test_the_night_keeps_its_order(engine: Engine, logs: Path) -> None:
    """Data and scaling at once, models after the data: seen from what the ledger wrote down."""
    night = newest_slot(DATA.when, SystemClock().now())
    jobs = [job_named(name) for name in ("data", "scale", "rotation", "maintenance")]
    lasting = {"data": "import time; time.sleep(3)"}
    scripts = {job.name: lasting.get(job.name, "pass") for job in jobs}
    runner = Runner(engine, SystemClock(), logs=logs, command=scripted(scripts), actor="test")
    sunday = newest_slot(job_named("maintenance").when, night + timedelta(days=7))
    with ThreadPoolExecutor(4) as pool:
        stop = threading.Event()

        def begin(job: Job, slot: datetime) -> Attempt:
            return runner.run(job, slot, stop=stop, is_scheduled=True)

        first = sunday.replace(hour=2)
        slots = {"data": first, "scale": first, "rotation": first, "maintenance": sunday}
        ends = [pool.submit(begin, job, slots[job.name]) for job in reversed(jobs)]
        assert {end.result().outcome for end in ends} == {Outcome.DONE}
    runs = {run.job: run for run in job_runs.newest(engine)}
    assert runs["scale"].changed_at < runs["data"].changed_at
    for later in ("rotation", "maintenance"):
        assert runs[later].began_at >= runs["data"].changed_at


def test_a_job_is_told_the_day_of_its_slot_and_what_the_installation_runs_with() -> None:
    command = cli_command(config=Path("/etc/liveops.yaml"), demo=True)
    assert command(ROTATION, NIGHT) == [
        *("-c", "from liveops.cli import scheduled_retrain; scheduled_retrain()"),
        *("--date", "2026-03-03", "--json", "--config", "/etc/liveops.yaml", "--demo"),
    ]
    assert command(job_named("drift"), NIGHT)[1:4] == [
        "from liveops.cli import main; main()",
        *("drift", "--all"),
    ]


# The scheduler, by a clock that is moved: one thread, real jobs, no process of its own.


class Steps:
    """A scheduler with its clock, and what its jobs did."""

    def __init__(self, engine: Engine, logs: Path, *, script: str = "pass") -> None:
        self.engine = engine
        self.clock = VirtualClock(NIGHT)
        self.seconds = 0.0
        command = scripted({job.name: script for job in JOBS})
        runner = Runner(engine, self.clock, logs=logs, command=command, actor="scheduler")
        self.scheduler = Scheduler(
            engine, self.clock, runner, jobs=[DATA], monotonic=lambda: self.seconds
        )

    def done(self) -> list[datetime]:
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT slot FROM job_runs WHERE state = 'done' ORDER BY slot"
            )
            return list(found.scalars())


@pytest.fixture
def steps(engine: Engine, logs: Path) -> Steps:
    return Steps(engine, logs)


def test_whoever_takes_the_lead_does_the_newest_slot_and_no_older_one(steps: Steps) -> None:
    steps.clock.advance_to(NIGHT + timedelta(days=5, hours=7))
    steps.scheduler.tick()
    try:
        until(lambda: steps.done() == [NIGHT + timedelta(days=5)])
    finally:
        steps.scheduler.stop()


def test_a_clock_that_jumps_has_the_newest_slot_done_and_those_between_left_out(
    steps: Steps,
) -> None:
    steps.scheduler.tick()
    until(lambda: steps.done() == [NIGHT])
    try:
        steps.clock.advance_to(NIGHT + timedelta(days=3, hours=1))
        steps.seconds += 1
        steps.scheduler.tick()
        until(lambda: steps.done() == [NIGHT, NIGHT + timedelta(days=3)])
    finally:
        steps.scheduler.stop()


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01"])
def test_on_days_on_which_clocks_change_the_night_comes_once(steps: Steps, day: str) -> None:
    """Every half hour of the day that is 23 or 25 hours long in Berlin or in New York."""
    steps.clock.advance_to(datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    wanted = datetime.fromisoformat(f"{day}T02:00:00+00:00")
    steps.scheduler.tick()
    try:
        until(lambda: steps.done() == [wanted - timedelta(days=1)])
        for half_hours in range(1, 48):
            steps.clock.advance_to(wanted.replace(hour=0) + timedelta(minutes=30 * half_hours))
            steps.scheduler.tick()  # the clock went by, time did not: it looks each time
        until(lambda: steps.done()[1:] == [wanted])
    finally:
        steps.scheduler.stop()
    assert steps.done()[1:] == [wanted]


@pytest.mark.parametrize("is_full", [False, True])
def test_what_failed_rests_for_a_quarter_of_an_hour(
    engine: Engine, logs: Path, is_full: bool
) -> None:
    if is_full:
        fill_disk(logs)
    steps = Steps(engine, logs, script="raise SystemExit(1)")

    def attempts() -> int:
        return sum(run.attempts for run in job_runs.newest(engine) if run.state == "failed")

    steps.scheduler.tick()
    try:
        until(lambda: attempts() == 1)
        for wanted in (2, 3, 4):
            steps.clock.advance_to(steps.clock.now() + RETRY_AFTER)
            steps.scheduler.tick()
            until(lambda wanted=wanted: attempts() == wanted)
        steps.clock.advance_to(steps.clock.now() + RETRY_AFTER)
        steps.scheduler.tick()
    finally:
        steps.scheduler.stop()
    assert attempts() == 4


def test_of_two_schedulers_one_leads_and_the_other_follows(engine: Engine, logs: Path) -> None:
    first, second = Steps(engine, logs), Steps(engine, logs)
    first.scheduler.tick()
    second.scheduler.tick()
    assert (first.scheduler.leads, second.scheduler.leads) == (True, False)
    first.scheduler.stop()
    second.scheduler.tick()
    assert (first.scheduler.leads, second.scheduler.leads) == (False, True)
    second.scheduler.stop()
