"""Pulses of monitors in the ledger, what a replica tells bots by them, and health."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_service import application
from ledger import CHALLENGER, NOON, count, open_btc, open_eth
from sqlalchemy import Engine, text
from waiting import until

from bandit.core.errors import InvalidInput, LedgerUnavailable
from bandit.core.watch import WatchRule
from bandit.service import policies, reporting, watching
from bandit.storage.engine import connect
from liveops.api.server import serving
from liveops.clock import VirtualClock
from liveops.learner import Learner
from liveops.monitor_watch import MonitorWatch
from liveops.monitoring import Monitor, monitor_until
from liveops.wiring import App

BODY = {"unit_id": "u-1", "instrument": "BTCUSD"}
BEAT = {
    "bot": "alpha",
    "sent_at": NOON.isoformat(),
    "started_at": NOON.isoformat(),
    "running": True,
    "api_connected": True,
    "candles": {},
    "api_errors_total": 0,
    "open_positions": 0,
}


def pulse(engine: Engine, *names: str, who: str = "prod", first: bool = True) -> None:
    watching.pulse(
        engine,
        names or ("btc",),
        who=who,
        interval_seconds=300,
        is_first=first,
        now=NOON,
        actor="test",
    )


def end(engine: Engine, who: str = "prod") -> list[str]:
    return watching.end(engine, who=who, now=NOON, actor="test")


def audited(engine: Engine) -> list[tuple[str, str]]:
    statement = text(
        "SELECT action, subject FROM audit_log WHERE action LIKE 'monitor%' ORDER BY id"
    )
    with engine.connect() as connection:
        return [(action, subject) for action, subject in connection.execute(statement)]


def silent_for(engine: Engine, seconds: float) -> None:
    """Let the newest pulses be so much older."""
    with engine.begin() as connection:
        statement = "UPDATE monitor_pulses SET at = at - make_interval(secs => :seconds)"
        connection.execute(text(statement), {"seconds": seconds})


# In the ledger


def test_only_the_begin_and_the_end_are_audited(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine)
    assert watching.newest(engine) == []
    for first in (True, False, False):
        pulse(engine, "btc", "eth", first=first)
    began = [("monitor_started", "btc"), ("monitor_started", "eth")]
    assert audited(engine) == began
    assert end(engine) == ["btc", "eth"]
    assert end(engine) == [], "ended once"
    assert [found.is_ended for found in watching.newest(engine)] == [True, True]
    pulse(engine, first=False)
    ended = [("monitor_ended", "btc"), ("monitor_ended", "eth")]
    assert audited(engine) == [*began, *ended, ("monitor_started", "btc")]
    # A process that came after one which died has begun too.
    pulse(engine)
    assert audited(engine)[-1] == ("monitor_started", "btc")
    assert len(audited(engine)) == 6
    [btc, eth] = watching.newest(engine)
    assert (btc.is_ended, eth.is_ended, btc.who, btc.interval_seconds) == (False, True, "prod", 300)


def test_a_pulse_is_dated_by_the_database(engine: Engine) -> None:
    open_btc(engine)
    pulse(engine)
    silent_for(engine, 3600)
    [found] = watching.newest(engine)
    assert 3600 <= found.age_seconds < 7200
    pulse(engine, first=False)
    [found] = watching.newest(engine)
    assert 0 <= found.age_seconds < 3600
    silent_for(engine, -7200)  # the database's clock was set back
    [found] = watching.newest(engine)
    assert found.age_seconds == 0


def test_who_ends_ends_only_its_own(engine: Engine) -> None:
    open_btc(engine)
    pulse(engine, who="prod")
    pulse(engine, who=CHALLENGER)
    assert end(engine, "prod") == [], "another has seen it since"
    assert end(engine, CHALLENGER) == ["btc"]


def test_an_interval_that_is_none_is_refused_and_nothing_is_stored(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(InvalidInput, match="interval"):
        watching.pulse(
            engine,
            ["btc"],
            who="prod",
            interval_seconds=0,
            is_first=True,
            now=NOON,
            actor="test",
        )
    assert count(engine, "monitor_pulses") == 0


# The monitor


def monitor_of(app: App, *, is_dry: bool = False, learner: Learner | None = None) -> Monitor:
    return Monitor(app=app, policy=CHALLENGER, learner=learner, is_dry=is_dry)


@contextmanager
def going_on(monitor: Monitor, looks: list[Any], **ways: Any) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: monitor_until(stop, monitor, seconds=300.0, say=looks.append, **ways)
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    open_btc(engine)
    served = application(engine, clock=VirtualClock(NOON))
    return replace(served, settings=served.settings.model_copy(update={"home": tmp_path}))


def test_a_monitor_pulses_after_each_look_and_says_when_it_is_ended(
    app: App, engine: Engine
) -> None:
    now, looks = [0.0], list[Any]()
    with going_on(monitor_of(app), looks, clock=lambda: now[0]):
        until(lambda: len(looks) == 1)
        [first] = watching.newest(engine)
        assert (first.who, first.interval_seconds, first.is_ended) == (CHALLENGER, 300, False)
        now[0] = 300.0
        until(lambda: len(looks) == 2)
        [second] = watching.newest(engine)
        assert second.at > first.at
    [ended] = watching.newest(engine)
    assert (ended.is_ended, ended.at) == (True, second.at)
    assert audited(engine) == [("monitor_started", "btc"), ("monitor_ended", "btc")]


def test_a_monitor_that_cannot_see_does_not_pulse(
    app: App, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks, tries = [0.0], list[Any](), list[str]()

    def blind(_: Engine, name: str) -> Any:
        tries.append(name)
        raise LedgerUnavailable("drill")

    with going_on(monitor_of(app), looks, clock=lambda: now[0]):
        until(lambda: len(looks) == 1)
        before = watching.newest(engine)[0].at
        with monkeypatch.context() as patched:
            patched.setattr(reporting, "report", blind)
            now[0] = 300.0
            until(lambda: len(tries) == 2)  # it loops, and does not see
            assert watching.newest(engine)[0].at == before
        until(lambda: len(looks) == 2)
        assert watching.newest(engine)[0].at > before


def test_a_dry_run_watches_nothing(app: App, engine: Engine) -> None:
    looks: list[Any] = []
    with going_on(monitor_of(app, is_dry=True), looks):
        until(lambda: bool(looks))
    assert count(engine, "monitor_pulses") == 0


def test_whoever_lost_its_place_ends_nothing(app: App, engine: Engine) -> None:
    """As a monitor that was frozen for long: another one has taken over, and watches on."""
    now, looks = [0.0], list[Any]()
    monitored = policies.find(engine, CHALLENGER).id
    taken = text(
        "SELECT pg_try_advisory_lock(6, :id), (SELECT count(pg_terminate_backend(l.pid))"
        " FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE l.locktype = 'advisory'"
        " AND l.classid = 6 AND d.datname = current_database() AND l.pid <> pg_backend_pid())"
    )
    with engine.connect() as other:
        with going_on(monitor_of(app), looks, clock=lambda: now[0]):
            until(lambda: len(looks) == 1)
            until(lambda: other.execute(taken, {"id": monitored}).one()[0])
        other.invalidate()
    [found] = watching.newest(engine)
    assert not found.is_ended
    assert audited(engine) == [("monitor_started", "btc")]


def test_an_end_that_cannot_be_written_down_is_said(
    app: App, engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise LedgerUnavailable("drill")

    looks: list[Any] = []
    with going_on(monitor_of(app), looks):
        until(lambda: bool(looks))
        monkeypatch.setattr(watching, "end", away)
    assert "bots wait for a monitor: its end could not be written down: drill" in caplog.text


# What a replica tells


class Hand:
    """Seconds that pass by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def watch(hand: Hand) -> MonitorWatch:
    return MonitorWatch(WatchRule(), clock=hand)


