"""`liveops close-all` and `close-orders`: said at once, watched to the end, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger import NIGHT, assign, closed, count, open_btc, record_all
from sdk_bot import eventually
from sqlalchemy import Engine

from bandit.core.kill_switch import KillCause
from bandit.core.model import Assignment
from bandit.service import closing, killing
from bandit.service.assigning import Router
from liveops import cli
from liveops.clock import SystemClock

ORDER = ("close-all", "btc", "--reason", "drill")


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    return lambda *arguments: cli.exit_code(cli.app, list(arguments))


def hold(engine: Engine, unit: str = "held") -> Assignment:
    [made] = assign(engine, [unit])
    Router(engine).claim(made.id, now=made.decided_at)
    return made


def test_an_order_says_what_it_concerns_and_what_it_does_not_do(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    made = hold(engine)
    assert command(*ORDER) == 0
    first, target, note = capsys.readouterr().out.splitlines()
    assert first.endswith(" of btc: positions to be closed 1, with those of earlier orders 1")
    assert target.startswith(f"  held BTCUSD by {made.policy}, order ")
    assert note == ("new positions may open: `liveops kill --account usd --reason ...` stops that")
    killing.kill(engine, None, cause=KillCause.HAND, reason="x", now=NIGHT, actor="ann")
    assert command(*ORDER) == 0
    said = capsys.readouterr().out.splitlines()
    assert "to be closed 0, with those of earlier orders 1" in said[0]
    assert said[1:] == ["account usd is killed: nothing new opens"]


def test_what_waits_is_listed_with_what_bots_said(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    made = hold(engine)
    assert command(*ORDER, "--json") == 0
    order = json.loads(capsys.readouterr().out)
    assert (order["waiting"], order["killed"]) == (1, False)
    assert order["actor"].startswith("cli:")
    now = SystemClock().now()
    closing.failed(engine, order["order_id"], made.id, reason="no bid", now=now, actor="bot")
    assert command("close-orders", "btc") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "btc: positions that wait to be closed 1"
    assert said[1].endswith(", failed: no bid")
    assert command("close-orders", "btc", "--json") == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["unit_id"], told["failure"]["reason"]) == ("held", "no bid")


def test_waiting_ends_with_the_last_outcome(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    made = hold(engine)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(command, *ORDER, "--wait", "60")
        eventually(lambda: count(engine, "close_targets") == 1)
        assert not ended.done()
        record_all(engine, [closed(made, "0.001")], now=NIGHT)
        assert ended.result(timeout=60) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all are closed"


def test_what_is_open_still_when_the_time_is_over_fails_the_command(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    hold(engine)
    assert command(*ORDER, "--wait", "0.01") == 1
    assert "1 open still" in capsys.readouterr().out
    # What an earlier order waits for is waited for too.
    assert command(*ORDER, "--wait", "0.01", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["positions"] == []
    assert [target["unit_id"] for target in told["open"]] == ["held"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("close-all", "btc"), 2),
        (("close-all", "btc", "--reason", " "), 2),
        (("close-all", "none", "--reason", "x"), 2),
        (("close-all", "btc", "--reason", "x", "--wait", "-1"), 2),
        (("close-orders", "none"), 2),
    ],
)
def test_what_is_asked_wrongly_is_refused(
    engine: Engine, command: Callable[..., int], arguments: tuple[str, ...], code: int
) -> None:
    open_btc(engine)
    assert command(*arguments) == code
    assert count(engine, "close_orders") == 0
