"""Experiments that were open before there were guards get theirs, and are guarded at once."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from guarded_ledger import WIDE, earn, guard_reports, states
from ledger import assign, open_btc, open_eth
from sqlalchemy import text

from bandit.core.guard_rule import GuardRule, GuardState
from bandit.storage.engine import connect
from bandit.storage.migrate import upgrade

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def test_open_experiments_and_their_accounts_are_guarded_by_the_documents_rule(
    empty_url: str,
) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = empty_url
    command.upgrade(config, "0023")
    engine = connect(empty_url)
    open_btc(engine, loss_limits=WIDE)
    open_eth(engine, account="apart")
    with engine.begin() as connection:
        # As releases before guards wrote them down.
        connection.execute(text("UPDATE experiments SET rules = rules - 'guard'"))
    upgrade(empty_url)
    reports = guard_reports(engine)
    assert {name: report.record.kind for name, report in reports.items()} == {
        "usd": "account",
        "btc": "experiment",
        "apart": "account",
        "eth": "experiment",
    }
    assert {report.record.guard.rule for report in reports.values()} == {GuardRule()}
    earn(engine, "-501")
    assert states(engine) == {
        "usd": GuardState.REDUCED,
        "btc": GuardState.REDUCED,
        "apart": GuardState.NORMAL,
        "eth": GuardState.NORMAL,
    }
    assert assign(engine, ["next"])[0].size_multiplier == 0.5
    engine.dispose()