@pytest.fixture
def client(engine: Engine, watch: MonitorWatch) -> Iterator[httpx.Client]:
    open_btc(engine)
    open_eth(engine)
    app = replace(application(engine), monitors=watch)
    with serving(app, host="127.0.0.1", port=0) as url, httpx.Client(base_url=url) as client:
        yield client


def header(answer: httpx.Response) -> str | None:
    assert answer.status_code == 200, answer.text
    return answer.headers.get("Liveops-Watch")


def answers(client: httpx.Client) -> dict[str, str | None]:
    """The header of every answer that tells it, about `btc`."""
    made = client.post("/v1/experiments/btc/assignments", json=BODY)
    claim = f"/v1/assignments/{made.json()['assignment_id']}/claim"
    named = {"Liveops-Experiment": "btc"}
    decided = client.post("/v1/experiments/btc/decide", json=BODY | {"features": {}})
    return {
        "assign": header(made),
        "decide": header(decided),
        "claim": header(client.post(claim, headers=named)),
        "heartbeat": header(client.post("/v1/heartbeats", json=BEAT, headers=named)),
    }


def seconds(told: str | None) -> tuple[int, int]:
    assert told is not None
    throttle, halt = (int(part.partition("=")[2]) for part in told.split(", "))
    return throttle, halt


