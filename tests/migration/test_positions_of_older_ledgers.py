"""What is open in a ledger of before takes its places once sizing limits come."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from ledger import NOON, SALT, assign, closed, open_btc, record_all, register
from sqlalchemy import text

from bandit.core.account import LossLimits
from bandit.core.errors import PositionLimit
from bandit.core.ladder import LadderRule
from bandit.core.limits import Limits
from bandit.core.marks import Mark
from bandit.core.model import Experiment, UnitId
from bandit.core.reading import Rules
from bandit.core.sizing import SizingRule
from bandit.service import experiments, marking
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from bandit.storage.migrate import upgrade

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def test_claims_without_an_outcome_are_open_positions(empty_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = empty_url
    before = ScriptDirectory.from_config(config).get_revision("0030").down_revision
    command.upgrade(config, before)
    engine = connect(empty_url)
    open_btc(engine, rules=Rules(ladder=LadderRule(attribution_hours=5)), equity_fraction=0.02)
    held, marked, ended, unclaimed = assign(engine, ["held", "marked", "ended", "unclaimed"])
    follower = Opportunity(unit_id=UnitId("next"), instrument="BTCUSD", position=held.id)
    [follower] = Router(engine).assign("btc", [follower], now=NOON)
    later = NOON + timedelta(hours=3)
    with engine.begin() as connection:
        # As releases before wrote them down.
        connection.execute(text("UPDATE experiments SET rules = rules - 'sizing'"))
        claims = "SELECT count(*) FROM commit_claims(3, :now, CAST(:ids AS uuid[]))"
        ids = [str(each.id) for each in (held, marked, ended, follower)]
        connection.execute(text(claims), {"now": NOON, "ids": ids})
    marking.mark(
        engine,
        [Mark(assignment_id=marked.id, unrealised_pnl=Decimal(1), marked_at=later)],
        now=later,
    )
    record_all(engine, [closed(ended, "0.001")], now=later)
    upgrade(empty_url)
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT assignment_id, share, alive_until FROM open_positions")
        ).all()
    assert {row[0]: tuple(row[1:]) for row in found} == {
        held.id: (Decimal("0.02"), NOON + timedelta(hours=5)),
        marked.id: (Decimal("0.02"), later + timedelta(hours=5)),
    }
    # The old experiment refuses nothing; a new one of the account counts what it holds.
    assert experiments.load(engine, "btc").sizing is None
    assert Router(engine).claim(unclaimed.id, now=NOON) == NOON
    experiments.open_experiment(
        engine,
        Experiment(
            name="new",
            champion=register(engine, "new-prod", "cccccccc"),
            capital=Decimal(10_000),
            currency="USD",
            equity_fraction=0.01,
        ),
        challengers=[],
        salt=SALT,
        limits=Limits(),
        loss_limits=LossLimits(),
        rules=Rules(sizing=SizingRule(max_open_positions=3)),
        now=NOON,
        actor="test",
    )
    asked = [Opportunity(unit_id=UnitId("u"), instrument="BTCUSD")]
    [made] = Router(engine).assign("new", asked, now=NOON)
    with pytest.raises(PositionLimit) as refused:
        Router(engine).claim(made.id, now=NOON)
    assert refused.value.found == 3
    engine.dispose()


def test_a_replica_of_the_release_before_claims_as_it_did(database_url: str) -> None:
    engine = connect(database_url)
    open_btc(engine, rules=Rules(sizing=SizingRule(max_open_positions=1)))
    made = assign(engine, ["a", "b"])
    columns = "id, verdict, claimed_at, expires_at, experiment, policy, scope, since, reason"
    with engine.begin() as connection:
        found = connection.execute(
            text(f"SELECT {columns} FROM commit_claims(3, :now, CAST(:ids AS uuid[]))"),
            {"now": NOON, "ids": [str(each.id) for each in made]},
        ).all()
    assert sorted(row.verdict for row in found) == ["claimed", "full"]
    engine.dispose()
