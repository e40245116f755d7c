"""An exploration budget in the ledger: kept before each batch, settled with each outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from ledger import (
    CHALLENGER,
    EVEN,
    NIGHT,
    NOON,
    UNGUARDED,
    WAITING,
    assign,
    assign_to,
    closed,
    feed,
    join,
    open_btc,
    promote,
    record_all,
    register,
    scale,
    set_budget,
)
from sqlalchemy import Engine, text

from bandit.core.errors import Conflict, InvalidInput, UnknownName
from bandit.core.evidence import Terms
from bandit.core.exploration import Explored
from bandit.core.limits import Limits
from bandit.core.model import Assignment, PolicyName, UnitId
from bandit.core.outcomes import declined
from bandit.service import experiments, exploring, rebuilding, revising
from bandit.service.assigning import Router
from bandit.service.live_routing import LiveRouter
from bandit.service.rebuilding import Comparison
from bandit.service.routing_table import Opportunity, routed
from bandit.storage import assignments, evidence, exploration
from bandit.storage.engine import snapshot, transaction

HALF = Limits(start_ppm=250_000, unproven_cap_ppm=250_000)
LATER = NOON + timedelta(days=1)


def spent(engine: Engine) -> Explored:
    return exploring.report(engine, "btc").explored


def units(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{i:03}" for i in range(count)]


def of_challenger(made: Sequence[Assignment]) -> list[Assignment]:
    return [assignment for assignment in made if assignment.policy == CHALLENGER]


def test_what_a_challenger_may_cost_is_set_aside_until_its_outcome_is_told(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    mine = of_challenger(assign(engine, units("u", 40)))
    assert len(mine) > 3
    assert spent(engine) == Explored(n_opened=len(mine), charged=Decimal(20 * len(mine)))
    assign(engine, units("u", 40))  # again: nothing is charged twice
    assert spent(engine).n_open == len(mine)
    record_all(engine, [closed(mine[0], "-0.001", pnl="-7.5"), declined(mine[1].id)], now=LATER)
    record_all(engine, [closed(mine[0], "-0.001", pnl="-7.5")], now=LATER)  # told again
    after = spent(engine)
    assert (after.n_open, after.spent) == (len(mine) - 2, Decimal("7.5"))
    revising.revise(
        engine, closed(mine[0], "0.002", pnl="4"), reason="drill", now=LATER, actor="test"
    )
    after = spent(engine)
    assert (after.n_open, after.reserved) == (len(mine) - 2, 20 * (len(mine) - 2))
    assert after.spent == -4
    assert rebuilding.compare(engine, now=LATER).mismatches == ()


def test_what_has_no_room_is_the_champions_and_was_not_drawn(engine: Engine) -> None:
    record = open_btc(engine, limits=HALF)
    with transaction(engine) as connection:
        terms = Terms(unit=0.001, baseline=0.0, profit_factor=1.2)
        evidence.fix_terms(connection, record.id, terms, fixed_at=NOON)
    set_budget(engine, "100")  # five decisions at worst
    within = assign(engine, units("five", 5))
    left = exploring.report(engine, "btc").room
    assert left is not None
    assert 0 < left < 5
    made = assign(engine, units("more", 40))
    for_sure = [a for a in made if a.propensity == 1.0]
    assert {a.policy for a in for_sure} == {"prod"}
    # As many as there was room for were drawn, whoever they fell to.
    assert len(for_sure) == 40 - left
    # Neither as evidence: chance had no part in who took them.
    record_all(engine, [closed(a, "0.001") for a in (*within, *made)], now=LATER)
    with engine.connect() as connection:
        counted = connection.execute(
            text("SELECT sum(n_challenger + n_champion) FROM evidence_cohorts")
        )
        assert counted.scalar_one() == len(within) + left
    assert rebuilding.compare(engine, now=LATER).mismatches == ()
    # Gains came in: there is room again.
    assert (exploring.report(engine, "btc").room or 0) >= 5
    assert {a.propensity for a in assign(engine, units("again", 5))} != {1.0}


def test_spent_budget_leaves_all_to_the_champion_and_positions_to_their_arm(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "200", at_risk="10")
    [opened, other] = of_challenger(assign(engine, units("u", 15)))[:2]
    record_all(engine, [closed(other, "-0.01", pnl="-250")], now=LATER)  # a gap through its stop
    found = exploring.report(engine, "btc")
    assert (found.room, found.explored.spent) == (0, 250)
    made = assign(engine, units("more", 30))
    assert {a.policy for a in made} == {"prod"}
    asked = Opportunity(unit_id=UnitId("exit"), instrument="BTCUSD", position=opened.id)
    [leaving] = Router(engine).assign("btc", [asked], now=NOON)
    assert leaving.policy == CHALLENGER
    assert spent(engine).n_open == found.explored.n_open  # its own position was charged before
    set_budget(engine, "2000")
    assert of_challenger(assign(engine, units("raised", 30)))


def test_own_groups_of_the_service_are_withheld_too(engine: Engine, database_url: str) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "100")

    async def asked(count: int) -> list[Assignment]:
        router = LiveRouter(Router(engine), url=database_url, now=lambda: NOON)
        async with router.running():
            return await asyncio.gather(
                *(
                    router.assign("btc", Opportunity(unit_id=UnitId(unit), instrument="BTCUSD"))
                    for unit in units("live", count)
                )
            )

    made = asyncio.run(asked(60))
    assert len(made) == 60
    assert spent(engine).reserved <= 100
    assert "prod" in {a.policy for a in made if a.propensity == 1.0}


def test_budget_holds_whatever_routers_race(engine: Engine) -> None:
    open_btc(engine, limits=HALF, rules=UNGUARDED)
    set_budget(engine, "240")

    def ask(worker: int) -> list[Assignment]:
        rng = np.random.default_rng(worker)
        made, router = list[Assignment](), Router(engine)
        for batch in range(25):
            size = int(rng.integers(1, 9))
            asked = [
                Opportunity(unit_id=UnitId(f"{worker}-{batch}-{i}"), instrument="BTCUSD")
                for i in range(size)
            ]
            made += router.assign("btc", asked, now=NOON)
            seen.append(spent(engine))
            mine = of_challenger(made)
            if mine and rng.random() < 0.5:
                lost = closed(mine[int(rng.integers(len(mine)))], "-0.01", pnl="-19.99")
                record_all(engine, [lost], now=LATER)
                seen.append(spent(engine))
        return made

    seen = list[Explored]()
    with ThreadPoolExecutor(4) as pool:
        made = [a for found in pool.map(ask, range(4)) for a in found]
    assert max(each.spent + each.reserved for each in seen) <= 240
    # It was used, and it ran out.
    assert max(each.spent + each.reserved for each in seen) > 180
    assert {a.propensity for a in made if a.policy == "prod"} == {0.75, 1.0}
    assert rebuilding.compare(engine, now=LATER).mismatches == ()


def test_night_charges_what_the_champion_earns_by_now(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "5000")
    moment = feed(engine, "prod", ["0.003"] * 30)  # 3 with each decision
    assert exploring.report(engine, "btc").to_json()["expected"] == "0.00000000"
    before = spent(engine)
    scale(engine, now=NIGHT)
    found = exploring.report(engine, "btc").budget
    assert found is not None
    assert found.expected == 3
    [mine] = assign_to(engine, CHALLENGER, 1, now=moment, prefix="after")
    n_new = spent(engine).n_open - before.n_open
    assert spent(engine).reserved - before.reserved == 23 * n_new
    held = spent(engine).spent
    record_all(engine, [closed(mine, "0.001", pnl="1")], now=moment + LATER_BY)
    assert spent(engine).spent - held == 2
    assert rebuilding.compare(engine, now=NIGHT).mismatches == ()


LATER_BY = timedelta(hours=3)


def test_what_was_set_aside_is_settled_after_a_promotion_and_without_a_budget(
    engine: Engine,
) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    [first, second] = of_challenger(assign(engine, units("u", 30)))[:2]
    promote(engine)
    after = spent(engine).n_open
    new = assign(engine, units("promoted", 30))
    of_old = [a for a in new if a.policy == "prod"]
    assert of_old  # the hold-out is a challenger now, and charged
    assert spent(engine).n_open == after + len(of_old)
    exploring.clear_budget(engine, "btc", reason="drill", now=LATER, actor="test")
    record_all(engine, [closed(first, "-0.001", pnl="-3")], now=LATER)
    assert spent(engine).spent == 3
    assign(engine, units("free", 30))
    assert spent(engine).n_open == after + len(of_old) - 1
    assert exploring.report(engine, "btc").room is None
    with pytest.raises(Conflict, match="has no exploration budget"):
        exploring.clear_budget(engine, "btc", reason="drill", now=LATER, actor="test")
    set_budget(engine, "10000")
    record_all(engine, [closed(second, "-0.001", pnl="-4")], now=LATER)
    assert spent(engine).spent == 7  # what was charged before stays charged


def test_forged_sums_are_named_and_repaired(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    mine = of_challenger(assign(engine, units("u", 40)))
    record_all(engine, [closed(mine[0], "-0.001", pnl="-7.5")], now=LATER)
    before = spent(engine)
    for table, column in (
        ("explored_opened", "n_opened"),
        ("explored_opened", "charged"),
        ("explored_told", "n_told"),
        ("explored_told", "released"),
        ("explored_told", "spent"),
    ):
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET {column} = {column} + 1"))
        [found] = rebuilding.repair(engine, now=LATER, actor="test").mismatches
        assert (found.table, found.column, found.policy) == ("explored", column, CHALLENGER)
        assert spent(engine) == before
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM explored_told"))
    assert {m.column for m in rebuilding.repair(engine, now=LATER, actor="test").mismatches} == {
        "n_told",
        "released",
        "spent",
    }
    assert spent(engine) == before


def test_who_changes_a_budget_is_in_the_audit_log(engine: Engine) -> None:
    open_btc(engine)
    set_budget(engine, "500")
    exploring.clear_budget(engine, "btc", reason="over", now=LATER, actor="ann")
    with engine.connect() as connection:
        told = connection.execute(
            text("SELECT actor, details FROM audit_log WHERE action = 'budget' ORDER BY id")
        ).all()
    assert [tuple(row) for row in told] == [
        ("test", {"amount": "500.00000000", "at_risk": "20.00000000", "reason": "drill"}),
        ("ann", {"amount": None, "reason": "over"}),
    ]


def test_amounts_follow_from_the_capital_where_none_are_given(engine: Engine) -> None:
    open_btc(engine)  # 10,000 USD, a tenth a trade
    assert exploring.amount_of_percent(engine, "btc", 12.5) == 1250
    found = exploring.set_budget(
        engine, "btc", amount=Decimal(1250), at_risk=None, reason="-", now=NOON, actor="test"
    ).to_json()
    assert (found["at_risk"], found["amount_percent"], found["room"]) == ("1000.00000000", 12.5, 1)
    with pytest.raises(InvalidInput, match=r"^percent: must be above 0 and at most 100"):
        exploring.amount_of_percent(engine, "btc", 101)
    with pytest.raises(InvalidInput, match=r"^amount: must not be below what a decision is"):
        set_budget(engine, "10")
    with pytest.raises(UnknownName):
        exploring.report(engine, "eth")


def test_another_experiments_arms_are_not_charged(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    join(engine, register(engine, "later", "bbbbbbbb"))
    set_budget(engine, "100000")
    feed(engine, "later", EVEN)
    found = exploring.report(engine, "btc")
    assert set(found.by_arm) == {CHALLENGER, "later"}
    assert found.by_arm["later"].spent == 0  # as much won as lost, beside a champion without trades
    with snapshot(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM reservations")).scalar_one() > 30


def test_repair_waits_for_a_batch_and_counts_what_it_set_aside(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    assign(engine, units("u", 40))
    with engine.begin() as connection:
        connection.execute(text("UPDATE explored_opened SET charged = charged + 1"))
    asked = [Opportunity(unit_id=UnitId(u), instrument="BTCUSD") for u in units("late", 20)]
    batch = routed(Router(engine).table("btc"), asked, now=NOON).batch
    before = spent(engine).n_open
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as connection:
            assignments.commit(connection, batch)
            repairing = pool.submit(rebuilding.repair, engine, now=LATER, actor="test")
            while_blocked(engine, repairing)
        repairing.result(timeout=30)
    assert spent(engine).n_open > before
    assert rebuilding.compare(engine, now=LATER).mismatches == ()


def while_blocked(engine: Engine, future: Future[Comparison]) -> None:
    """Return once somebody waits for a row."""
    waiting = text(f"{WAITING} AND wait_event = 'transactionid'")
    for _ in range(3000):
        with engine.connect() as connection:
            if connection.execute(waiting).scalar_one():
                return
        assert not future.done(), future.result()
        time.sleep(0.01)
    raise AssertionError("nobody waits for the batch")


def test_batches_never_wait_for_outcomes_that_are_being_told(engine: Engine) -> None:
    # Whoever waited would be of the arm that chance gave it: evidence would lose its draws.
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    [told] = of_challenger(assign(engine, units("u", 20)))[:1]
    arm = experiments.load(engine, "btc").arm_of(PolicyName(CHALLENGER)).id
    with ThreadPoolExecutor(1) as pool, transaction(engine) as connection:
        exploration.settle(connection, {arm: Explored(spent=Decimal(1))})
        more = pool.submit(assign, engine, units("more", 40)).result(timeout=30)
    assert of_challenger(more)
    record_all(engine, [closed(told, "0.001")], now=LATER)


def test_money_of_a_positions_later_decisions_is_charged_as_well(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    [opened] = of_challenger(assign(engine, units("u", 20)))[:1]
    before = spent(engine)
    asked = Opportunity(unit_id=UnitId("more-of-it"), instrument="BTCUSD", position=opened.id)
    [follower] = Router(engine).assign("btc", [asked], now=NOON)
    assert spent(engine) == before
    record_all(engine, [closed(follower, "-0.01", pnl="-15")], now=LATER)
    after = spent(engine)
    assert (after.n_open, after.reserved, after.spent) == (before.n_open, before.reserved, 15)
    assert rebuilding.compare(engine, now=LATER).mismatches == ()


def test_challenger_with_all_of_the_traffic_is_charged_too(engine: Engine) -> None:
    all_of_it = Limits(
        champion_floor_ppm=0,
        champion_floor_proven_ppm=0,
        unproven_cap_ppm=1_000_000,
        start_ppm=1_000_000,
    )
    open_btc(engine, limits=all_of_it)
    set_budget(engine, "60")
    made = assign(engine, units("u", 10))
    assert [a.policy for a in made].count(CHALLENGER) == 3
    assert exploring.report(engine, "btc").room == 0


def test_positions_take_no_room_from_opportunities(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "1000")
    [opened] = of_challenger(assign(engine, units("u", 20)))[:1]
    room = exploring.report(engine, "btc").room
    assert room is not None
    asked = [
        Opportunity(unit_id=UnitId(f"exit-{i}"), instrument="BTCUSD", position=opened.id)
        for i in range(40)
    ] + [Opportunity(unit_id=UnitId(u), instrument="BTCUSD") for u in units("new", room + 5)]
    made = Router(engine).assign("btc", asked[20:] + asked[:20], now=NOON)
    # Positions are of their arm for sure, and so is the champion of what has no room.
    assert sum(a.propensity < 1 for a in made) == room


def test_who_never_told_is_listed_and_gives_its_room_back_once_it_is_told(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    mine = of_challenger(assign(engine, units("u", 30)))
    found = exploring.open_decisions(engine, "btc")
    assert {each.assignment for each in found} == {a.id for a in mine}
    assert {(each.policy, each.charge) for each in found} == {(CHALLENGER, 20)}
    record_all(engine, [declined(a.id) for a in mine], now=LATER)
    assert exploring.open_decisions(engine, "btc") == []
    assert spent(engine).reserved == 0


def test_sums_may_be_larger_than_any_amount(engine: Engine) -> None:
    open_btc(engine, limits=HALF)
    set_budget(engine, "10000")
    mine = of_challenger(assign(engine, units("u", 30)))[:2]
    gains = [closed(a, "0.01", pnl="9000000000000000") for a in mine]
    record_all(engine, gains, now=LATER)
    assert spent(engine).spent == -18 * 10**15