def test_answers_tell_deadlines_only_while_a_monitor_is_waited_for(
    engine: Engine, client: httpx.Client, watch: MonitorWatch, hand: Hand
) -> None:
    routes = ("assign", "decide", "claim", "heartbeat")
    watch.look(engine)
    assert answers(client) == dict.fromkeys(routes)
    pulse(engine)
    watch.look(engine)
    first = answers(client)
    assert len(set(first.values())) == 1
    throttle, halt = seconds(first["assign"])
    assert (800 < throttle <= 900, halt - throttle) == (True, 900)
    # Nobody reads any more: what is known ages on, to 0 and not below.
    hand.seconds = 500
    assert seconds(answers(client)["claim"]) == (throttle - 500, halt - 500)
    hand.seconds = 1000
    assert seconds(answers(client)["decide"]) == (0, halt - 1000)
    hand.seconds = 1e6
    assert answers(client) == dict.fromkeys(routes, "throttle=0, halt=0")
    pulse(engine, first=False)
    watch.look(engine)
    assert seconds(answers(client)["heartbeat"])[0] > 800
    end(engine)
    watch.look(engine)
    assert answers(client) == dict.fromkeys(routes)


def test_bodies_are_the_same_bytes_whatever_the_header_says(
    engine: Engine, client: httpx.Client, watch: MonitorWatch, hand: Hand
) -> None:
    first = client.post("/v1/experiments/btc/assignments", json=BODY)
    pulse(engine)
    watch.look(engine)
    hand.seconds = 100
    again = client.post("/v1/experiments/btc/assignments", json=BODY)
    assert (header(first), again.content) == (None, first.content)
    assert header(again) is not None


def test_each_experiment_has_its_own_and_nobody_else_is_told(
    engine: Engine, client: httpx.Client, watch: MonitorWatch
) -> None:
    pulse(engine)
    watch.look(engine)
    eth = client.post("/v1/experiments/eth/assignments", json=BODY)
    assert header(eth) is None
    for named in ({}, {"Liveops-Experiment": "eth"}, {"Liveops-Experiment": "nobody's"}):
        assert header(client.post("/v1/heartbeats", json=BEAT, headers=named)) is None


def test_a_ledger_that_does_not_answer_makes_no_monitor_younger(
    engine: Engine, watch: MonitorWatch, hand: Hand
) -> None:
    open_btc(engine)
    pulse(engine)
    watch.look(engine)
    hand.seconds = 901
    nowhere = connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(LedgerUnavailable):
        watch.look(nowhere)
    found = watch.deadlines("btc")
    assert found is not None
    assert found.level == "throttle"
    # Nor does a database whose clock was set back: it is the same pulse.
    watch.look(engine)
    found = watch.deadlines("btc")
    assert found is not None
    assert found.throttle_in < 0


def test_a_replica_reads_by_itself(engine: Engine, watch: MonitorWatch) -> None:
    open_btc(engine)
    pulse(engine)
    with watch.looking(engine):
        assert watch.deadlines("btc") is not None, "from the first moment on"
        end(engine)
        until(lambda: watch.deadlines("btc") is None)


# Health


@pytest.mark.parametrize(
    ("silent", "level", "code"),
    [
        (0.0, "watched", None),
        (901.0, "throttle", ("monitor_stale", "DEGRADED")),
        (1801.0, "halt", ("monitor_gone", "UNHEALTHY")),
    ],
)
def test_health_status_and_metrics_tell_of_a_silent_monitor(
    engine: Engine,
    client: httpx.Client,
    silent: float,
    level: str,
    code: tuple[str, str] | None,
) -> None:
    pulse(engine)
    silent_for(engine, silent)
    status = client.get("/status").json()
    [told] = status["monitors"]
    assert (told["experiment"], told["policy"], told["level"]) == ("btc", "prod", level)
    assert silent <= told["pulse_age_seconds"] < silent + 600
    found = [(each["code"], each["level"]) for each in status["findings"]]
    assert found == ([] if code is None else [code])
    name = 'liveops_monitor_pulse_age_seconds{experiment="btc"}'
    [line] = [each for each in client.get("/metrics").text.splitlines() if each.startswith(name)]
    assert silent <= float(line.split()[-1]) < silent + 600


def test_of_an_ended_monitor_health_says_nothing(engine: Engine, client: httpx.Client) -> None:
    pulse(engine)
    silent_for(engine, 1e6)
    end(engine)
    status = client.get("/status").json()
    [told] = status["monitors"]
    assert (told["level"], status["health_status"]) == (None, "HEALTHY")
    assert "liveops_monitor_pulse_age_seconds{" not in client.get("/metrics").text
