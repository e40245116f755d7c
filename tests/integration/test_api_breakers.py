"""The service's circuit breakers over HTTP and by command, on one replica and on two."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from api_service import application, service
from fake_exchange import PAIR, FakeExchange, serving
from ledger import NOON, open_btc
from made_up_candles import random_walk
from sqlalchemy import Engine, text

from bandit.service import auditing
from config.settings import Settings
from learners.market.candle_store import SeriesName
from learners.market.exchange import ExchangeUnavailable
from liveops import cli
from liveops.breaker_watch import ResetFollower
from liveops.breakers import BreakerOpen, Breakers
from liveops.candle_import import candle_store, import_from_exchange

REASON = {"reason": "they are back"}


def opened(*names: str) -> Breakers:
    breakers = Breakers(failures_max=1, clock=lambda: 0.0)
    for name in names:
        breakers.of(name).failed(at=0.0)
    return breakers


def test_breakers_are_listed_measured_and_reset(engine: Engine) -> None:
    open_btc(engine)
    breakers = opened("notify.discord")
    breakers.of("notify.slack")
    with service(engine, breakers=breakers) as client:
        discord, slack = client.get("/v1/breakers").json()
        assert discord == {
            "name": "notify.discord",
            "state": "open",
            "failures": 1,
            "trips": 1,
            "seconds_left": 60.0,
        }
        assert (slack["name"], slack["state"]) == ("notify.slack", "closed")
        shown = client.get("/metrics").text
        for line in (
            'liveops_breaker_state{breaker="notify.discord",state="open"} 1.0',
            'liveops_breaker_state{breaker="notify.discord",state="closed"} 0.0',
            'liveops_breaker_state{breaker="notify.discord",state="half_open"} 0.0',
            'liveops_breaker_state{breaker="notify.slack",state="closed"} 1.0',
            'liveops_breaker_trips_total{breaker="notify.discord"} 1.0',
        ):
            assert line in shown
        status = client.get("/status").json()
        assert status["health_status"] == "DEGRADED"
        [found] = [f for f in status["findings"] if f["code"] == "breaker_open"]
        assert "notify.discord" in found["text"]

        closed = client.post("/v1/breakers/notify.discord/reset", json=REASON)
        assert (closed.status_code, closed.json()["state"]) == (200, "closed")
        assert client.post("/v1/breakers/nobody/reset", json=REASON).status_code == 404
        assert client.post("/v1/breakers/notify.slack/reset", json={}).status_code == 422
    statement = "SELECT subject, actor, details FROM audit_log WHERE action = 'breaker_reset'"
    with engine.connect() as connection:
        assert connection.execute(text(statement)).all() == [("notify.discord", "local", REASON)]


def test_without_any_breaker_there_is_no_series(engine: Engine) -> None:
    with service(engine) as client:
        assert client.get("/v1/breakers").json() == []
        samples = client.get("/metrics").text.splitlines()
    assert [line for line in samples if line.startswith("liveops_breaker")] == []


def test_a_key_that_reads_may_look_and_not_reset(engine: Engine) -> None:
    with service(engine, key="owner", breakers=opened("notify.discord")) as client:
        nobody = {"Authorization": "Bearer lo_nobody"}
        assert client.get("/v1/breakers", headers=nobody).status_code == 401
        path = "/v1/breakers/notify.discord/reset"
        assert client.post(path, json=REASON, headers=nobody).status_code == 401
        assert client.post(path, json=REASON).status_code == 200


def test_a_reset_reaches_the_other_replica_and_is_not_repeated_after_a_restart(
    engine: Engine,
) -> None:
    here, there = opened("notify.discord"), opened("notify.discord", "notify.slack")
    follower = ResetFollower(application(engine, breakers=there))
    follower.look()
    with service(engine, breakers=here) as client:
        client.post("/v1/breakers/notify.discord/reset", json=REASON)
    follower.look()
    assert there.not_closed() == ("notify.discord", "notify.slack")  # not sealed yet
    auditing.seal(engine, now=NOON)
    follower.look()
    assert there.not_closed() == ("notify.slack",)

    there.of("notify.discord").failed(at=0.0)
    follower.look()
    ResetFollower(application(engine, breakers=there)).look()
    assert there.not_closed() == ("notify.discord", "notify.slack")


def test_a_reset_of_what_a_replica_does_not_have_changes_nothing_there(engine: Engine) -> None:
    there = opened("notify.slack")
    follower = ResetFollower(application(engine, breakers=there))
    follower.look()
    with service(engine, breakers=opened("notify.discord")) as client:
        client.post("/v1/breakers/notify.discord/reset", json=REASON)
    auditing.seal(engine, now=NOON)
    follower.look()
    assert [report.name for report in there.listed()] == ["notify.slack"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(url: str, *arguments: str, key: str = "") -> int:
        monkeypatch.setenv("LIVEOPS_ADMIN_PORT", str(urlsplit(url).port))
        monkeypatch.setenv("LIVEOPS_API_KEY", key)
        return cli.exit_code(cli.app, ["breakers", *arguments])

    return run


def test_commands_ask_the_running_service(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with service(engine, key="owner", breakers=opened("notify.discord")) as client:
        url = str(client.base_url)
        assert command(url, "list", key="owner") == 0
        said = capsys.readouterr().out
        assert said == "notify.discord: open, 1 failures in a row, 1 trips, calls again in 60 s\n"
        assert command(url, "list", "--json", key="owner") == 0
        [found] = json.loads(capsys.readouterr().out)
        assert (found["name"], found["state"]) == ("notify.discord", "open")
        reset = ("reset", "notify.discord", "--reason", "they are back")
        assert command(url, *reset, key="another") == 1
        assert "service_refused" in capsys.readouterr().err
        assert command(url, *reset, key="owner") == 0
        assert capsys.readouterr().out == ("notify.discord: closed, 0 failures in a row, 1 trips\n")
        assert command(url, "reset", "nobody", "--reason", "typed wrong", key="owner") == 1
        assert "known: notify.discord" in capsys.readouterr().err
    assert command(url, "list", key="owner") == 1
    assert capsys.readouterr().err.startswith(f"service_not_running: no service answers at {url}")


def test_an_exchange_that_fails_is_not_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learners.market.exchange._PAUSE_SECONDS", 0.0)
    breakers = Breakers(failures_max=1, clock=lambda: 0.0)
    store = candle_store(Settings.model_validate({"home": str(tmp_path)}))
    name = SeriesName(source="binance", instrument=PAIR, interval=timedelta(hours=1))
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    later = begin + timedelta(hours=30)
    exchange = FakeExchange(candles=random_walk(20, seed=3), server_time=later)

    def fetch() -> int:
        options = exchange.options
        found = import_from_exchange(
            store, name, since=begin, options=options, breakers=breakers, now=later
        )
        return found.appended.new

    with serving(exchange):
        exchange.faults = [503] * 20
        with pytest.raises(ExchangeUnavailable):
            fetch()
        asked = len(exchange.asked)
        with pytest.raises(BreakerOpen, match=r"exchange\.binance"):
            fetch()
        assert len(exchange.asked) == asked
        exchange.faults = []
        breakers.reset("exchange.binance")
        assert fetch() == 20
