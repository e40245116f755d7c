"""Heartbeats of the SDK: they reach the service, and never keep or end a trade."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from api_service import service
from ledger import NOON, open_btc
from sdk_bot import UNIT, Hands, ScriptedService, eventually, problem, scripted
from sqlalchemy import Engine

from bandit.service import health
from liveops.client import AsyncClient, Client, Heartbeat

STARTED = NOON - timedelta(days=1)


def beat(**fields: Any) -> Heartbeat:
    told = {
        "bot": "alpha",
        "started_at": STARTED,
        "candles": {"BTCUSDT": NOON},
        "api_errors_total": 0,
        "open_positions": 1,
    }
    return Heartbeat(**(told | fields))


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def scripted_service() -> Iterator[ScriptedService]:
    with scripted() as service:
        yield service


def told_of(service: ScriptedService) -> list[Any]:
    return service.bodies.get("heartbeat", [])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "heartbeat" in record.getMessage()]


def test_everything_a_bot_tells_reaches_the_ledger(
    engine: Engine, tmp_path: Path, hands: Hands
) -> None:
    open_btc(engine)
    whole = beat(
        account="usd",
        candle_seconds=3600,
        api_errors_total=3,
        equity=Decimal("10001.50"),
        breakers={"orders": "half_open"},
        model_version="2.1",
        model_trained_at=STARTED,
        last_trade_at=NOON,
    )
    with (
        service(engine, key="key") as client,
        Client(
            str(client.base_url), "btc", key="key", spool_dir=tmp_path, **hands.options()
        ) as bot,
    ):
        bot.heartbeat(whole)
        eventually(lambda: len(health.known_bots(engine)) == 1)
        hands.pass_by(1)
        bot.heartbeat(beat(running=False))
    # Closing waits for the last one: it says that the bot stops.
    [known] = health.known_bots(engine)
    assert not known.newest.running
    assert known.newest.sent_at == NOON + timedelta(seconds=1)


def test_what_is_told_is_what_is_stored(engine: Engine, tmp_path: Path, hands: Hands) -> None:
    open_btc(engine)

    async def tell(url: str) -> None:
        async with AsyncClient(url, "btc", spool_dir=tmp_path, **hands.options()) as bot:
            await bot.heartbeat(
                beat(equity=Decimal("1.5"), breakers={"orders": "open"}, model_version="2.1")
            )

    with service(engine) as client:
        asyncio.run(tell(str(client.base_url)))
    [known] = health.known_bots(engine)
    newest = known.newest
    assert (newest.equity, newest.model_version, newest.model_trained_at) == (
        Decimal("1.5"),
        "2.1",
        None,
    )
    assert ({k: v.value for k, v in newest.breakers.items()}, dict(newest.candles)) == (
        {"orders": "open"},
        {"BTCUSDT": NOON},
    )


def test_a_service_that_hangs_keeps_nobody(tmp_path: Path, hands: Hands) -> None:
    """Calls return while the service has not answered the first of them, and the newest wins."""
    hold = threading.Event()

    def held(body: Any) -> tuple[int, Any]:
        hold.wait(30)
        return 200, {"bot": body["bot"]}

    with scripted() as service:
        service.answers["heartbeat"] = held
        with Client(service.url, "btc", spool_dir=tmp_path, **hands.options()) as bot:
            bot.heartbeat(beat(open_positions=0))
            eventually(lambda: len(told_of(service)) == 1)
            for number in range(1, 50):
                bot.heartbeat(beat(open_positions=number))
            assert bot.assign(UNIT, "BTCUSD").policy == "prod"  # nor a decision
            hold.set()
            eventually(lambda: len(told_of(service)) > 1)
        assert told_of(service)[0]["open_positions"] == 0
        assert told_of(service)[-1]["open_positions"] == 49
        assert len(told_of(service)) < 50


def test_a_service_that_is_away_is_logged_once_and_no_decision_feels_it(
    tmp_path: Path, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="liveops.client"), scripted() as service:
        service.answers["heartbeat"] = lambda _: problem(503, "ledger_unavailable")
        with Client(service.url, "btc", spool_dir=tmp_path, **hands.options()) as bot:
            for _ in range(4):
                before = len(told_of(service))
                bot.heartbeat(beat())
                eventually(lambda n=before: len(told_of(service)) >= n + 2)
            eventually(lambda: len(said(caplog)) == 1)
            # Four heartbeats, each tried twice: more than open the circuit of decisions.
            assert not bot.assign(UNIT, "BTCUSD").is_fallback
            del service.answers["heartbeat"]
            bot.heartbeat(beat())
            eventually(lambda: len(said(caplog)) == 2)
    assert said(caplog) == [
        "the heartbeat does not arrive: the service is away",
        "heartbeats arrive again",
    ]


def test_nothing_of_it_is_spooled(tmp_path: Path, hands: Hands) -> None:
    client = Client("http://127.0.0.1:9", "btc", spool_dir=tmp_path, **hands.options())
    try:
        client.heartbeat(beat())
        assert client.pending() == 0
    finally:
        client.close(timeout=0)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"started_at": datetime(2026, 3, 1)}, "started_at"),  # noqa: DTZ001 - what is refused
        ({"equity": 1.5}, "equity"),
        ({"model_trained_at": NOON}, "model_version"),
        ({"candles": {"BTCUSDT": "noon"}}, "candles.BTCUSDT"),
        ({"api_errors_total": float("nan")}, "heartbeat"),
    ],
)
def test_what_cannot_be_told_is_logged_and_raises_nothing(
    scripted_service: ScriptedService,
    tmp_path: Path,
    hands: Hands,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
    what: str,
) -> None:
    with (
        caplog.at_level(logging.INFO, logger="liveops.client"),
        Client(scripted_service.url, "btc", spool_dir=tmp_path, **hands.options()) as bot,
    ):
        bot.heartbeat(beat(**fields))
        bot.heartbeat(beat(**fields))
        eventually(lambda: len(said(caplog)) == 1)
        assert what in said(caplog)[0]
        bot.heartbeat(beat())
        eventually(lambda: len(told_of(scripted_service)) == 1)


def test_a_refusal_is_logged_with_its_reason(
    scripted_service: ScriptedService,
    tmp_path: Path,
    hands: Hands,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scripted_service.answers["heartbeat"] = lambda _: problem(403, "scope_missing", "no ingest")
    with (
        caplog.at_level(logging.INFO, logger="liveops.client"),
        Client(scripted_service.url, "btc", spool_dir=tmp_path, **hands.options()) as bot,
    ):
        bot.heartbeat(beat())
        eventually(lambda: len(said(caplog)) == 1)
    assert "the service refuses it (scope_missing): no ingest" in said(caplog)[0]


def test_a_closed_client_takes_heartbeats_and_does_nothing(
    scripted_service: ScriptedService, tmp_path: Path, hands: Hands
) -> None:
    client = Client(scripted_service.url, "btc", spool_dir=tmp_path, **hands.options())
    client.close()
    client.heartbeat(beat())

    async def closed() -> None:
        bot = AsyncClient(scripted_service.url, "btc", spool_dir=tmp_path, **hands.options())
        await bot.close()
        await bot.heartbeat(beat())

    asyncio.run(closed())
    assert told_of(scripted_service) == []


def test_what_the_bot_changes_later_is_not_told() -> None:
    candles = {"BTCUSDT": NOON}
    told = beat(candles=candles)
    candles["BTCUSDT"] = STARTED
    assert told.candles == {"BTCUSDT": NOON}
