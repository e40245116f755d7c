"""`liveops budget`: set, read and cleared by a person, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from ledger import CHALLENGER, NOON, assign, assign_to, closed, open_btc, record_all
from sqlalchemy import Engine

from bandit.core.limits import Limits
from liveops import cli


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    return lambda *arguments: cli.exit_code(cli.app, list(arguments))


def test_a_budget_is_set_read_and_cleared(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine, limits=Limits(start_ppm=250_000))
    given = ("budget", "set", "btc", "--percent", "5", "--at-risk", "50", "--reason", "drill")
    assert command(*given) == 0
    said = capsys.readouterr().out
    assert "0.00 USD spent (0.00 % of capital) of 500.00, 0.00 set aside for 0 open" in said
    assert "room for 10 more decisions" in said
    assert "charged 50.00 until its outcome is told" in said

    made = assign(engine, [f"u-{i}" for i in range(9)])
    n = sum(a.policy == CHALLENGER for a in made)
    assert n > 0
    assert command("budget", "show", "btc", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["experiment"], found["amount_percent"], found["room"]) == ("btc", 5.0, 10 - n)
    assert found["arms"][CHALLENGER]["open_decisions"] == n

    assert command("budget", "open", "btc") == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == n
    assert f"50.00  {CHALLENGER}  u-" in listed[0]

    assert command("budget", "clear", "btc", "--reason", "drill") == 0
    assert "no budget" in capsys.readouterr().out
    assert command("budget", "clear", "btc", "--reason", "drill") == 1
    assert "conflict: experiment btc has no exploration budget" in capsys.readouterr().err


def test_every_place_says_when_there_is_no_room_left(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    given = ("budget", "set", "btc", "--amount", "6400", "--at-risk", "100", "--reason", "drill")
    assert command(*given) == 0
    [made] = assign_to(engine, CHALLENGER, 1)
    record_all(engine, [closed(made, "-0.01", pnl="-290")], now=NOON + timedelta(days=1))
    assert command("budget", "set", *given[2:4], "200", *given[5:]) == 0
    assert "OVER THE BUDGET: the champion decides" in capsys.readouterr().out
    assert command("report", "btc") == 0
    assert "OVER THE BUDGET" in capsys.readouterr().out
    assert command("explain", "btc", CHALLENGER) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "exploration budget: no room is left, so the champion decides" in said


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (["--amount", "12,5"], "--amount: must be an amount of money"),
        (["--amount", "nan"], "amount: must be"),
        (["--percent", "0"], "percent: must be above 0 and at most 100"),
        (["--amount", "5", "--percent", "5"], "must be given, or --percent, and not both"),
        ([], "must be given, or --percent, and not both"),
        (["--amount", "5", "--at-risk", "x"], "--at-risk: must be an amount of money"),
        (["--amount", "5"], "amount: must not be below what a decision is charged, 1000"),
    ],
)
def test_what_means_nothing_is_refused(
    engine: Engine,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    rule: str,
) -> None:
    open_btc(engine)
    assert command("budget", "set", "btc", *given, "--reason", "drill") == 2
    assert rule in capsys.readouterr().err
    assert command("budget", "show", "btc") == 0
    assert "no budget; 0.00 USD spent" in capsys.readouterr().out
