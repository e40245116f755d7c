"""Reconciliation over HTTP, in the SDK and on the command line: told, refused, accepted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import vitals
from api_service import application, service
from ledger import NOON, open_btc
from sdk_bot import Hands, eventually
from sqlalchemy import Engine

from bandit.service import health
from liveops import cli
from liveops.client import AssignmentId, AsyncClient, Client, Heartbeat, Unreconciled
from liveops.client.contact import Standing
from liveops.client.delivery import Fate, Verdict
from liveops.status_file import StatusKeeper

STRAY = "00000000-0000-0000-0000-000000000009"
STARTED = NOON.isoformat()


def told(*held: str, **fields: Any) -> dict[str, Any]:
    """A heartbeat of a run that began at noon, as it is sent."""
    return {
        "bot": "alpha",
        "account": "usd",
        "sent_at": STARTED,
        "started_at": STARTED,
        "running": True,
        "api_connected": True,
        "candles": {},
        "api_errors_total": 0,
        "open_positions": len(held),
        "positions": list(held),
    } | fields


def at(seconds: int) -> str:
    return (NOON + timedelta(seconds=seconds)).isoformat()


def asked(client: Any, unit: str = "u", route: str = "assignments", **more: object) -> Any:
    body = {"unit_id": unit, "instrument": "BTCUSD", **more}
    return client.post(f"/v1/experiments/btc/{route}", json=body)


def test_a_mismatch_is_told_refused_shown_and_accepted(engine: Engine) -> None:
    open_btc(engine)
    with service(engine, key="key") as client:
        waiting = asked(client, "waiting").json()["assignment_id"]
        held = asked(client, "held").json()["assignment_id"]
        client.post(f"/v1/assignments/{held}/claim")
        assert client.get("/v1/accounts").json()[0]["reconciliation"] is None
        answer = client.post("/v1/heartbeats", json=told(held, STRAY))
        assert (answer.status_code, answer.json()["blocked"]) == (200, True)
        for refused in (
            asked(client),
            asked(client, "other", "decide", features={"rsi": 50.0}),
            client.post(f"/v1/assignments/{waiting}/claim"),
        ):
            problem = refused.json()
            assert (refused.status_code, problem["code"]) == (423, "unreconciled")
            assert problem["detail"].endswith(f": 1 unknown: {STRAY}")
        close = asked(client, "close", position=held)
        assert close.status_code == 200
        assert client.post(f"/v1/assignments/{close.json()['assignment_id']}/claim").is_success
        status = client.get("/status").json()
        assert status["trading"]["blocked_accounts"] == ["usd"]
        assert status["trading"]["halted"]
        [account] = status["portfolio"]["accounts"]
        shown = account["reconciliation"]
        assert (shown["state"], shown["differs"]) == ("BLOCKED", f"1 unknown: {STRAY}")
        assert status["bots"][0]["positions"] == [held, STRAY]
        assert 'liveops_account_reconciled{account="usd"} 0.0' in client.get("/metrics").text
        accepted = client.post("/v1/accounts/usd/reconcile", json={"reason": "bought by hand"})
        shown = accepted.json()["reconciliation"]
        assert (shown["state"], shown["accepted_positions"]) == ("AGREES", [STRAY])
        assert asked(client).status_code == 200
        missing = client.post("/v1/accounts/none/reconcile", json={"reason": "x"})
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_name")
        assert client.post("/v1/accounts/usd/reconcile", json={"reason": ""}).status_code == 422


def test_an_account_that_agrees_is_measured_from_its_first_comparison_on(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        assert "liveops_account_reconciled{" not in client.get("/metrics").text
    with service(engine) as client:
        assert not client.post("/v1/heartbeats", json=told()).json()["blocked"]
        assert 'liveops_account_reconciled{account="usd"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"open_positions": 0}, "positions", "must not be more than open_positions, 0"),
        ({"positions": [STRAY] * 2, "open_positions": 2}, "positions", "must name each once"),
        (
            {"positions": [str(UUID(int=n)) for n in range(257)], "open_positions": 257},
            "positions",
            "must have at most 256",
        ),
        ({"positions": ["u-1"]}, "positions", "must be a UUID"),
        (
            {"account": None},
            "account",
            "must be told beside positions: they are held against its ledger",
        ),
    ],
)
def test_positions_that_cannot_be_are_refused(
    engine: Engine, fields: dict[str, Any], field: str, rule: str
) -> None:
    open_btc(engine)
    with service(engine) as client:
        answer = client.post("/v1/heartbeats", json=told(STRAY, **fields))
    assert answer.status_code == 422
    assert (answer.json()["field"].split(".")[0], answer.json()["rule"]) == (field, rule)
    assert health.known_bots(engine) == []


def test_settings_say_what_is_a_mismatch_and_whether_it_blocks(engine: Engine) -> None:
    open_btc(engine)
    chosen = {"balance_tolerance": 0.5, "grace_seconds": 10, "blocks": False}
    with service(engine, settings={"operations": {"reconciliation": chosen}}) as client:
        for seconds, equity in ((0, "5000"), (10, "5000"), (20, "4999"), (29, "4999")):
            client.post("/v1/heartbeats", json=told(sent_at=at(seconds), equity=equity))
            [account] = client.get("/v1/accounts").json()
            # Heard at noon by the service's clock, whatever the bot's says: no grace has passed.
            assert account["reconciliation"]["state"] == "AGREES"
        client.post("/v1/heartbeats", json=told(STRAY, started_at=at(30), sent_at=at(30)))
        [account] = client.get("/v1/accounts").json()
        assert account["reconciliation"]["state"] == "DIFFERS"
        assert asked(client).status_code == 200


def test_the_log_says_once_what_halts_trading(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_btc(engine)
    app = application(engine)
    keeper = StatusKeeper(app, tmp_path / "status.json")

    def said(*events: dict[str, Any]) -> list[str]:
        for sent in events:
            client.post("/v1/heartbeats", json=sent)
            keeper.look()
        found = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Trading")]
        caplog.clear()
        return found

    with service(engine) as client, caplog.at_level(logging.INFO, "liveops.status_file"):
        # The balance that differs is another each time: that is no news.
        stray = [told(STRAY, sent_at=at(n), equity=str(9000 + n)) for n in range(3)]
        assert said(*stray) == ["Trading halted"]
        assert said(told(sent_at=at(9))) == ["Trading resumed"]


# The SDK


@pytest.fixture
def hands() -> Hands:
    return Hands()


def beat(*held: Any, **fields: Any) -> Heartbeat:
    of = {"bot": "alpha", "account": "usd", "started_at": NOON, "candles": {}}
    of |= {"api_errors_total": 0, "open_positions": len(held), "positions": held}
    return Heartbeat(**(of | fields))


def blocked(engine: Engine) -> Callable[[], bool]:
    def is_so() -> bool:
        found = health.read(engine, now=NOON).accounts[0].reconciliation
        return found is not None and found.state == "BLOCKED"

    return is_so


def test_a_bot_that_was_told_of_a_mismatch_decides_nothing_alone(
    engine: Engine, tmp_path: Path, hands: Hands
) -> None:
    open_btc(engine)
    with (
        service(engine) as served,
        Client(str(served.base_url), "btc", spool_dir=tmp_path, **hands.options()) as bot,
    ):
        held = bot.assign("held", "BTCUSD")
        bot.claim(held)
        bot.heartbeat(beat(held.id, STRAY))
        eventually(blocked(engine))
        hands.pass_by(1)
        with pytest.raises(Unreconciled, match=f"1 unknown: {STRAY}"):
            bot.assign("new", "BTCUSD")
        # What is open goes on, and that says nothing of what would open.
        close = bot.assign("close", "BTCUSD", position=held)
        bot.claim(close)
        assert bot._client._driver.core.spool.contact().standing is Standing.UNRECONCILED
        url = str(served.base_url)
    # Away, also after a restart: no fallback.
    hands.pass_by(1)
    with (
        Client(url, "btc", spool_dir=tmp_path, failures_max=1, **hands.options()) as bot,
        pytest.raises(Unreconciled, match="was unreconciled when it was last heard of"),
    ):
        bot.assign("alone", "BTCUSD", deadline=0.2)


def test_the_answer_to_a_heartbeat_is_enough_to_know(
    engine: Engine, tmp_path: Path, hands: Hands
) -> None:
    open_btc(engine)

    async def trade(url: str) -> None:
        async with AsyncClient(url, "btc", spool_dir=tmp_path, **hands.options()) as bot:
            await bot.assign("before", "BTCUSD")
            hands.pass_by(1)
            await bot.heartbeat(beat(STRAY))
            spool = bot._driver.core.spool
            await asyncio.to_thread(
                eventually, lambda: spool.contact().standing is Standing.UNRECONCILED
            )
            hands.pass_by(1)
            await bot.heartbeat(beat())
            await asyncio.to_thread(eventually, lambda: not blocked(engine)())
            # Only an answer that opens something says that something may open.
            assert spool.contact().standing is Standing.UNRECONCILED
            await bot.assign("after", "BTCUSD")
            assert spool.contact().standing is Standing.OPEN

    with service(engine) as served:
        asyncio.run(trade(str(served.base_url)))


def test_a_position_that_a_bot_opened_alone_is_told_by_its_id_once_it_has_one(
    engine: Engine, tmp_path: Path, hands: Hands
) -> None:
    open_btc(engine)
    with service(engine) as served:
        url = str(served.base_url)
        with Client(url, "btc", spool_dir=tmp_path, **hands.options()) as bot:
            bot.assign("before", "BTCUSD")
    with Client(url, "btc", spool_dir=tmp_path, failures_max=1, **hands.options()) as bot:
        alone = bot.assign("alone", "BTCUSD", deadline=0.2)
        assert alone.is_fallback
        core = bot._client._driver.core

        def positions() -> Any:
            request = core.beats.request(beat(alone.id), sent_at=NOON)
            assert request is not None
            return json.loads(request.body)["positions"]

        assert positions() == []
        row = core.spool.report_of("alone")
        assert row is not None
        taken = Verdict(fate=Fate.ACKNOWLEDGED, assignment_id=AssignmentId(STRAY))
        core.spool.settle([row], [taken], now=NOON)
        assert positions() == [STRAY]


# The command line


def test_a_person_accepts_a_deposit_on_the_command_line(
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    open_btc(engine)
    for minute in (0, 1):
        moment = NOON + timedelta(minutes=minute)
        sent = vitals.beat(sent_at=moment, account="usd", equity=Decimal(12_000))
        health.hear(engine, sent, now=moment, window=timedelta(minutes=10))

    def command(*arguments: str) -> str:
        assert cli.exit_code(cli.app, ["account", *arguments]) == 0
        return " ".join(capsys.readouterr().out.split())

    differs = "balance: bots tell 12000, the ledger 10000.00000000"
    assert f"differ (BLOCKED) since 2026-03-01 12:01: {differs}" in command("show", "usd")
    said = command("reconcile", "usd", "--reason", "deposit")
    assert "bots and ledger agree; accepted: 0 positions, 2000.00000000 of what they tell" in said
    shown = json.loads(command("list", "--json"))[0]["reconciliation"]
    assert (shown["state"], shown["accepted_difference"]) == ("AGREES", "2000.00000000")
    assert cli.exit_code(cli.app, ["account", "reconcile", "third", "--reason", "x"]) == 2
