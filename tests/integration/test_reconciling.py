"""What bots hold against the ledger: each difference, when it counts, and what it stops."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from ledger import NOON, assign, closed, count, open_btc, open_eth, record_all
from reconciled_ledger import (
    AGREES,
    BLOCKED,
    SECOND,
    changes,
    differs,
    found,
    opened,
    state,
    tell,
)
from sqlalchemy import Engine

from bandit.core.errors import Unreconciled
from bandit.core.marks import Mark
from bandit.core.model import Assignment, UnitId
from bandit.core.reconciling import ReconciliationState
from bandit.service import marking
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity


def test_a_bot_that_holds_what_the_ledger_says_agrees(engine: Engine) -> None:
    open_btc(engine)
    [held] = opened(engine, "held")
    differs(engine, held, equity=Decimal("10100"))
    assert state(engine) is AGREES
    assert changes(engine) == []
    assert len(assign(engine, ["next"])) == 1


def test_a_bot_that_tells_nothing_is_not_judged(engine: Engine) -> None:
    open_btc(engine)
    opened(engine, "held")
    for fields in ({"positions": None}, {"positions": None, "account": "none-of-ours"}):
        differs(engine, **fields, bot="alpha" if "account" not in fields else "beta")
    assert found(engine) is None


@pytest.mark.parametrize("held", ["unknown", "closed", "unclaimed", "other_account", "not_opening"])
def test_each_position_that_the_ledger_does_not_have_open_blocks(engine: Engine, held: str) -> None:
    open_btc(engine)
    open_eth(engine, account="second")
    [position] = opened(engine, "position")
    if held == "unknown":
        position_id = uuid4()
    elif held == "unclaimed":
        position_id = assign(engine, ["other"])[0].id
    elif held == "other_account":
        eth = [Opportunity(unit_id=UnitId("eth"), instrument="BTCUSD")]
        position_id = Router(engine).assign("eth", eth, now=NOON)[0].id
    elif held == "not_opening":
        position_id = next_of(engine, position).id
    else:
        [lost] = opened(engine, "lost")
        record_all(engine, [closed(lost, "0.001", minutes=1)], now=NOON)
        position_id = lost.id
    differs(engine, position, position_id)
    assert state(engine) is BLOCKED
    assert found(engine).differs == f"1 {held}: {position_id}"
    with pytest.raises(Unreconciled, match=f"1 {held}: {position_id}"):
        assign(engine, ["next"])


def next_of(engine: Engine, position: Assignment) -> Assignment:
    unit = UnitId(f"next-of-{position.unit_id}")
    asked = Opportunity(unit_id=unit, instrument="BTCUSD", position=position.id)
    [made] = Router(engine).assign("btc", [asked], now=NOON)
    return made


def test_a_mismatch_stops_what_opens_and_nothing_that_closes(engine: Engine) -> None:
    open_btc(engine)
    held, gone = opened(engine, "held", "gone")
    [waiting] = assign(engine, ["waiting"])
    differs(engine, held)
    with pytest.raises(Unreconciled, match=f"experiment btc: 1 missing: {gone.id}"):
        assign(engine, ["next"])
    with pytest.raises(Unreconciled, match=f"on the account: 1 missing: {gone.id}"):
        Router(engine).claim(waiting.id, now=NOON)
    close = next_of(engine, held)
    assert Router(engine).claim(close.id, now=NOON) == NOON
    record_all(engine, [closed(held, "0.001", minutes=1)], now=NOON)
    fallback = Opportunity(unit_id=UnitId("alone"), instrument="BTCUSD", fallback_at=NOON)
    assert Router(engine).assign("btc", [fallback], now=NOON)
    assert count(engine, "assignments") == 5


def test_a_mismatch_needs_two_heartbeats_and_its_grace(engine: Engine) -> None:
    open_btc(engine)
    tell(engine, 0)
    [gone] = opened(engine, "gone")
    for seconds in (30, 60, 89.9):
        tell(engine, seconds)
        assert state(engine) is AGREES
    assert len(assign(engine, ["before"])) == 1
    tell(engine, 90)
    assert state(engine) is BLOCKED
    tell(engine, 91, gone)
    assert state(engine) is AGREES
    assert len(assign(engine, ["after"])) == 1
    rule = "rule:reconciliation"
    assert changes(engine) == [("AGREES", "BLOCKED", rule), ("BLOCKED", "AGREES", rule)]


def test_the_first_heartbeat_of_a_run_has_no_grace_for_what_it_held_before(engine: Engine) -> None:
    open_btc(engine)
    [gone] = opened(engine, "gone", now=NOON - 9 * SECOND)
    tell(engine, 0, gone, started_at=NOON - 60 * SECOND)
    assert state(engine) is AGREES
    [later] = opened(engine, "later", now=NOON + 6 * SECOND)
    tell(engine, 10, started_at=NOON + 5 * SECOND)
    assert state(engine) is BLOCKED
    # What was claimed in this run may be on its way.
    assert found(engine).differs == f"1 missing: {gone.id}"
    tell(engine, 20, gone, later, started_at=NOON + 5 * SECOND)
    assert state(engine) is AGREES


def test_what_a_restored_ledger_does_not_know_blocks_the_restarted_bot_at_once(
    engine: Engine,
) -> None:
    open_btc(engine)
    lost = uuid4()
    tell(engine, 0, lost, started_at=NOON - SECOND)
    with pytest.raises(Unreconciled, match=f"1 unknown: {lost}"):
        assign(engine, ["next"])


def test_bots_of_one_account_hold_its_positions_together(engine: Engine) -> None:
    open_btc(engine)
    one, two = opened(engine, "one", "two")
    for seconds in (0, 60):
        tell(engine, seconds, one)
        tell(engine, seconds + 1, two, bot="beta")
    assert state(engine) is AGREES
    # The other one is silent: nobody knows that it holds anything.
    tell(engine, 170, one)
    tell(engine, 200, one)
    assert state(engine) is AGREES
    tell(engine, 260, one)
    assert found(engine).differs == f"1 missing: {two.id}"


def test_one_bot_that_tells_no_positions_makes_missing_ones_unknowable(engine: Engine) -> None:
    open_btc(engine)
    opened(engine, "held")
    for seconds in (0, 60, 120):
        tell(engine, seconds, bot="beta", positions=None)
        tell(engine, seconds + 1)
    assert state(engine) is AGREES


def test_a_decision_that_came_to_nothing_is_not_missed_and_a_marked_one_is(engine: Engine) -> None:
    open_btc(engine)
    dead, old = opened(engine, "dead", "old", now=NOON - timedelta(hours=73))
    alive = Mark(assignment_id=old.id, unrealised_pnl=Decimal(0), marked_at=NOON)
    marking.mark(engine, [alive], now=NOON)
    differs(engine)
    assert found(engine).differs == f"1 missing: {old.id}"
    tell(engine, 61, old, dead)  # and who holds it after all is right
    assert state(engine) is AGREES


@pytest.mark.parametrize(
    ("told", "expected"),
    [("10100", AGREES), ("9900", AGREES), ("10100.01", BLOCKED), ("9899.99", BLOCKED)],
)
def test_a_balance_differs_beyond_its_tolerance(
    engine: Engine, told: str, expected: ReconciliationState
) -> None:
    open_btc(engine)
    differs(engine, equity=Decimal(told))
    assert state(engine) is expected
    if expected is BLOCKED:
        with pytest.raises(Unreconciled, match=rf"bots tell {told}0*, the ledger 10000"):
            assign(engine, ["next"])


def test_the_newest_of_several_balances_counts(engine: Engine) -> None:
    open_btc(engine)
    for seconds in (0, 60):
        tell(engine, seconds, equity=Decimal(5000))
        tell(engine, seconds + 1, bot="beta", equity=Decimal(10_000))
    assert state(engine) is AGREES


def test_marks_are_part_of_the_ledgers_balance(engine: Engine) -> None:
    open_btc(engine)
    [held] = opened(engine, "held")
    mark = Mark(assignment_id=held.id, unrealised_pnl=Decimal(-250), marked_at=NOON)
    marking.mark(engine, [mark], now=NOON)
    differs(engine, held, equity=Decimal(9750))
    assert state(engine) is AGREES
    tell(engine, 120, held, equity=Decimal(10_000))
    tell(engine, 180, held, equity=Decimal(10_000))
    assert state(engine) is BLOCKED


def test_what_is_no_longer_told_stays_in_force(engine: Engine) -> None:
    open_btc(engine)
    [gone] = opened(engine, "gone")
    differs(engine, equity=Decimal(9000))
    before = found(engine).differs
    tell(engine, 61, positions=None)
    tell(engine, 62, running=False)
    assert (state(engine), found(engine).differs) == (BLOCKED, before)
    # The ledger itself says that this one has ended.
    record_all(engine, [closed(gone, "0.001", minutes=1)], now=NOON)
    tell(engine, 63, positions=None)
    assert found(engine).differs.startswith("balance: ")
