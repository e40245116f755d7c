"""How a mismatch ends, what it leaves alone, and what is said of it."""

from __future__ import annotations

from decimal import Decimal
from uuid import uuid4

import pytest
from guarded_ledger import pause
from ledger import NOON, assign, closed, count, open_btc, open_eth, record_all
from reconciled_ledger import (
    AGREES,
    BLOCKED,
    DIFFERS,
    SECOND,
    accept,
    changes,
    differs,
    found,
    opened,
    state,
    tell,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.errors import InvalidInput, Killed, UnknownName, Unreconciled
from bandit.core.health import HealthLimits, assess, is_halted
from bandit.core.kill_switch import KillCause
from bandit.core.model import UnitId
from bandit.core.reconciling import ReconciliationRule
from bandit.service import health, killing, reconciling
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity


def test_a_person_accepts_what_is_missing_until_it_has_its_outcome(engine: Engine) -> None:
    open_btc(engine)
    [gone] = opened(engine, "gone")
    differs(engine)
    accept(engine)
    assert state(engine) is AGREES
    assert changes(engine)[-1] == ("BLOCKED", "AGREES", "alice")
    for seconds in (100, 160, 220):
        tell(engine, seconds)
    assert (state(engine), len(found(engine).reconciliation.accepted)) == (AGREES, 1)
    assert len(assign(engine, ["next"])) == 1
    record_all(engine, [closed(gone, "0.001", minutes=1)], now=NOON)
    tell(engine, 280)
    assert found(engine).reconciliation.accepted == frozenset()


def test_a_person_accepts_what_the_ledger_does_not_know_while_it_is_held(engine: Engine) -> None:
    open_btc(engine)
    stray = uuid4()
    differs(engine, stray)
    accept(engine)
    tell(engine, 100, stray, started_at=NOON)  # a restart does not undo it
    assert state(engine) is AGREES
    tell(engine, 101, started_at=NOON)
    tell(engine, 102, stray, started_at=NOON)
    tell(engine, 162, stray, started_at=NOON)
    assert state(engine) is BLOCKED


def test_a_deposit_is_accepted_once_and_taken_off_from_then_on(engine: Engine) -> None:
    open_btc(engine)
    differs(engine, equity=Decimal(12_000))
    accept(engine, "deposit of 2,000")
    assert found(engine).reconciliation.accepted_difference == Decimal(2000)
    tell(engine, 100, equity=Decimal(12_050))
    tell(engine, 160, equity=Decimal(12_050))
    assert state(engine) is AGREES
    tell(engine, 220, equity=Decimal(10_000))
    tell(engine, 280, equity=Decimal(10_000))
    assert state(engine) is BLOCKED
    assert "2000.00000000 of it accepted" in found(engine).differs
    accept(engine, "withdrawn again")
    assert found(engine).reconciliation.accepted_difference == 0


def test_accepting_nothing_changes_nothing_and_needs_a_reason(engine: Engine) -> None:
    open_btc(engine)
    accept(engine)
    tell(engine)
    accept(engine)
    assert changes(engine) == []
    with pytest.raises(InvalidInput, match="reason"):
        accept(engine, " ")
    with pytest.raises(UnknownName, match="no account is registered as 'third'"):
        reconciling.accept(engine, "third", reason="checked", now=NOON, actor="alice")


def test_every_change_is_audited_with_what_differed(engine: Engine) -> None:
    open_btc(engine)
    [gone] = opened(engine, "gone")
    differs(engine)
    accept(engine)
    statement = (
        "SELECT actor, subject, details ->> 'to' AS state, details ->> 'differed' AS differed"
        " FROM audit_log WHERE action = 'reconciliation' ORDER BY id"
    )
    with engine.connect() as connection:
        told = [tuple(row) for row in connection.execute(text(statement))]
    assert told == [
        ("rule:reconciliation", "usd", "BLOCKED", f"1 missing: {gone.id}"),
        ("alice", "usd", "AGREES", f"1 missing: {gone.id}"),
    ]


def test_a_killed_account_stays_killed_whatever_agrees(engine: Engine) -> None:
    open_btc(engine)
    [gone] = opened(engine, "gone")
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    differs(engine)
    assert state(engine) is BLOCKED
    with pytest.raises(Killed):
        assign(engine, ["next"])
    tell(engine, 61, gone)
    with pytest.raises(Killed):
        assign(engine, ["next"])
    killing.release(engine, None, reason="over", now=NOON, actor="test")
    assert len(assign(engine, ["next"])) == 1


def test_a_release_does_not_end_a_mismatch(engine: Engine) -> None:
    open_btc(engine)
    opened(engine, "gone")
    differs(engine)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    killing.release(engine, None, reason="over", now=NOON, actor="test")
    with pytest.raises(Unreconciled):
        assign(engine, ["next"])


def test_a_paused_account_that_differs_stores_nothing_on_paper(engine: Engine) -> None:
    open_btc(engine)
    opened(engine, "gone")
    pause(engine)
    differs(engine)
    before = count(engine, "assignments")
    with pytest.raises(Unreconciled):
        assign(engine, ["next"])
    assert count(engine, "assignments") == before


def test_other_accounts_go_on(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine, account="second")
    opened(engine, "gone")
    differs(engine)
    asked = [Opportunity(unit_id=UnitId("u"), instrument="BTCUSD")]
    assert len(Router(engine).assign("eth", asked, now=NOON)) == 1


def test_where_nothing_is_to_be_blocked_a_mismatch_is_shown(engine: Engine) -> None:
    open_btc(engine)
    opened(engine, "gone")
    shown = ReconciliationRule(blocks=False)
    differs(engine, rule=shown)
    assert state(engine) is DIFFERS
    assert len(assign(engine, ["next"])) == 1
    tell(engine, 120)  # a service that blocks is in force with the next heartbeat
    assert state(engine) is BLOCKED
    tell(engine, 180, rule=shown)
    assert state(engine) is DIFFERS
    assert len(assign(engine, ["another"])) == 1


def test_health_is_degraded_and_trading_halted_by_a_mismatch(engine: Engine) -> None:
    open_btc(engine)
    [gone] = opened(engine, "gone")
    differs(engine, equity=Decimal(9000))
    vitals = health.read(engine, now=NOON + 61 * SECOND).vitals
    issues = assess(vitals, HealthLimits()).issues
    assert {i.condition.value for i in issues} >= {"positions_differ", "balance_differs"}
    [positions] = [i for i in issues if i.condition.value == "positions_differ"]
    assert positions.text == (
        f"account usd differs from what bots tell, nothing new opens: 1 missing: {gone.id}"
    )
    assert is_halted(vitals)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'AGREES'",
        "change_id = NULL, state = 'AGREES'",
        "account_id = 2",
    ],
)
def test_the_ledger_itself_lets_no_state_change_without_its_row(
    engine: Engine, change: str
) -> None:
    open_btc(engine)
    opened(engine, "gone")
    differs(engine)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(f"UPDATE reconciliations SET {change}"))
