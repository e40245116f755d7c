"""One opportunity gets one arm, for ever, and a retry the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from ledger import (
    CHALLENGER,
    NOON,
    SALT,
    arms,
    assign,
    assign_to,
    change,
    closed,
    count,
    join,
    open_btc,
    record_all,
    register,
    together,
    wait_until_blocked,
)
from sqlalchemy import Connection, Engine, text

from bandit.core.account import LossLimits
from bandit.core.errors import Conflict, ForeignProtocol, InvalidInput, UnknownName
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import ArmMode, ArmRole, Assignment, UnitId
from bandit.core.reading import Rules
from bandit.core.routing import assignment_id, bucket_of, partition
from bandit.service import assigning, experiments, reporting
from bandit.service.assigning import BATCH_MAX, Router
from bandit.service.routing_table import Opportunity, RoutingTable, read_table
from bandit.storage import locks, migrate
from bandit.storage.engine import connect, snapshot


def opportunity(unit: str, *, position: UUID | None = None, **other: object) -> Opportunity:
    values = {"instrument": "BTCUSD"} | other
    return Opportunity(unit_id=UnitId(unit), position=position, **values)


def stored(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT s::text FROM assignments s ORDER BY id"))
        return list(rows.scalars())


def test_assignment_says_arm_propensity_version_mode_and_time(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign_to(engine, CHALLENGER, 1)
    assert made == Assignment(
        id=assignment_id(SALT, experiment="btc", unit=made.unit_id),
        experiment="btc",
        unit_id=made.unit_id,
        instrument="BTCUSD",
        policy=CHALLENGER,
        policy_sha="eee02a74",
        role=ArmRole.CHALLENGER,
        mode=ArmMode.LIVE,
        propensity=0.1,
        sticky=False,
        allocation_version=1,
        epoch=1,
        size_multiplier=1.0,
        confidence_bump=0.0,
        decided_at=NOON,
        expires_at=NOON + timedelta(seconds=2),
        sizing=None,
    )


def test_context_and_proposed_actions_are_kept(engine: Engine) -> None:
    open_btc(engine)
    asked = opportunity("u", context={"spread": 0.5}, proposed_actions=[{"side": "buy"}])
    Router(engine).assign("btc", [asked], now=NOON)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT context, proposed_actions FROM assignments")).one()
    assert tuple(row) == ({"spread": 0.5}, [{"side": "buy"}])


def test_units_go_where_the_stored_allocation_says(engine: Engine) -> None:
    open_btc(engine)
    # Policy ids order the parts: the champion holds the lowest 900,000.
    for made in assign(engine, [f"u-{i}" for i in range(500)]):
        part = bucket_of(SALT, experiment="btc", unit=made.unit_id) * 10**6 >> 64
        assert made.policy == ("prod" if part < 900_000 else CHALLENGER)
        assert made.propensity == (0.9 if part < 900_000 else 0.1)


def test_retry_returns_the_same_bytes_through_every_change_and_restart(engine: Engine) -> None:
    open_btc(engine)
    units = [f"u-{i}" for i in range(64)]
    first = assign(engine, units)
    table = stored(engine)
    router = Router(engine)
    for step in (
        lambda: join(engine, register(engine, "later", "bbbbbbbb")),
        lambda: change(engine, ArmVerb.THROTTLE),
        lambda: change(engine, ArmVerb.RESUME),
        lambda: change(engine, ArmVerb.HALT),
        lambda: change(engine, ArmVerb.RETIRE),
    ):
        step()
        later = NOON + timedelta(hours=1)
        again = router.assign("btc", [opportunity(u) for u in units], now=later)
        assert repr(again) == repr(first)
        assert repr(assign(engine, units, now=later)) == repr(first)
    assert stored(engine) == table


def test_reweight_moves_only_new_units_and_only_what_it_must(engine: Engine) -> None:
    open_btc(engine)
    before = {made.unit_id: made.policy for made in assign(engine, [f"a-{i}" for i in range(9)])}
    join(engine, register(engine, "later", "bbbbbbbb"))
    after = assign(engine, [f"b-{i}" for i in range(600)])
    # The newcomer's tenth comes out of the champion's part; the challenger keeps its own.
    for made in after:
        part = bucket_of(SALT, experiment="btc", unit=made.unit_id) * 10**6 >> 64
        assert (made.policy == CHALLENGER) == (part >= 900_000)
        assert (made.policy == "later") == (800_000 <= part < 900_000)
    assert {m.policy for m in after} == {"prod", "later", CHALLENGER}
    assert {m.unit_id: m.policy for m in assign(engine, list(before))} == before


# Positions


def test_open_position_keeps_its_arm_through_reweights_halts_and_restarts(engine: Engine) -> None:
    open_btc(engine)
    [opened] = assign_to(engine, CHALLENGER, 1)
    change(engine, ArmVerb.HALT)
    asked = [opportunity(f"exit-{i}", position=opened.id) for i in range(20)]
    made = Router(engine).assign("btc", asked, now=NOON)
    assert {(m.policy, m.propensity, m.sticky) for m in made} == {(CHALLENGER, 1.0, True)}
    assert {m.epoch for m in made} == {2}
    change(engine, ArmVerb.RETIRE)
    [last] = Router(engine).assign("btc", [opportunity("last", position=opened.id)], now=NOON)
    assert (last.policy, last.sticky) == (CHALLENGER, True)


def test_sticky_and_routed_opportunities_share_a_batch(engine: Engine) -> None:
    open_btc(engine)
    [opened] = assign_to(engine, CHALLENGER, 1)
    batch = [opportunity("entry"), opportunity("exit", position=opened.id)]
    entry, leaving = Router(engine).assign("btc", batch, now=NOON)
    assert (entry.sticky, leaving.sticky) == (False, True)
    assert leaving.policy == CHALLENGER


def test_retry_is_answered_after_its_position_has_closed(engine: Engine) -> None:
    open_btc(engine)
    [opened] = assign_to(engine, CHALLENGER, 1)
    asked = [opportunity("exit", position=opened.id)]
    first = Router(engine).assign("btc", asked, now=NOON)
    record_all(engine, [closed(opened, "0.001")], now=NOON + timedelta(days=1))
    assert Router(engine).assign("btc", asked, now=NOON + timedelta(days=1)) == first
    with pytest.raises(InvalidInput, match=r"^position: must be an assignment of btc without"):
        Router(engine).assign("btc", [opportunity("new", position=opened.id)], now=NOON)


def test_position_that_is_not_open_here_is_refused_with_its_whole_batch(engine: Engine) -> None:
    open_btc(engine)
    elsewhere = replace(
        experiments.load(engine, "btc").experiment,
        name="eth",
        champion=register(engine, "elsewhere", "bbbbbbbb"),
    )
    values = {"challengers": [], "salt": SALT, "limits": Limits(), "loss_limits": LossLimits()}
    experiments.open_experiment(engine, elsewhere, **values, rules=Rules(), now=NOON, actor="test")
    router = Router(engine)
    [opened] = router.assign("eth", [opportunity("entry")], now=NOON)
    for position in (opened.id, UUID(int=1)):
        batch = [opportunity("entry"), opportunity("exit", position=position)]
        with pytest.raises(InvalidInput, match=r"^position: must be an assignment of btc without"):
            router.assign("btc", batch, now=NOON)
    assert count(engine, "assignments") == 1


def test_position_of_an_arm_that_joined_since_the_router_looked(engine: Engine) -> None:
    open_btc(engine)
    old = Router(engine)
    old.assign("btc", [opportunity("before")], now=NOON)
    join(engine, register(engine, "later", "bbbbbbbb"))
    [opened] = assign_to(engine, "later", 1)
    [made] = old.assign("btc", [opportunity("exit", position=opened.id)], now=NOON)
    assert (made.policy, made.epoch) == ("later", 2)


def test_unit_keeps_its_position_within_a_batch_too(engine: Engine) -> None:
    open_btc(engine)
    [opened] = assign_to(engine, CHALLENGER, 1)
    entry, leaving = opportunity("u"), opportunity("u", position=opened.id)
    for batch in ([entry, leaving], [leaving, entry]):
        with pytest.raises(Conflict, match=r"unit u was assigned for .*, and came back for"):
            Router(engine).assign("btc", batch, now=NOON)
    made = Router(engine).assign("btc", [leaving, leaving], now=NOON)
    assert [(m.policy, m.sticky) for m in made] == [(CHALLENGER, True)] * 2


# Stale memories


def test_router_that_follows_every_change_routes_as_one_that_reads_them_at_once(
    engine: Engine,
) -> None:
    open_btc(engine, challengers=arms(3))
    following = Router(engine)
    units = [opportunity(f"u-{i}") for i in range(300)]
    for turn in range(12):
        change(engine, ArmVerb.RESUME if turn % 4 > 1 else ArmVerb.HALT, f"arm-{turn % 2:02}")
        following.assign("btc", [opportunity(f"turn-{turn}")], now=NOON)
    ours, fresh = following.table("btc"), Router(engine).table("btc")
    assert ours.allocation.version == fresh.allocation.version == 13
    # Which part is whose depends on the way there, not on the weights alone.
    assert ours.partition == fresh.partition != partition(ours.allocation.ppm)
    assert following.assign("btc", units, now=NOON) == Router(engine).assign("btc", units, now=NOON)


def test_router_reads_all_anew_on_a_ledger_that_went_on_differently(
    engine: Engine, empty_url: str
) -> None:
    migrate.upgrade(empty_url)
    restored = connect(empty_url)
    for ledger in (engine, restored):
        open_btc(ledger, challengers=arms(2))
    for arm in ("arm-00", "arm-01"):
        change(engine, ArmVerb.HALT, arm)
    for arm in ("arm-01", "arm-00"):
        change(restored, ArmVerb.HALT, arm, now=NOON + timedelta(hours=1))
        change(restored, ArmVerb.RESUME, arm, now=NOON + timedelta(hours=2))
    known = Router(engine).table("btc")
    with snapshot(restored) as connection:
        read = read_table(connection, "btc", known=known)
    assert read.partition == Router(restored).table("btc").partition
    assert read.allocation.version == 5
    restored.dispose()


def test_stale_batch_is_routed_again_as_a_whole(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    router = Router(engine)
    router.assign("btc", [opportunity("before")], now=NOON)
    change(engine, ArmVerb.HALT, "arm-00")
    made = router.assign("btc", [opportunity(f"u-{i}") for i in range(400)], now=NOON)
    # Not only the rows of the halted arm carry the new version: all do, with its propensities.
    assert {(m.epoch, m.allocation_version) for m in made} == {(2, 2)}
    assert {m.policy: m.propensity for m in made} == {"prod": 0.9, "arm-01": 0.1}


def test_router_overtaken_between_reading_and_writing_reads_behind_the_gate(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_btc(engine)
    read, epochs = assigning.read_table, []

    def overtaken(
        connection: Connection, experiment: str, *, known: RoutingTable | None = None
    ) -> RoutingTable:
        table = read(connection, experiment, known=known)
        epochs.append(table.record.epoch)
        if len(epochs) == 1:
            change(engine, ArmVerb.THROTTLE)
        return table

    monkeypatch.setattr(assigning, "read_table", overtaken)
    [made] = Router(engine).assign("btc", [opportunity("u")], now=NOON)
    assert epochs == [1, 2]
    assert (made.epoch, made.policy, made.propensity) == (2, "prod", 1.0)


# Refusals


def test_unit_that_comes_back_for_another_instrument_conflicts(engine: Engine) -> None:
    open_btc(engine)
    assign(engine, ["u"])
    other = opportunity("u", instrument="ETHUSD")
    with pytest.raises(Conflict, match="unit u was assigned for BTCUSD, and came back for ETHUSD"):
        Router(engine).assign("btc", [other], now=NOON)


def test_unit_twice_in_a_batch_is_one_assignment(engine: Engine) -> None:
    open_btc(engine)
    made = Router(engine).assign("btc", [opportunity("u"), opportunity("u")], now=NOON)
    assert made[0] == made[1]
    batch = [opportunity("v"), opportunity("v", instrument="ETHUSD")]
    with pytest.raises(Conflict, match="came back for ETHUSD"):
        Router(engine).assign("btc", batch, now=NOON)
    assert assign(engine, ["v"])[0].instrument == "BTCUSD"


@pytest.mark.parametrize(
    "values",
    [
        {"unit": ""},
        {"unit": "a b"},
        {"unit": "u", "instrument": "BTC USD"},
        {"unit": "u", "context": {"a": float("nan")}},
        {"unit": "u", "context": {"a": "\0"}},
        {"unit": "u", "proposed_actions": [float("inf")]},
    ],
)
def test_unlawful_opportunity_is_refused_before_it_meets_a_batch(values: dict[str, object]) -> None:
    unit = str(values.pop("unit"))
    with pytest.raises(InvalidInput):
        opportunity(unit, **values)


@pytest.mark.parametrize("size", [0, BATCH_MAX + 1])
def test_batch_of_an_unlawful_size_is_refused(engine: Engine, size: int) -> None:
    with pytest.raises(InvalidInput, match=f"must be 1 to {BATCH_MAX} opportunities"):
        Router(engine).assign("btc", [opportunity("u")] * size, now=NOON)


def test_unknown_experiment_and_naive_now_are_refused(engine: Engine) -> None:
    with pytest.raises(UnknownName, match="'btc'"):
        Router(engine).assign("btc", [opportunity("u")], now=NOON)
    with pytest.raises(InvalidInput, match=r"^now: "):
        Router(engine).assign("btc", [opportunity("u")], now=NOON.replace(tzinfo=None))


# Concurrency


def test_many_threads_that_assign_the_same_units_get_the_same_rows(database_url: str) -> None:
    engine = connect(database_url, pool_size=16)
    open_btc(engine)
    units = [f"u-{i:03}" for i in range(200)]

    def one(thread: int) -> list[Assignment]:
        # Overlapping batches in another order each, so that rows are met in the middle.
        turned = units[thread * 13 :] + units[: thread * 13]
        router, made = Router(engine), []
        for start in range(0, len(turned), 50):
            batch = [opportunity(unit) for unit in turned[start : start + 50]]
            made += router.assign("btc", batch, now=NOON + timedelta(seconds=thread))
        return sorted(made, key=lambda m: m.unit_id)

    answers = together(*(lambda t=t: one(t) for t in range(8)))
    assert len({repr(answer) for answer in answers}) == 1
    assert count(engine, "assignments") == len(units)
    engine.dispose()


def test_one_router_serves_many_threads_through_changes(database_url: str) -> None:
    engine = connect(database_url, pool_size=12)
    open_btc(engine)
    router = Router(engine)

    def assigns(thread: int) -> list[Assignment]:
        found = []
        for i in range(30):
            found += router.assign("btc", [opportunity(f"t{thread}-{i}")], now=NOON)
        return found

    with ThreadPoolExecutor(9) as pool:
        busy = [pool.submit(assigns, thread) for thread in range(8)]
        for _ in range(8):
            change(engine, ArmVerb.THROTTLE)
            change(engine, ArmVerb.RESUME)
        made = [m for future in busy for m in future.result(timeout=60)]
    assert len(made) == 240
    propensities = propensities_by_version(engine)
    assert all(m.propensity == propensities[m.allocation_version][m.policy] for m in made)
    engine.dispose()


def propensities_by_version(engine: Engine) -> dict[int, dict[str, float]]:
    history: Sequence = reporting.allocation_history(engine, "btc")
    return {made.version: {p: ppm / 10**6 for p, ppm in made.ppm.items()} for made, _ in history}


def test_batch_that_waits_while_the_protocol_changes_is_refused(engine: Engine) -> None:
    record = open_btc(engine)
    [made] = assign(engine, ["before"])
    calls = (
        lambda: assign(engine, ["meanwhile"]),
        lambda: Router(engine).claim(made.id, now=NOON),
    )
    for call in calls:
        with ThreadPoolExecutor(1) as pool:
            with engine.begin() as connection:
                locks.gate_exclusive(connection, record.id)
                waiting = pool.submit(call)
                wait_until_blocked(engine, waiting)
                connection.execute(text("UPDATE decision_protocol SET version = version + 1"))
            with pytest.raises(ForeignProtocol):
                waiting.result(timeout=60)
        with engine.begin() as connection:
            connection.execute(text("UPDATE decision_protocol SET version = version - 1"))
    # Control: nothing but the protocol refused them.
    assert assign(engine, ["meanwhile"])
