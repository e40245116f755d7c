"""Close orders in the SDK, sync and async: what a bot is told, what it says, who may command."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_service import application, service
from ledger import NOON, count, open_btc
from sdk_bot import UNIT, Hands, earned, problem, scripted
from sqlalchemy import Engine

from bandit.service import closing, killing
from liveops.api.access import digest_of
from liveops.api.server import serving
from liveops.client import (
    AsyncClient,
    Client,
    CloseOrder,
    InvalidInput,
    Killed,
    RequestRefused,
    ServiceUnavailable,
)
from liveops.clock import SystemClock, VirtualClock

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    open_btc(engine)
    keys = [
        {"name": "bot", "scopes": ["trade", "ingest"], "sha256": digest_of(b"bot")},
        {"name": "desk", "scopes": ["operate"], "sha256": digest_of(b"desk")},
    ]
    with service(engine, key=KEY, keys=keys) as client:
        yield str(client.base_url)


def client_of(url: str, folder: Path, key: str | None = KEY, **options: Any) -> Client:
    return Client(url, "btc", key=key, spool_dir=folder, **(Hands().options() | options))


def test_from_the_order_to_the_outcome(url: str, engine: Engine, tmp_path: Path) -> None:
    with client_of(url, tmp_path / "bot", "bot") as bot, client_of(url, tmp_path, "desk") as desk:
        assert bot.close_orders() == []
        held = bot.assign(UNIT, "BTCUSD")
        bot.claim(held)
        ordered = desk.close_all_positions(reason="Emergency closure")
        [order] = bot.close_orders()
        assert ordered.positions == (order,)
        assert (ordered.waiting, ordered.killed) == (1, False)
        assert order == CloseOrder(
            order_id=ordered.order_id,
            reason="Emergency closure",
            since=NOON,
            assignment_id=held.id,
            unit_id=UNIT,
            instrument="BTCUSD",
            policy=held.policy,
        )
        bot.close_failed(order, "no bid")
        [target] = closing.waiting(engine, "btc")
        assert target.failure is not None
        assert (target.failure.reason, target.failure.actor) == ("no bid", "bot")
        earned(order.assignment_id, bot)
        assert bot.flush(30)
        assert bot.close_orders() == []
        again = desk.close_all_positions("once more")
        assert (again.positions, again.waiting) == ((), 0)


def test_the_async_client_does_the_same(url: str, engine: Engine, tmp_path: Path) -> None:
    async def bot() -> None:
        async with AsyncClient(
            url, "btc", key=KEY, spool_dir=tmp_path, **Hands().options()
        ) as client:
            held = await client.assign(UNIT, "BTCUSD")
            await client.claim(held)
            ordered = await client.close_all_positions("drill")
            [order] = await client.close_orders()
            assert ordered.positions == (order,)
            await client.close_failed(order, "no bid")
            await client.no_trade(order.assignment_id)
            assert await client.flush(30)
            assert await client.close_orders() == []
            await client.halt_trading("drill")
            with pytest.raises(Killed):
                await client.assign("next", "BTCUSD")

    asyncio.run(bot())
    assert count(engine, "close_failures") == 1


def test_halting_kills_the_account_and_closes_nothing(
    url: str, engine: Engine, tmp_path: Path
) -> None:
    with client_of(url, tmp_path) as client:
        client.claim(client.assign(UNIT, "BTCUSD"))
        client.halt_trading(reason="Emergency stop")
        with pytest.raises(Killed):
            client.assign("next", "BTCUSD")
        assert client.close_orders() == []
        assert client.close_all_positions("and close").killed
        assert len(client.close_orders()) == 1
    [account] = killing.states(engine)
    assert account.newest is not None
    assert (account.is_killed, account.newest.reason) == (True, "Emergency stop")


def test_commands_need_the_scope_of_operators(url: str, engine: Engine, tmp_path: Path) -> None:
    with client_of(url, tmp_path / "bot", "bot") as bot:
        for command in (bot.close_all_positions, bot.halt_trading):
            with pytest.raises(RequestRefused) as refused:
                command("drill")
            assert refused.value.code == "scope_missing"
    with client_of(url, tmp_path / "desk", "desk") as desk:
        with pytest.raises(RequestRefused) as refused:
            desk.close_orders()
        assert refused.value.code == "scope_missing"
    assert count(engine, "close_orders") == 0
    assert not killing.states(engine)[0].is_killed


@pytest.mark.parametrize("reason", ["", " ", "x" * 1001])
def test_a_reason_that_says_nothing_is_refused_before_anything_is_sent(
    url: str, engine: Engine, tmp_path: Path, reason: str
) -> None:
    with client_of(url, tmp_path) as client:
        for command in (client.close_all_positions, client.halt_trading):
            with pytest.raises(InvalidInput, match="reason"):
                command(reason)
    assert count(engine, "close_orders") == 0


def test_while_the_service_is_away_nothing_is_made_up(tmp_path: Path) -> None:
    with scripted() as served:
        client = client_of(served.url, tmp_path, None)
        client.assign(UNIT, "BTCUSD")  # now the champion would stand in
    with client:
        order = CloseOrder(
            order_id=1,
            reason="drill",
            since=NOON,
            assignment_id=client.assign(UNIT, "BTCUSD").id,
            unit_id=UNIT,
            instrument="BTCUSD",
            policy="prod",
        )
        with pytest.raises(ServiceUnavailable):
            client.close_orders(deadline=0.2)
        with pytest.raises(InvalidInput):  # what it decided alone has no id of the service yet
            client.close_failed(order, "no bid", deadline=0.2)
        with pytest.raises(ServiceUnavailable):
            client.close_all_positions("drill", deadline=0.2)


def test_a_halt_that_does_not_arrive_stops_at_least_this_bot(tmp_path: Path) -> None:
    with scripted() as served:
        client = client_of(served.url, tmp_path, None)
        client.assign(UNIT, "BTCUSD")
    with client:
        assert client.assign("before", "BTCUSD").is_fallback
        with pytest.raises(ServiceUnavailable):
            client.halt_trading("fire", deadline=0.2)
        with pytest.raises(Killed):
            client.assign("after", "BTCUSD")
    # Also after a restart: what it knows is on disk.
    with client_of(served.url, tmp_path, None) as again, pytest.raises(Killed):
        again.assign("later", "BTCUSD")


def test_a_command_is_tried_again_whatever_the_circuit_says(tmp_path: Path) -> None:
    tries = iter([problem(503, "ledger_unavailable")] * 3)
    done = {"order_id": 1, "positions": [], "waiting": 0, "killed": False}
    with scripted() as served, client_of(served.url, tmp_path, None, failures_max=1) as client:
        served.answers["close-all"] = lambda _: next(tries, (200, done))
        served.answers["assign"] = lambda _: problem(500, "internal_error")
        with pytest.raises(ServiceUnavailable):
            client.assign(UNIT, "BTCUSD")
        assert client.close_all_positions("drill").order_id == 1
        assert served.came.count("close-all") == 4


def test_an_answer_that_is_none_is_refused(tmp_path: Path) -> None:
    with scripted() as served, client_of(served.url, tmp_path, None) as client:
        for answer in ([{"order_id": 1}], {"a": 1}, None, [7]):
            served.answers["close-orders"] = lambda _, answer=answer: (200, answer)
            with pytest.raises(RequestRefused) as refused:
                client.close_orders()
            assert refused.value.code == "unexpected_answer"
        served.answers["close-all"] = lambda _: (200, {"order_id": "x"})
        with pytest.raises(RequestRefused) as refused:
            client.close_all_positions("drill")
        assert refused.value.code == "unexpected_answer"


def test_the_example_of_the_docs_closes_what_it_can(engine: Engine, tmp_path: Path) -> None:
    open_btc(engine)
    page = (REPOSITORY / "docs" / "sdk.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- closing -->\n```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    # A clock that stands and time to answer: no claim is late, however slow the machine is.
    app = application(engine, clock=VirtualClock(SystemClock().now()))
    program = block[1].replace('spool_dir="spool"', 'spool_dir="spool", deadline_seconds=30.0')
    assert program != block[1]
    with serving(app, host="127.0.0.1", port=0) as url:
        ran = subprocess.run(
            [sys.executable, "-c", program.replace("http://127.0.0.1:8800", url)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        with client_of(url, tmp_path / "spool", None) as later:
            assert later.flush(60)
    [target] = closing.waiting(engine, "btc")
    assert target.failure is not None
    assert (target.unit_id, target.failure.reason) == ("bar-2", "no bid")
    assert count(engine, "outcomes") == 2
