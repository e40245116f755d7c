"""`liveops guard`: shown, and begun anew by a person who says why."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from guarded_ledger import changes, earn, open_wide, pause, refused
from ledger import UNGUARDED, assign
from sqlalchemy import Engine

from liveops import cli


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    return lambda *arguments: cli.exit_code(cli.app, list(arguments))


def test_guards_are_shown_with_what_is_open_to_recover(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_wide(engine)
    assert command("guard", "show") == 0
    assert capsys.readouterr().out.splitlines() == [
        "guard of account usd: NORMAL, 0 of 10 trades, win rate unknown, 0 lost in a row, "
        "drawdown 0.00%",
        "guard of experiment btc: NORMAL, 0 of 10 trades, win rate unknown, 0 lost in a row, "
        "drawdown 0.00%",
    ]
    earn(engine, "-501")
    assert command("guard", "show", "btc") == 0
    said = capsys.readouterr().out
    assert "guard of experiment btc: REDUCED, 1 of 10 trades" in said
    assert "sizes x 0.5, confidence + 0.1: drawdown_percent 5.01 over 5" in said
    assert "to recover: win_rate_percent 1 of 5 trades of 45, drawdown_percent 5.01 of 5" in said
    pause(engine)
    assert command("guard", "show", "btc", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(g["scope"], g["state"], g["size_multiplier"]) for g in found] == [
        ("account", "PAUSED", 0.0),
        ("experiment", "PAUSED", 0.0),
    ]
    assert command("report", "btc") == 0
    said = capsys.readouterr().out
    assert "nothing new opens" in said
    assert command("guard", "show", "none") == 2


def test_a_person_begins_a_guard_anew(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_wide(engine)
    pause(engine)
    assert command("guard", "reset", "btc", "--reason", "looked into it") == 0
    assert capsys.readouterr().out.startswith("guard of experiment btc: NORMAL, 0 of 10 trades")
    assert refused(engine, "still").scope == "account"
    assert command("guard", "reset", "--account", "usd", "--reason", "looked into it") == 0
    (made,) = assign(engine, ["open"])
    assert made.size_multiplier == 1.0
    (_, (state, actor, reason)) = changes(engine, "btc")
    assert (state, reason) == ("NORMAL", "looked into it")
    assert actor.startswith("cli:")


@pytest.mark.parametrize(
    "given",
    [
        ("--reason", "x"),
        ("btc", "--account", "usd", "--reason", "x"),
        ("none", "--reason", "x"),
        ("--account", "none", "--reason", "x"),
        ("btc", "--reason", " "),
    ],
)
def test_what_cannot_be_begun_anew_is_refused(
    engine: Engine, command: Callable[..., int], given: tuple[str, ...]
) -> None:
    open_wide(engine)
    assert command("guard", "reset", *given) == 2
    assert changes(engine, "btc") == []


def test_a_guard_that_is_off_says_so(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    open_wide(engine, rules=UNGUARDED)
    assert command("guard", "show") == 0
    assert "guard of experiment btc: off" in capsys.readouterr().out
