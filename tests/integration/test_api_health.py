"""Heartbeats, `/health` and `/status` over HTTP, and what the documents' operators type."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_service import CheckedClient, application, documented, post, service
from guarded_ledger import LATER, open_wide, pause
from ledger import CHALLENGER, NOON, feed, open_btc, open_eth
from sqlalchemy import Engine, text

from bandit.core.kill_switch import KillCause
from bandit.service import health, killing
from liveops.api.server import listening, watching
from liveops.clock import VirtualClock
from liveops.health import look
from liveops.latch import Latch

HEARTBEATS = "/v1/heartbeats"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine) as client:
        yield client


def heartbeat(**fields: Any) -> dict[str, Any]:
    """A lawful heartbeat that `fields` may spoil; a field set to ... is left out."""
    body = {
        "bot": "alpha",
        "sent_at": NOON.isoformat(),
        "started_at": (NOON - timedelta(days=1)).isoformat(),
        "running": True,
        "api_connected": True,
        "candles": {"BTCUSDT": NOON.isoformat()},
        "api_errors_total": 0,
        "open_positions": 1,
    } | fields
    return {name: value for name, value in body.items() if value is not ...}


def say(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(HEARTBEATS, json=heartbeat(**fields))


def test_a_heartbeat_is_answered_with_the_newest(client: CheckedClient) -> None:
    told = say(
        client,
        account="usd",
        candle_seconds=3600,
        equity="10001.50",
        breakers={"orders": "half_open"},
        model={"version": "2.1", "trained_at": NOON.isoformat()},
        last_trade_at=NOON.isoformat(),
    )
    assert told.status_code == 200
    when = NOON.isoformat()
    assert told.json() == {"bot": "alpha", "sent_at": when, "heard_at": when, "blocked": False}
    older = (NOON - MINUTE).isoformat()
    assert say(client, sent_at=older, running=False).content == told.content
    assert say(client, running=False).content == told.content
    [bot] = client.get("/status").json()["bots"]
    assert (bot["running"], bot["equity"], bot["breakers"]) == (
        True,
        "10001.50000000",
        {"orders": "half_open"},
    )


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"bot": ...}, "bot", "is required"),
        ({"bot": "No Name"}, "bot", "must match"),
        ({"open_positions": ...}, "open_positions", "is required"),
        ({"running": ...}, "running", "is required"),
        ({"running": 1}, "running", "must be a valid boolean"),
        ({"api_errors_total": -1}, "api_errors_total", "must lie in 0..1000000000"),
        ({"api_errors_total": 1.5}, "api_errors_total", "must be a whole number"),
        ({"api_errors_total": True}, "api_errors_total", "must be a whole number"),
        ({"candles": {"BTC USDT": NOON.isoformat()}}, "candles", "must be 1 to 32 of"),
        ({"candles": {"BTCUSDT": "noon"}}, "candles.BTCUSDT", "must be an RFC 3339 time"),
        ({"candles": {f"S{n}": NOON.isoformat() for n in range(65)}}, "candles", "at most 64"),
        ({"breakers": {"orders": "ajar"}}, "breakers.orders", "must be 'closed', 'open' or"),
        ({"model": {}}, "model.version", "is required"),
        ({"model": {"version": "2.1", "sha": "a"}}, "model.sha", "is not one of the fields"),
        ({"equity": "NaN"}, "equity", "must be a decimal"),
        ({"sent_at": (NOON + 6 * MINUTE).isoformat()}, "sent_at", "must not lie more than 5"),
        ({"started_at": (NOON + MINUTE).isoformat()}, "started_at", "must not be after sent_at"),
        ({"extra": 1}, "extra", "is not one of the fields"),
    ],
)
def test_what_no_bot_can_be_is_a_problem_that_names_field_and_rule(
    client: CheckedClient, fields: dict[str, Any], field: str, rule: str
) -> None:
    refused = say(client, **fields)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert refused.json()["field"] == field
    assert rule in refused.json()["rule"]
    assert client.get("/status").json()["bots"] == []


def test_a_body_that_is_too_large_or_says_a_thing_twice_is_refused(client: CheckedClient) -> None:
    assert post(client, HEARTBEATS, b" " * 70_000 + b"{}").status_code == 413
    assert post(client, HEARTBEATS, b'{"bot": "a", "bot": "b"}').status_code == 400


def test_health_follows_a_bot_from_well_to_silent_to_forgotten(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        assert client.get("/health").json()["status"] == "healthy"
        say(client)
        at_limit = client.get("/health")
        assert (at_limit.status_code, at_limit.json()["health_status"]) == (200, "HEALTHY")
        clock.advance_to(NOON + timedelta(seconds=120))
        assert client.get("/health").status_code == 200
        clock.advance_to(NOON + timedelta(seconds=121))
        silent = client.get("/health")
        assert silent.status_code == 503
        assert silent.json()["status"] == "unhealthy"
        assert silent.json()["issues"] == ["a bot's heartbeat is overdue"]
        assert client.get("/ready").status_code == 200
        [finding] = client.get("/status").json()["findings"]
        assert finding == {
            "code": "bot_silent",
            "level": "UNHEALTHY",
            "subject": "bot alpha",
            "text": "no heartbeat of bot alpha for 121 s, limit 120 s",
            "value": 121.0,
            "limit": 120.0,
        }
        health.forget(engine, "alpha", reason="sold", now=clock.now(), actor="test")
        assert client.get("/health").json()["health_status"] == "HEALTHY"


def test_a_killed_account_degrades_and_the_probe_names_nobody(engine: Engine) -> None:
    open_btc(engine)
    killing.kill(engine, None, cause=KillCause.HAND, reason="s3cret", now=NOON, actor="ann")
    with service(engine) as client:
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert answer.json()["warnings"] == ["an account is killed: trading is halted"]
        assert not {"s3cret", "ann", "usd"} & set(answer.text.replace('"', " ").split())
        status = client.get("/status").json()
    assert status["trading"]["halted"] is True
    assert status["trading"]["killed_accounts"] == ["usd"]
    assert status["warnings"] == ["account usd is killed (hand): s3cret"]
    [account] = status["portfolio"]["accounts"]
    assert (account["killed"], account["reason"]) == (True, "s3cret")


def test_a_latch_degrades_without_the_ledger_too(engine: Engine, tmp_path: Path) -> None:
    latch = Latch(tmp_path / "KILLED")
    latch.set(reason="drill", actor="ann", now=NOON)
    with service(engine, latch=latch) as client:
        assert client.get("/health").json()["status"] == "degraded"
        status = client.get("/status").json()
    assert (status["trading"]["halted"], status["trading"]["latch"]) == (
        True,
        "latch set by ann: drill",
    )


def test_what_a_key_is_asked_for(engine: Engine) -> None:
    open_btc(engine)
    with service(engine, key="key") as client:
        say(client)
        for path, status in (("/ping", 200), ("/health", 200), ("/ready", 200)):
            assert httpx.get(client.base_url.join(path)).status_code == status
        for path in ("/status", "/metrics"):
            assert httpx.get(client.base_url.join(path)).status_code == 401
        refused = httpx.post(client.base_url.join(HEARTBEATS), json=heartbeat())
        assert refused.status_code == 401
    routes = documented(with_key=True)["paths"]
    assert routes[HEARTBEATS]["post"]["security"] == [{"key": ["ingest"]}]
    assert routes["/status"]["get"]["security"] == [{"key": ["read"]}]


def test_status_is_told_without_a_ledger(tmp_path: Path) -> None:
    from bandit.storage.engine import connect

    away = connect("postgresql+psycopg://bot:s3cret@127.0.0.1:1/nothing")
    with service(away) as client:
        answer = client.get("/status")
    assert answer.status_code == 200
    status = answer.json()
    assert (status["health_status"], status["trading"]["halted"]) == ("UNHEALTHY", None)
    assert status["findings"][0]["code"] == "ledger_unready"
    assert status["portfolio"]["daily_pnl"] is None
    assert "s3cret" not in answer.text


def test_money_of_two_currencies_has_no_sum(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine, currency="EUR")
    with service(engine) as client:
        portfolio = client.get("/status").json()["portfolio"]
    assert (portfolio["currency"], portfolio["equity"], portfolio["daily_pnl"]) == (None,) * 3
    assert [account["currency"] for account in portfolio["accounts"]] == ["USD", "EUR"]


def test_the_health_listener_serves_probes_status_and_metrics_and_nothing_else(
    engine: Engine,
) -> None:
    open_btc(engine)
    with watching(application(engine, key="key"), host="127.0.0.1", port=0) as url:
        key = {"Authorization": "Bearer key"}
        for path in ("/ping", "/ready", "/health"):
            assert httpx.get(url + path).status_code == 200
        for path in ("/status", "/metrics"):
            assert httpx.get(url + path).status_code == 401
            assert httpx.get(url + path, headers=key).status_code == 200
        for path in ("/v1/experiments", "/openapi.json", "/docs"):
            assert httpx.get(url + path, headers=key).status_code == 404
        assert httpx.post(url + HEARTBEATS, headers=key, json=heartbeat()).status_code == 404
        assert httpx.post(url + "/v1/kill", headers=key, json={}).status_code == 404


def test_the_health_listener_starts_where_it_is_asked_for(engine: Engine) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    app = application(engine, settings={"server": {"health_port": port}})
    with listening(app, host=None, port=_free(), admin_port=0) as at:
        assert at.health == f"http://127.0.0.1:{port}"
        assert httpx.get(f"{at.health}/health").json()["status"] == "healthy"
    with listening(application(engine), host=None, port=_free(), admin_port=0) as at:
        assert at.health == ""


def _free() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.real_part
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".portfolio.daily_pnl", "-100"),
        (".performance.max_drawdown", "0.01"),
        (".trading.halted", "false"),
        (".health_status", '"HEALTHY"'),
        (".issues", "[]"),
        (".metrics.performance_guard_status", '"NORMAL"'),
        (".metrics.open_positions", "1"),
        (".portfolio.daily_pnl < 0", "true"),
    ],
)
def test_the_paths_that_the_documents_ask_with_jq(engine: Engine, path: str, expected: str) -> None:
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("jq is not on PATH (Debian package jq)")
    open_btc(engine)
    now = feed(engine, "prod", ["-0.1"])  # a tenth of a tenth of 10,000
    with service(engine, clock=VirtualClock(now)) as client:
        say(client, sent_at=now.isoformat(), candles={})
        document = client.get("/status").text
    found = subprocess.run(
        [jq, "-c", path], input=document, text=True, capture_output=True, check=True
    )
    assert found.stdout.strip() == expected


def test_recent_trades_and_accounts_are_told(engine: Engine) -> None:
    open_btc(engine)
    now = feed(engine, CHALLENGER, ["0.002", "-0.001"] * 4)
    with service(engine, clock=VirtualClock(now)) as client:
        status = client.get("/status").json()
    trades = status["trading"]["recent_trades"]
    assert [trade["policy"] for trade in trades] == [CHALLENGER] * 5
    assert [trade["pnl"].startswith("-") for trade in trades] == [True, False] * 2 + [True]
    assert status["trading"]["last_trade_at"] == trades[0]["closed_at"]
    assert status["portfolio"]["equity"] == 10_000 + 4.0
    assert json.loads(json.dumps(status)) == status


def test_a_demo_that_replays_the_past_is_not_waited_for(engine: Engine) -> None:
    open_btc(engine)
    later = VirtualClock(feed(engine, "prod", ["0.002"]) + timedelta(days=30))
    app = application(engine, clock=later)
    assert [issue.condition.value for issue in look(app).health.issues] == ["no_trades"]
    assert look(replace(app, demo=True)).health.issues == ()


def test_an_unready_ledger_is_said_in_full_as_before(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        say(client, running=False)
        with engine.begin() as connection:
            connection.execute(text("UPDATE decision_protocol SET version = version + 1"))
        answer = client.get("/health")
    assert answer.status_code == 503
    [issue] = answer.json()["issues"]
    assert "decision protocol" in issue


def test_a_pause_of_the_performance_guard_halts_trading_and_degrades(engine: Engine) -> None:
    open_wide(engine)
    pause(engine)
    with service(engine, clock=VirtualClock(LATER)) as client:
        health, status = client.get("/health"), client.get("/status").json()
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert status["trading"]["halted"] is True
    assert status["metrics"]["performance_guard_status"] == "PAUSED"
    assert "the performance guard is PAUSED" in status["warnings"]
