"""The monitor that goes on: what a look finds, what it does once, and what stops it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from api_service import application
from drift_runs import a_run, an_encoder_check
from fake_nvml import FakeNvml
from ledger import CHALLENGER, NOON, feed, open_btc
from sqlalchemy import Engine, text
from waiting import until

from bandit.core.errors import LockHeldElsewhere, UnknownName
from bandit.core.learner_jobs import JobState, tonight
from bandit.core.model import ArmStatus, PolicySha
from bandit.service import drift, experiments, learner_jobs, recording
from liveops.clock import VirtualClock
from liveops.learner import STUCK_SECONDS, Learner
from liveops.monitoring import Look, Monitor, monitor_until
from liveops.wiring import App

RECIPE = {"learner": "tabnet", "options": {"candles": None}}
NOTHING = Look(at=NOON, experiments=("btc",))


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    open_btc(engine)
    served = application(engine, clock=VirtualClock(NOON))
    return replace(served, settings=served.settings.model_copy(update={"home": tmp_path}))


def monitor_of(app: App, *, learner: Learner | None = None, is_dry: bool = False) -> Monitor:
    return Monitor(app=app, policy=CHALLENGER, learner=learner, is_dry=is_dry)


def drifted(engine: Engine, *, hours: float = 0.0) -> None:
    sha, at = PolicySha("eee02a74"), NOON + timedelta(hours=hours)
    check = an_encoder_check(0.41, raw=1.11, null_median=0.7, null_p99=0.95)
    drift.record(engine, a_run(check, sha=sha, hours=hours), now=at, actor="test")


def test_where_nothing_is_flagged_nothing_is_done(app: App) -> None:
    assert monitor_of(app).look() == NOTHING


def test_an_encoder_that_drifted_is_refreshed_tonight_and_asked_for_once(
    app: App, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    drifted(engine)
    learner_jobs.keep_recipe(engine, CHALLENGER, RECIPE, now=NOON)
    monitor = monitor_of(app)
    with caplog.at_level(logging.INFO):
        first, second = monitor.look(), monitor.look()
    [flag] = first.flags
    assert flag.text == f"btc/{CHALLENGER}: encoder_kl_divergence 0.41, limit 0.3"
    night = f"{tonight(NOON):%Y-%m-%d %H:%M}"
    assert first.done == (f"asked for an encoder refresh of {CHALLENGER} at {night} UTC",)
    assert (second.flags, second.done) == (first.flags, ())
    [job] = learner_jobs.newest(engine)
    assert (job.state, job.due_at, job.reason) == (JobState.WAITING, tonight(NOON), flag.text)
    alerts = [record.getMessage() for record in caplog.records]
    assert alerts == [f"[ALERT] {flag.text}: refresh_encoder"], "told once"

    # Another one finds it asked for, and a later check that passes ends the flag.
    assert monitor_of(app).look().done == ()
    better = an_encoder_check(0.1)
    later = NOON + timedelta(hours=5)
    run = a_run(better, sha=PolicySha("eee02a74"), hours=5)
    drift.record(engine, run, now=later, actor="test")
    with caplog.at_level(logging.INFO):
        assert monitor.look().flags == ()
    assert caplog.records[-1].getMessage() == f"over: {flag.text}"


def test_an_encoder_of_unknown_making_cannot_be_refreshed_and_that_is_said_once(
    app: App, engine: Engine
) -> None:
    drifted(engine)
    monitor = monitor_of(app)
    said = f"the encoder of {CHALLENGER} cannot be refreshed: how it was made is not known"
    assert [monitor.look().done for _ in range(3)] == [(said,), (), ()]
    assert learner_jobs.newest(engine) == []


def test_a_dry_run_says_what_it_would_do(app: App, engine: Engine) -> None:
    drifted(engine)
    learner_jobs.keep_recipe(engine, CHALLENGER, RECIPE, now=NOON)
    told = monitor_of(app, is_dry=True).look()
    assert told.done == (f"would ask for an encoder refresh of {CHALLENGER} tonight",)
    assert learner_jobs.newest(engine) == []
    monitor_of(app).look()
    assert monitor_of(app, is_dry=True).look().done == (), "it is asked for"
    json.dumps(told.to_json(), allow_nan=False)


def test_an_arm_that_the_guard_has_left_is_stopped(
    app: App, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(recording, "guard_outcomes", lambda *_, **__: [])
        feed(engine, CHALLENGER, ["0.001", "-0.001"] * 15)
    dry = monitor_of(app, is_dry=True).look()
    assert [flag.row.action for flag in dry.flags] == ["throttle"]
    assert dry.done == (f"would throttle btc/{CHALLENGER}",)
    look = monitor_of(app).look()
    assert look.done == (f"btc/{CHALLENGER}: throttle",)
    [arm] = [a for a in experiments.load(engine, "btc").places if a.policy == CHALLENGER]
    assert arm.status is ArmStatus.THROTTLED
    assert monitor_of(app).look().done == ()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(busy_percent=97).install(monkeypatch)


@pytest.mark.usefixtures("busy")
def test_a_learner_that_keeps_the_gpu_busy_and_says_nothing_is_begun_again(
    app: App, engine: Engine
) -> None:
    now = [0.0]
    clock = app.clock
    assert isinstance(clock, VirtualClock)
    drifted(engine)
    learner_jobs.keep_recipe(engine, CHALLENGER, RECIPE, now=NOON)
    learner = Learner(
        app, command=lambda _: ["-c", "import time; time.sleep(600)"], clock=lambda: now[0]
    )
    monitor = monitor_of(app, learner=learner)
    app.gpus.look()
    try:
        assert [flag.policy for flag in monitor.look().flags] == [CHALLENGER, ""]
        assert monitor.look().done == (), "no learner is at work"
        clock.advance_to(tonight(NOON))
        learner.tick()
        now[0] = STUCK_SECONDS - 1
        assert monitor.look().done == ()
        now[0] = STUCK_SECONDS
        why = "gpu_util_pct 97 while it says nothing"
        assert monitor_of(app, learner=learner, is_dry=True).look().done == (
            f"would begin the learner again: {why}",
        )
        assert monitor.look().done == (f"began the learner of {CHALLENGER} again: {why}",)
        assert monitor.look().done == (), "it has just begun"
    finally:
        learner.stop()


@contextmanager
def going_on(
    monitor: Monitor, say: Callable[[Look], None], **ways: Callable[[], float]
) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: monitor_until(stop, monitor, seconds=300.0, say=say, **ways)
    )
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_it_looks_at_its_interval_and_never_twice_for_a_long_look(app: App) -> None:
    now, looks = [0.0], list[Look]()

    def say(look: Look) -> None:
        looks.append(look)
        if len(looks) == 2:
            now[0] += 750.0  # a look that took as long

    with going_on(monitor_of(app), say, clock=lambda: now[0]):
        until(lambda: len(looks) == 1)
        now[0] = 299.0
        threading.Event().wait(1.5)
        assert len(looks) == 1
        now[0] = 300.0
        until(lambda: len(looks) == 2)  # it ends at 1,050
        threading.Event().wait(1.5)
        assert len(looks) == 2, "what was missed is not made up for"
        now[0] = 1_200.0
        until(lambda: len(looks) == 3)


def test_of_two_that_monitor_one_policy_the_second_is_refused(app: App) -> None:
    looks: list[Look] = []
    with going_on(monitor_of(app), looks.append):
        until(lambda: bool(looks))
        with pytest.raises(LockHeldElsewhere, match="another process is at it"):
            monitor_until(threading.Event(), monitor_of(app), seconds=1.0, say=looks.append)
    with going_on(monitor_of(app), looks.append):
        until(lambda: len(looks) == 2)


def test_a_policy_nobody_knows_is_refused(app: App) -> None:
    nobody = replace(monitor_of(app), policy="nobody")
    with pytest.raises(UnknownName):
        monitor_until(threading.Event(), nobody, seconds=1.0, say=lambda _: None)


def test_it_survives_a_ledger_that_ends_every_session(
    app: App, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    now, looks = [0.0], list[Look]()
    with (
        caplog.at_level(logging.INFO),
        going_on(monitor_of(app), looks.append, clock=lambda: now[0]),
    ):
        until(lambda: len(looks) == 1)
        with engine.connect() as other:
            other.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        until(lambda: "the monitor cannot look, trying on" in caplog.text)
        now[0] = 300.0
        until(lambda: len(looks) == 2)
    assert "over: the monitor cannot look" in caplog.text
