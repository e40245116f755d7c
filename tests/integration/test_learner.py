"""The learner: jobs in the ledger, one process at a time, and what becomes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from api_service import application
from embedded_owner import gone
from ledger import CHALLENGER, NOON, open_btc
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from waiting import until

from bandit.core.errors import LedgerUnavailable, UnknownName
from bandit.core.learner_jobs import JobState, LearnerJob, tonight
from bandit.core.upkeep import UpkeepAction
from bandit.service import learner_jobs
from liveops.clock import VirtualClock
from liveops.learner import Command, Learner, supervised
from liveops.wiring import App

NIGHT = tonight(NOON)
MADE = 'print(\'{"policy": "trees-r1"}\')'


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    open_btc(engine)
    served = application(engine, clock=VirtualClock(NIGHT))
    return replace(served, settings=served.settings.model_copy(update={"home": tmp_path}))


def asked(engine: Engine, *, cause: str = "a run", policy: str = CHALLENGER) -> LearnerJob | None:
    return learner_jobs.request(
        engine,
        policy,
        UpkeepAction.REFRESH_ENCODER,
        cause=cause,
        reason="it drifted",
        now=NOON,
        actor="test",
    )


def python(script: str) -> Command:
    return lambda _: ["-c", script]


@pytest.fixture
def learners(app: App) -> Iterator[Callable[[Command], Learner]]:
    made: list[Learner] = []

    def learner(command: Command) -> Learner:
        made.append(Learner(app, command=command))
        return made[-1]

    yield learner
    for each in made:
        each.stop()


def audited(engine: Engine, action: str) -> int:
    statement = text("SELECT count(*) FROM audit_log WHERE action = :action")
    with engine.connect() as connection:
        return int(connection.execute(statement, {"action": action}).scalar_one())


def state_of(engine: Engine) -> tuple[JobState, int, str | None]:
    [job] = learner_jobs.newest(engine)
    return job.state, job.attempts, job.result


def test_a_job_is_asked_for_once_also_by_several_at_once(engine: Engine) -> None:
    open_btc(engine)
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda i: asked(engine, cause=f"run {i}"), range(8))]
    [job] = [found for found in made if found is not None]
    assert (job.state, job.due_at) == (JobState.WAITING, NIGHT)
    assert learner_jobs.newest(engine) == [job]
    assert audited(engine, "learner_job_requested") == 1
    with pytest.raises(UnknownName):
        asked(engine, policy="nobody")


def test_nothing_is_taken_before_it_is_due(engine: Engine) -> None:
    open_btc(engine)
    asked(engine)
    early = NIGHT - timedelta(seconds=1)
    assert learner_jobs.take(engine, now=early, actor="test") is None
    job = learner_jobs.take(engine, now=NIGHT, actor="test")
    assert job is not None
    assert (job.state, job.attempts) == (JobState.RUNNING, 1)


def test_a_job_that_nobody_is_at_any_more_is_taken_again_three_times_at_most(
    engine: Engine,
) -> None:
    open_btc(engine)
    asked(engine)
    attempts = [learner_jobs.take(engine, now=NIGHT, actor="test") for _ in range(4)]
    assert [None if job is None else job.attempts for job in attempts] == [1, 2, 3, None]
    assert state_of(engine) == (JobState.FAILED, 3, "its learner was gone each time")


@pytest.mark.parametrize("change", ["state = 'waiting'", "result = 'another'", "cause = 'another'"])
def test_a_job_that_ended_stays_as_it_is(engine: Engine, change: str) -> None:
    open_btc(engine)
    job = asked(engine)
    assert job is not None
    learner_jobs.take(engine, now=NIGHT, actor="test")
    ended = learner_jobs.finish(
        engine, job.id, succeeded=True, result="trees-r1", now=NIGHT, actor="test"
    )
    assert ended.state is JobState.DONE
    again = learner_jobs.finish(
        engine, job.id, succeeded=False, result="too late", now=NIGHT, actor="test"
    )
    assert again == ended
    statement = text(f"UPDATE learner_jobs SET {change}")
    with pytest.raises(DBAPIError, match="stays"), engine.begin() as connection:
        connection.execute(statement)


def test_a_job_is_done_by_a_process_of_its_own(
    app: App, engine: Engine, learners: Callable[[Command], Learner]
) -> None:
    learner = learners(python(MADE))
    learner.tick()
    assert learner.job is None, "nothing was asked for"
    asked(engine)
    until(lambda: state_of(engine)[0] is JobState.DONE, learner.tick)
    assert state_of(engine) == (JobState.DONE, 1, "trees-r1")
    assert learner.job is None


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ("raise SystemExit('candles: must have bars')", "candles: must have bars"),
        ("raise SystemExit(4)", "ended with 4 and said nothing"),
        ("print('no document')", "ended with 0 and said nothing"),
    ],
)
def test_one_that_fails_three_times_has_failed_and_says_why(
    app: App,
    engine: Engine,
    learners: Callable[[Command], Learner],
    script: str,
    result: str,
) -> None:
    learner = learners(python(script))
    asked(engine)
    clock = app.clock
    assert isinstance(clock, VirtualClock)

    def tick() -> None:
        clock.advance_to(clock.now() + timedelta(seconds=10))
        learner.tick()

    until(lambda: state_of(engine)[0] is JobState.FAILED, tick)
    assert state_of(engine) == (JobState.FAILED, 3, result)


def test_of_two_hosts_one_does_the_jobs_and_the_other_takes_over(
    engine: Engine, learners: Callable[[Command], Learner]
) -> None:
    first, second = learners(python("import time; time.sleep(600)")), learners(python(MADE))
    asked(engine)
    first.tick()
    second.tick()
    assert first.job is not None
    assert second.job is None
    first.stop()
    assert state_of(engine)[:2] == (JobState.WAITING, 0)
    assert audited(engine, "learner_job_given_back") == 1
    until(lambda: state_of(engine)[0] is JobState.DONE, second.tick)


def test_one_that_is_stuck_is_begun_again(
    app: App, engine: Engine, tmp_path: Path, learners: Callable[[Command], Learner]
) -> None:
    pids = tmp_path / "pids"
    script = (
        f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(600)"
    )
    learner = learners(python(script))
    assert learner.restart("nothing runs") is None
    asked(engine)
    until(lambda: pids.exists() and len(pids.read_text().split()) == 1, learner.tick)
    job = learner.restart("gpu_util_pct 97 while it says nothing")
    assert job == learner.job
    until(lambda: len(pids.read_text().split()) == 2, learner.tick)
    old, new = map(int, pids.read_text().split())
    assert gone(old)
    assert state_of(engine)[:2] == (JobState.RUNNING, 1), "a restart is no attempt"
    assert audited(engine, "learner_restarted") == 1
    learner.stop()
    assert gone(new)
    assert state_of(engine)[:2] == (JobState.WAITING, 0)


def test_what_it_says_is_progress(engine: Engine, app: App, tmp_path: Path) -> None:
    now = [0.0]
    more = tmp_path / "more"
    script = (
        "import sys, time, pathlib\n"
        f"while not pathlib.Path({str(more)!r}).exists(): time.sleep(0.01)\n"
        "print('a tenth', file=sys.stderr, flush=True); time.sleep(600)"
    )
    learner = Learner(app, command=python(script), clock=lambda: now[0])
    try:
        assert learner.silent_seconds == 0.0
        asked(engine)
        until(lambda: learner.job is not None, learner.tick)
        now[0] = 700.0
        learner.tick()
        assert learner.silent_seconds == 700.0
        more.touch()
        until(lambda: learner.silent_seconds == 0.0, learner.tick)
    finally:
        learner.stop()


def test_a_ledger_that_goes_away_ends_what_another_host_may_take_up(
    engine: Engine, app: App, tmp_path: Path, learners: Callable[[Command], Learner]
) -> None:
    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    learner = learners(python(script))
    asked(engine)
    until(lambda: pid.exists() and bool(pid.read_text()), learner.tick)
    with engine.connect() as other:
        other.execute(
            text(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d"
                " ON d.oid = l.database WHERE l.locktype = 'advisory' AND l.classid = 5"
                " AND d.datname = current_database()"
            )
        )
    with pytest.raises(LedgerUnavailable):
        learner.tick()
    assert gone(int(pid.read_text()))
    assert learner.job is None
    until(lambda: learner.job is not None, learner.tick)
    assert state_of(engine)[:2] == (JobState.RUNNING, 2)


def test_its_process_dies_with_the_supervisor(
    engine: Engine, database_url: str, app: App, tmp_path: Path
) -> None:
    asked(engine)
    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    told = json.dumps({"url": database_url, "home": str(tmp_path), "script": script})
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, told]) as supervisor:
        try:
            until(lambda: pid.exists() and bool(pid.read_text()))
        finally:
            supervisor.kill()
    assert gone(int(pid.read_text()))


SUPERVISOR = f"""
import json, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of what a shell starts in the background
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from dataclasses import replace
from pathlib import Path
from api_service import application
from bandit.storage.engine import connect
from liveops.clock import VirtualClock
from liveops.learner import supervised
from ledger import NOON
from bandit.core.learner_jobs import tonight
told = json.loads(sys.argv[1])
app = application(connect(told["url"]), clock=VirtualClock(tonight(NOON)))
app = replace(app, settings=app.settings.model_copy(update={{"home": Path(told["home"])}}))
with supervised(app, command=lambda _: ["-c", told["script"]]):
    time.sleep(600)
"""


def test_supervised_works_through_what_is_asked_for(app: App, engine: Engine) -> None:
    with supervised(app, command=python(MADE)):
        asked(engine)
        until(lambda: state_of(engine)[0] is JobState.DONE)
