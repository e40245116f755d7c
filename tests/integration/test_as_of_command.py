"""`liveops ledger as-of`: what was known of an arm, told to a person and to a program."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from ledger import CHALLENGER, NOON, assign_to, closed, open_btc, record_all
from sqlalchemy import Engine

from bandit.service import revising
from liveops import cli


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    return lambda *arguments: cli.exit_code(cli.app, ["ledger", "as-of", *arguments])


@pytest.fixture
def corrected(engine: Engine) -> Engine:
    """A trade told on 1 March as a gain, and two days later as a loss."""
    open_btc(engine)
    [made] = assign_to(engine, CHALLENGER, 1)
    record_all(engine, [closed(made, "0.03")], now=NOON + timedelta(hours=2))
    later = NOON + timedelta(days=2)
    revising.revise(engine, closed(made, "-0.02"), reason="drill", now=later, actor="test")
    return engine


def test_a_correction_is_known_only_from_then_on(
    corrected: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for moment, pnl, state in (
        ("2026-03-01", "0", "no_trades"),
        ("2026-03-02T00:00:00Z", "30", "no_losses"),
        ("2026-03-04", "-20", "finite"),
    ):
        assert command("btc", "eee02a74", moment, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert float(found["pnl"]) == float(pnl)
        assert (found["policy"], found["profit_factor"]["state"]) == (CHALLENGER, state)
        assert found["as_of"].startswith(moment[:10])


def test_people_read_a_row(
    corrected: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("btc", CHALLENGER, "2026-03-04") == 0
    said = capsys.readouterr().out
    assert "as known at 2026-03-04 00:00:00" in " ".join(said.split())
    assert "-20.00" in said


def test_what_cannot_be_asked_for_is_refused(
    corrected: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (("eth", CHALLENGER, "2026-03-04"), "'eth'"),
        (("btc", "nobody", "2026-03-04"), "'nobody'"),
        (("btc", CHALLENGER, "soon"), "does not match the formats"),
    ):
        assert command(*arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
