"""Close orders: what is open by then, each position in one order, and only its outcome ends it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from guarded_ledger import open_wide, pause, refused
from ledger import (
    CHALLENGER,
    NOON,
    assign,
    assign_to,
    closed,
    count,
    open_btc,
    open_eth,
    record_all,
    together,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.closing import CloseOrder
from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.kill_switch import KillCause
from bandit.core.ladder import LadderRule
from bandit.core.marks import Mark
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import declined
from bandit.core.reading import Rules
from bandit.service import ageing, auditing, closing, health, killing, ledger, marking
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage import locks
from bandit.storage.engine import transaction
from snapshots.archive_files import ParquetArchives

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LATER = NOON + HOUR


def order(
    engine: Engine, *, now: datetime = LATER, experiment: str = "btc", reason: str = "drill"
) -> CloseOrder:
    return closing.close_all(engine, experiment, reason=reason, now=now, actor="ann")


def units(engine: Engine) -> list[str]:
    return [target.unit_id for target in closing.waiting(engine, "btc")]


def hold(engine: Engine, *names: str, now: datetime = NOON) -> list[Assignment]:
    """Open positions: decisions that a bot claimed."""
    made = assign(engine, names, now=now)
    for each in made:
        Router(engine).claim(each.id, now=now)
    return made


def mark(engine: Engine, made: Assignment, *, at: datetime) -> None:
    value = Mark(assignment_id=made.id, unrealised_pnl=Decimal(1), marked_at=at)
    (answer,) = marking.mark(engine, [value], now=at)
    assert not isinstance(answer, Exception), answer


def on_position(engine: Engine, opener: Assignment, unit: str, *, now: datetime) -> Assignment:
    asked = Opportunity(unit_id=UnitId(unit), instrument="BTCUSD", position=opener.id)
    [made] = Router(engine).assign("btc", [asked], now=now)
    return made


def test_an_order_concerns_what_is_open_and_nothing_else(engine: Engine) -> None:
    open_btc(engine)
    [held, traded, declining] = hold(engine, "held", "traded", "declining")
    assign(engine, ["unclaimed"])
    follower = on_position(engine, held, "follower", now=NOON)
    Router(engine).claim(follower.id, now=NOON)
    record_all(engine, [closed(traded, "0.001"), declined(declining.id)], now=LATER)
    found = order(engine)
    [target] = found.targets
    assert (target.unit_id, target.assignment_id) == ("held", held.id)
    assert (target.instrument, target.policy) == ("BTCUSD", held.policy)
    assert (target.reason, target.since, target.order_id) == ("drill", LATER, found.id)
    assert (found.waiting, found.account, found.is_killed) == (1, "usd", False)
    assert "liveops kill --account usd" in found.note


def test_what_a_pause_refused_is_followed_on_paper_and_is_not_open(engine: Engine) -> None:
    open_wide(engine)
    hold(engine, "held")
    pause(engine)
    refused(engine, "on-paper")
    assert [target.unit_id for target in order(engine, now=NOON + 3 * HOUR).targets] == ["held"]


def test_what_a_bot_decided_alone_needs_no_claim(engine: Engine) -> None:
    open_btc(engine)
    alone = Opportunity(unit_id=UnitId("alone"), instrument="BTCUSD", fallback_at=NOON)
    Router(engine).assign("btc", [alone], now=NOON)
    order(engine)
    assert units(engine) == ["alone"]


def test_positions_of_another_experiment_are_left_open(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine)
    hold(engine, "held")
    assert order(engine, experiment="eth").targets == ()
    assert closing.waiting(engine, "eth") == []
    assert units(engine) == []


@pytest.mark.parametrize(
    ("sign", "is_open"),
    [("none", False), ("mark", True), ("decision", True), ("mark of decision", True)],
)
def test_a_claim_that_nobody_heard_of_since_is_presumed_dead(
    engine: Engine, sign: str, is_open: bool
) -> None:
    # 72 h of attribution: on the 6th at noon, what was decided before the 3rd has had its time.
    open_btc(engine, rules=Rules(ladder=LadderRule(attribution_hours=72)))
    [old] = hold(engine, "old", now=NOON)
    much_later = NOON + 5 * DAY
    if sign == "mark":
        mark(engine, old, at=much_later - HOUR)
    if sign.endswith("decision"):
        later = on_position(engine, old, "later", now=much_later - HOUR)
        if sign == "decision":
            Router(engine).claim(later.id, now=much_later - HOUR)
        else:
            mark(engine, later, at=much_later - HOUR)
    hold(engine, "new", now=much_later - HOUR)
    order(engine, now=much_later)
    assert units(engine) == (["old", "new"] if is_open else ["new"])


def test_the_window_is_that_of_the_nights_to_the_microsecond(engine: Engine) -> None:
    open_btc(engine)
    midnight = datetime.fromisoformat("2026-03-03T00:00:00Z")
    hold(engine, "before", now=midnight - timedelta(microseconds=1))
    hold(engine, "at", now=midnight)
    hold(engine, "newest", now=NOON + 5 * DAY)
    order(engine, now=NOON + 5 * DAY)
    assert units(engine) == ["at", "newest"]


def test_positions_of_a_bot_that_fell_silent_are_not_forgotten(engine: Engine) -> None:
    open_btc(engine)
    hold(engine, "held")
    order(engine, now=NOON + 400 * DAY)
    assert units(engine) == ["held"]


def test_an_order_without_anything_open_is_stored_and_done(engine: Engine) -> None:
    open_btc(engine)
    found = order(engine)
    assert (found.targets, found.waiting) == ((), 0)
    assert count(engine, "close_orders") == 1


def test_again_it_concerns_only_what_opened_since(engine: Engine) -> None:
    open_btc(engine)
    hold(engine, "first")
    order(engine)
    hold(engine, "second")
    again = order(engine, reason="once more")
    assert [target.unit_id for target in again.targets] == ["second"]
    assert again.waiting == 2
    assert order(engine).targets == ()
    assert units(engine) == ["first", "second"]
    assert count(engine, "close_targets") == 2


def test_two_orders_at_once_never_share_a_position(engine: Engine) -> None:
    open_btc(engine)
    made = hold(engine, *(f"u-{number}" for number in range(20)))
    found = together(*(lambda: order(engine) for _ in range(4)))
    orders = [each for each in found if isinstance(each, CloseOrder)]
    assert len(orders) == 4
    concerned = [target.assignment_id for each in orders for target in each.targets]
    assert sorted(concerned) == sorted(each.id for each in made)


def test_an_order_that_is_given_up_leaves_its_positions_to_the_next(engine: Engine) -> None:
    open_btc(engine)
    hold(engine, "held")
    with pytest.raises(InvalidInput, match="reason"):
        order(engine, reason=" ")
    with pytest.raises(UnknownName):
        order(engine, experiment="none")
    assert count(engine, "close_orders") == 0
    assert [target.unit_id for target in order(engine).targets] == ["held"]


def test_the_outcome_ends_a_target_and_nothing_else_does(engine: Engine) -> None:
    open_btc(engine)
    traded, declining = hold(engine, "traded", "declining")
    found = order(engine)
    closing.failed(engine, found.id, traded.id, reason="no bid", now=LATER, actor="bot")
    assert units(engine) == ["declining", "traded"]
    record_all(engine, [closed(traded, "0.001")], now=LATER)
    assert units(engine) == ["declining"]
    record_all(engine, [declined(declining.id)], now=LATER)
    assert units(engine) == []
    assert [target.is_closed for target in closing.ordered(engine, "btc")] == [True, True]


def test_a_failure_is_kept_and_the_same_again_is_not(engine: Engine) -> None:
    open_btc(engine)
    [held] = hold(engine, "held")
    found = order(engine)

    def fail(reason: str, minutes: int) -> None:
        at = LATER + timedelta(minutes=minutes)
        closing.failed(engine, found.id, held.id, reason=reason, now=at, actor="bot")

    for minute, reason in enumerate(("no bid", "no bid", "halted", "no bid")):
        fail(reason, minute)
    [target] = closing.waiting(engine, "btc")
    assert target.failure is not None
    assert (target.failure.reason, target.failure.actor) == ("no bid", "bot")
    assert target.failure.at == LATER + timedelta(minutes=3)
    assert count(engine, "close_failures") == 3
    record_all(engine, [closed(held, "0.001")], now=LATER)
    fail("too late", 9)
    assert count(engine, "close_failures") == 3


def test_a_failure_of_what_no_order_concerns_is_refused(engine: Engine) -> None:
    open_btc(engine)
    [held] = hold(engine, "held")
    found = order(engine)
    for order_id, position in ((found.id, uuid4()), (found.id + 1, held.id)):
        with pytest.raises(UnknownName, match="close order"):
            closing.failed(engine, order_id, position, reason="x", now=LATER, actor="bot")


def test_it_works_while_killed_and_says_that_nothing_new_opens(engine: Engine) -> None:
    open_btc(engine)
    hold(engine, "held")
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="ann")
    found = order(engine)
    assert [target.unit_id for target in found.targets] == ["held"]
    assert found.is_killed
    assert found.note == "account usd is killed: nothing new opens"


def test_it_waits_for_no_gate(engine: Engine) -> None:
    record = open_btc(engine)
    hold(engine, "held")
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, record.id)
        # In a thread: did it wait for the gate, this would end by its limit instead of the test's.
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(order, engine).result(timeout=30)
    assert [target.unit_id for target in found.targets] == ["held"]


def test_every_order_is_audited_with_its_positions(engine: Engine) -> None:
    open_btc(engine)
    [held] = hold(engine, "held")
    found = order(engine)
    statement = text("SELECT actor, subject, details FROM audit_log WHERE action = 'close_all'")
    with engine.connect() as connection:
        [row] = connection.execute(statement).all()
    assert (row.actor, row.subject) == ("ann", "btc")
    assert row.details == {"order": found.id, "reason": "drill", "positions": [str(held.id)]}
    assert auditing.seal(engine, now=LATER) is not None


def test_a_position_is_the_target_of_one_order_also_for_the_database(engine: Engine) -> None:
    open_btc(engine)
    [held] = hold(engine, "held")
    order(engine)
    other = order(engine)
    statement = text("INSERT INTO close_targets (assignment_id, order_id) VALUES (:id, :order)")
    with pytest.raises(IntegrityError, match="close_targets_pkey"), engine.begin() as connection:
        connection.execute(statement, {"id": held.id, "order": other.id})


def test_a_target_outlives_its_decision_in_the_ledger(engine: Engine, tmp_path: Path) -> None:
    open_btc(engine)
    [gone] = hold(engine, "gone")
    found = order(engine)
    record_all(engine, [declined(gone.id)], now=LATER)
    before = ledger.ledger_digest(engine)
    aged = ageing.age(
        engine,
        ParquetArchives(tmp_path),
        "btc",
        before=NOON + DAY,
        now=NOON + 99 * DAY,
        actor="test",
    )
    assert aged.assignments == 1
    [target] = closing.ordered(engine, "btc")
    assert (target.unit_id, target.order_id, target.is_closed) == ("gone", found.id, True)
    assert units(engine) == []
    # The control: what has left is left out of the digest, and the order never was in it.
    assert ledger.ledger_digest(engine) != before


def test_an_order_changes_no_digest_of_the_ledger(engine: Engine) -> None:
    open_btc(engine)
    hold(engine, "held")
    before = ledger.ledger_digest(engine)
    order(engine)
    assert ledger.ledger_digest(engine) == before


def test_health_waits_for_what_is_to_be_closed(engine: Engine) -> None:
    open_btc(engine)
    held = hold(engine, "a", "b")
    order(engine)
    hold(engine, "c")
    order(engine, now=LATER + HOUR)
    [waiting] = health.read(engine, now=LATER).vitals.closing
    assert (waiting.experiment, waiting.positions, waiting.since) == ("btc", 3, LATER)
    record_all(engine, [closed(each, "0.001") for each in held], now=LATER)
    [waiting] = closing.waiting_by_experiment(engine)
    assert (waiting.positions, waiting.since) == (1, LATER + HOUR)


def test_targets_are_whoevers_arm_holds_the_position(engine: Engine) -> None:
    open_btc(engine)
    [challengers] = assign_to(engine, CHALLENGER, 1)
    Router(engine).claim(challengers.id, now=NOON)
    [target] = order(engine).targets
    assert target.policy == CHALLENGER
    assert isinstance(target.assignment_id, UUID)
