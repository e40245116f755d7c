"""Many callers at once get what one caller would have got, each of them durably."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import pytest
from ledger import (
    CHALLENGER,
    NOON,
    WAITING,
    arms,
    assign,
    assign_to,
    change,
    count,
    join,
    open_btc,
    register,
    together,
)
from sqlalchemy import Engine, text

from bandit.core.errors import (
    BanditError,
    Conflict,
    Expired,
    ForeignProtocol,
    InvalidInput,
    Killed,
    LedgerUnavailable,
    Revoked,
    StaleEpoch,
    UnknownName,
)
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import UnitId
from bandit.core.sizing import Claim
from bandit.service import killing
from bandit.service.assigning import Router
from bandit.service.live_routing import LiveRouter
from bandit.service.routing_table import Opportunity, routed
from bandit.storage import assignments
from bandit.storage.locks import WRITER_NAME
from bandit.storage.writer import DecisionWriter

T = TypeVar("T")


def opportunity(unit: str, **values: object) -> Opportunity:
    return Opportunity(unit_id=UnitId(unit), instrument="BTCUSD", **values)


def live(engine: Engine, url: str, use: Callable[[LiveRouter], Awaitable[T]]) -> T:
    async def run() -> T:
        router = LiveRouter(Router(engine), url=url, now=lambda: NOON)
        async with router.running():
            return await use(router)

    return asyncio.run(run())


async def asked(router: LiveRouter, *opportunities: Opportunity) -> list[object]:
    return await asyncio.gather(
        *(router.assign("btc", one) for one in opportunities), return_exceptions=True
    )


def kill(engine: Engine) -> None:
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")


def rows(engine: Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_callers_together_get_what_a_caller_alone_gets(engine: Engine, database_url: str) -> None:
    open_btc(engine, challengers=arms(3))
    units = [f"u-{i}" for i in range(300)]
    first = live(engine, database_url, lambda r: asked(r, *map(opportunity, units)))
    assert first == assign(engine, units)
    # And again, with some new ones between: stored bytes, not new decisions.
    mixed = [*units[::-1], *(f"new-{i}" for i in range(50))]
    again = live(engine, database_url, lambda r: asked(r, *map(opportunity, mixed)))
    assert again[:300] == first[::-1]
    assert count(engine, "assignments") == 350


def test_two_services_that_assign_the_same_units_give_the_same_answers(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    units = [opportunity(f"u-{i}") for i in range(400)]

    async def in_rounds(router: LiveRouter) -> list[object]:
        return [a for i in range(0, 400, 20) for a in await asked(router, *units[i : i + 20])]

    one, other = together(
        *(lambda: live(engine, database_url, in_rounds) for _ in range(2))  # type: ignore[misc]
    )
    assert one == other
    assert count(engine, "assignments") == 400


def test_change_between_two_groups_is_seen_by_the_second(engine: Engine, database_url: str) -> None:
    open_btc(engine)

    async def use(router: LiveRouter) -> None:
        await asked(router, opportunity("before"))
        await asyncio.to_thread(change, engine, ArmVerb.HALT)
        made = await asked(router, *(opportunity(f"u-{i}") for i in range(100)))
        assert {(m.policy, m.epoch, m.propensity) for m in made} == {("prod", 2, 1.0)}

    live(engine, database_url, use)


def test_each_caller_is_refused_alone(engine: Engine, database_url: str) -> None:
    open_btc(engine)
    assign(engine, ["taken"])
    closed_position = opportunity("exit", position=assign(engine, ["x"])[0].id.__class__(int=7))
    other = Opportunity(unit_id=UnitId("taken"), instrument="ETHUSD")
    answers = live(
        engine,
        database_url,
        lambda r: asked(r, opportunity("a"), other, closed_position, opportunity("b")),
    )
    assert isinstance(answers[1], Conflict)
    assert isinstance(answers[2], InvalidInput)
    assert answers[2].field == "position"
    assert [a.unit_id for a in (answers[0], answers[3])] == ["a", "b"]


def test_unknown_experiment_is_refused(engine: Engine, database_url: str) -> None:
    [answer] = live(engine, database_url, lambda r: asked(r, opportunity("a")))
    assert isinstance(answer, UnknownName)


def test_lost_connections_are_made_again_and_the_same_rows_sent(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'liveops-writer' AND datname = current_database()"
    )

    async def use(router: LiveRouter) -> list[object]:
        made: list[object] = []
        for i in range(30):
            made += await asked(router, *(opportunity(f"u-{i}-{k}") for k in range(20)))
            if i % 10 == 5:
                [(ended,)] = await asyncio.to_thread(rows, engine, cut)
                assert ended >= 1
        return made

    made = live(engine, database_url, use)
    assert not [m for m in made if isinstance(m, BaseException)]
    assert count(engine, "assignments") == 600


def test_process_of_another_protocol_refuses_to_assign(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_btc(engine)
    [made] = assign(engine, ["before"])
    with engine.begin() as connection:
        connection.execute(text("UPDATE decision_protocol SET version = version + 1"))
    [answer] = live(engine, database_url, lambda r: asked(r, opportunity("a")))
    assert isinstance(answer, ForeignProtocol)
    for call in (lambda: assign(engine, ["a"]), lambda: Router(engine).claim(made.id, now=NOON)):
        with pytest.raises(ForeignProtocol, match="speaks decision protocol 3, the ledger 4"):
            call()
    assert count(engine, "assignments") == 1
    monkeypatch.setattr(assignments, "PROTOCOL", 4)
    assert len(assign(engine, ["a"])) == 1


# Batches in the audit log


def test_every_batch_enters_the_audit_log_with_the_number_of_its_rows(engine: Engine) -> None:
    open_btc(engine)
    assign(engine, ["a", "b", "c"])
    assign(engine, ["c", "b"])  # nothing new: no batch
    assign(engine, ["c", "d"])
    batches = rows(
        engine,
        "SELECT details ->> 'rows' FROM audit_log WHERE action = 'assignments' ORDER BY id",
    )
    assert batches == [("3",), ("1",)]


# Fallbacks


def test_fallback_is_the_champion_s_and_carries_its_own_time(engine: Engine) -> None:
    open_btc(engine)
    earlier = NOON - timedelta(minutes=9)
    told = opportunity("f", fallback_at=earlier)
    [made] = Router(engine).assign("btc", [told], now=NOON)
    assert (made.policy, made.propensity, made.sticky) == ("prod", 1.0, True)
    assert (made.decided_at, made.expires_at) == (earlier, earlier + timedelta(seconds=2))
    assert Router(engine).assign("btc", [told], now=NOON + timedelta(hours=1)) == [made]
    assert rows(engine, "SELECT unit_id FROM assignments WHERE is_fallback") == [("f",)]


def test_fallback_of_a_unit_that_was_routed_to_a_challenger_conflicts(engine: Engine) -> None:
    open_btc(engine)
    [routed] = assign_to(engine, CHALLENGER, 1)
    told = opportunity(routed.unit_id, fallback_at=NOON)
    with pytest.raises(Conflict, match=f"had been routed to {CHALLENGER} before"):
        Router(engine).assign("btc", [told], now=NOON)
    [own] = assign_to(engine, "prod", 1, prefix="v")
    told = opportunity(own.unit_id, fallback_at=NOON)
    assert Router(engine).assign("btc", [told], now=NOON) == [own]


def test_fallback_is_a_fact_that_a_kill_does_not_undo(engine: Engine) -> None:
    open_btc(engine)
    kill(engine)
    with pytest.raises(Killed):
        assign(engine, ["u"])
    [made] = Router(engine).assign("btc", [opportunity("f", fallback_at=NOON)], now=NOON)
    assert made.policy == "prod"
    late = opportunity("g", fallback_at=NOON + timedelta(minutes=6))
    with pytest.raises(InvalidInput, match=r"^decided_at: must not lie more than 5 minutes after"):
        Router(engine).assign("btc", [late], now=NOON)


# Claims


def claims(engine: Engine, url: str, *ids: UUID) -> list[object]:
    asked = [Claim(assignment=key) for key in ids]
    return live(
        engine,
        url,
        lambda r: asyncio.gather(*(r.claim(claim) for claim in asked), return_exceptions=True),
    )


def test_claim_is_granted_once_and_remembered(engine: Engine, database_url: str) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    router = Router(engine)
    at = NOON + timedelta(seconds=1)
    assert router.claim(made.id, now=at) == at
    # Also after its time: the same answer.
    assert router.claim(made.id, now=NOON + timedelta(hours=1)) == at
    assert claims(engine, database_url, made.id, made.id) == [at, at]
    assert count(engine, "claims") == 1


def test_claim_comes_too_late_after_the_decision_s_time(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    assert Router(engine).claim(made.id, now=made.expires_at) == made.expires_at
    [other] = assign(engine, ["v"])
    with pytest.raises(Expired, match=r"valid until 2026-03-01T12:00:02\+00:00"):
        Router(engine).claim(other.id, now=other.expires_at + timedelta(microseconds=1))
    assert count(engine, "claims") == 1


@pytest.mark.parametrize("verb", [ArmVerb.HALT, ArmVerb.THROTTLE, ArmVerb.RETIRE])
def test_claim_of_an_arm_that_was_stopped_is_refused_even_again(
    engine: Engine, database_url: str, verb: ArmVerb
) -> None:
    open_btc(engine)
    claimed, other = assign_to(engine, CHALLENGER, 2)
    [champion] = assign_to(engine, "prod", 1, prefix="p")
    router = Router(engine)
    router.claim(claimed.id, now=NOON)
    change(engine, verb)
    for made in (claimed, other):
        with pytest.raises(Revoked):
            router.claim(made.id, now=NOON)
    assert claims(engine, database_url, champion.id) == [NOON]
    assert isinstance(claims(engine, database_url, other.id)[0], Revoked)


def test_claim_outlives_changes_of_others(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign_to(engine, CHALLENGER, 1)
    join(engine, register(engine, "later", "bbbbbbbb"))
    assert Router(engine).claim(made.id, now=NOON) == NOON


def test_claims_are_judged_each_for_itself(engine: Engine, database_url: str) -> None:
    open_btc(engine)
    [champion] = assign_to(engine, "prod", 1)
    [stopped] = assign_to(engine, CHALLENGER, 1)
    change(engine, ArmVerb.HALT)
    unknown = champion.id.__class__(int=1)
    answers = claims(engine, database_url, stopped.id, champion.id, unknown)
    assert isinstance(answers[0], Revoked)
    assert answers[1] == NOON
    assert isinstance(answers[2], UnknownName)


def test_killed_account_grants_no_claim(engine: Engine, database_url: str) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    kill(engine)
    [answer] = claims(engine, database_url, made.id)
    assert isinstance(answer, Killed)
    assert isinstance(answer, BanditError)
    killing.release(engine, None, reason="over", now=NOON, actor="test")
    assert claims(engine, database_url, made.id) == [NOON]


def test_position_s_own_arm_may_claim_after_its_halt(engine: Engine) -> None:
    open_btc(engine)
    [opened] = assign_to(engine, CHALLENGER, 1)
    change(engine, ArmVerb.HALT)
    leaving = opportunity("exit", position=opened.id)
    [made] = Router(engine).assign("btc", [leaving], now=NOON)
    assert Router(engine).claim(made.id, now=NOON) == NOON


def test_connection_that_was_abandoned_is_closed_when_its_statement_fails(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    batch = routed(Router(engine).table("btc"), [opportunity("u")], now=NOON).batch

    async def abandoned() -> None:
        writer = DecisionWriter(database_url)
        waiting = asyncio.create_task(writer.assign(batch))
        while rows(engine, WAITING) == [(0,)]:
            await asyncio.sleep(0.01)
        writer.abandon()
        with pytest.raises(LedgerUnavailable):
            await waiting

    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE assignments IN ACCESS EXCLUSIVE MODE"))
        asyncio.run(abandoned())
    await_no_writer(engine)


def test_connection_that_was_abandoned_is_closed_when_its_statement_succeeds(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    batch = routed(Router(engine).table("btc"), [opportunity("u")], now=NOON).batch

    async def abandoned() -> None:
        writer = DecisionWriter(database_url)
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE assignments IN ACCESS EXCLUSIVE MODE"))
            # Not cancelled: as where the cancellation is passed over.
            waiting = asyncio.create_task(writer.assign(batch))
            while rows(engine, WAITING) == [(0,)]:
                await asyncio.sleep(0.01)
            writer.abandon()
        await waiting

    asyncio.run(abandoned())
    assert len(rows(engine, "SELECT FROM assignments")) == 1
    await_no_writer(engine)


def test_connection_that_comes_too_late_is_closed_and_stores_nothing(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    batch = routed(Router(engine).table("btc"), [opportunity("u")], now=NOON).batch

    async def abandoned() -> None:
        writer = DecisionWriter(database_url)
        waiting = asyncio.create_task(writer.assign(batch))
        await asyncio.sleep(0)  # it connects now
        writer.abandon()
        with pytest.raises(LedgerUnavailable, match="nobody waits"):
            await waiting

    asyncio.run(abandoned())
    assert rows(engine, "SELECT FROM assignments") == []
    await_no_writer(engine)


def test_connection_that_idles_is_closed_when_its_writer_is_abandoned(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    batch = routed(Router(engine).table("btc"), [opportunity("u")], now=NOON).batch
    change(engine, ArmVerb.HALT)

    async def abandoned() -> None:
        writer = DecisionWriter(database_url)
        with pytest.raises(StaleEpoch):  # its caller goes on behind the gate, perhaps for long
            await writer.assign(batch)
        writer.abandon()
        await asyncio.to_thread(await_no_writer, engine)

    asyncio.run(abandoned())


def await_no_writer(engine: Engine) -> None:
    sessions = (
        f"SELECT FROM pg_stat_activity WHERE application_name = '{WRITER_NAME}'"
        " AND datname = current_database()"
    )
    for _ in range(500):
        if not rows(engine, sessions):
            return
        time.sleep(0.01)
    raise AssertionError("its session is open still")
