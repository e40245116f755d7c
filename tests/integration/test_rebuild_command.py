"""`liveops ledger rebuild` and the nightly comparison: what they say, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from api_service import application, service
from ledger import CHALLENGER, NIGHT, count, feed, open_btc
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from bandit.service import rebuilding
from liveops import cli, monitor
from liveops.clock import VirtualClock
from liveops.metrics import FRESH

FORGE = "UPDATE arm_statistics SET n_wins = 1, fees = 7 WHERE n_trades > 0"
METRIC = "liveops_statistics_mismatches"


@pytest.fixture
def command(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    open_btc(engine)
    feed(engine, CHALLENGER, ["0.002", "0.001", "-0.001"])

    def run(*arguments: str) -> int:
        return cli.exit_code(cli.app, ["ledger", "rebuild", *arguments])

    return run


def forge(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(FORGE))


def test_check_names_arm_and_column_and_fails(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--check") == 0
    assert capsys.readouterr().out == "2 arms, columns that differ: 0\n"
    forge(engine)
    assert command("--check") == 1
    assert capsys.readouterr().out.splitlines() == [
        f"btc/{CHALLENGER}: arm_statistics.n_wins",
        f"btc/{CHALLENGER}: arm_statistics.fees",
        "2 arms, columns that differ: 2",
    ]
    assert command("--check", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["arms"] == 2
    assert said["mismatches"][0] == {
        "experiment": "btc",
        "policy": CHALLENGER,
        "table": "arm_statistics",
        "column": "n_wins",
    }


def test_rebuild_repairs_and_the_next_check_passes(
    engine: Engine, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    forge(engine)
    assert command() == 0
    assert capsys.readouterr().out.endswith("2 arms, columns that were written anew: 2\n")
    assert command("--check") == 0
    assert command() == 0
    assert rebuilding.newest_mismatches(engine) == 0


def test_night_compares_once_and_the_metric_tells(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, ["0.002", "0.001", "-0.001"])
    clock = VirtualClock(NIGHT)
    app = application(engine, clock=clock)
    with service(engine, clock=clock) as client:

        def shown() -> list[float]:
            families = text_string_to_metric_families(client.get("/metrics").text)
            return [s.value for f in families for s in f.samples if s.name == METRIC]

        assert shown() == []
        assert monitor.wrong_statistics(app) == ()
        clock.advance_to(NIGHT + FRESH)
        assert shown() == [0.0]
        forge(engine)
        # Done for today.
        assert monitor.wrong_statistics(app) == ()
        assert count(engine, "statistics_comparisons") == 1
        clock.advance_to(NIGHT + timedelta(days=1))
        assert {m.column for m in monitor.wrong_statistics(app)} == {"n_wins", "fees"}
        assert shown() == [2.0]
