"""Once a heartbeat that shows a mismatch is answered, nothing opens on any replica."""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from ledger import NOON, assign, count, open_btc, wait_until_blocked
from sqlalchemy import Engine, text
from vitals import beat

from bandit.core.errors import BanditError, Unreconciled
from bandit.core.model import UnitId
from bandit.core.reconciling import ReconciliationRule, ReconciliationState
from bandit.service import accounts, health
from bandit.service.assigning import Router
from bandit.service.live_routing import LiveRouter
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect, transaction

SECOND = timedelta(seconds=1)
ROUNDS = 10
STRAY = UUID(int=9)


def tell(engine: Engine, at: datetime, *held: UUID) -> None:
    """A heartbeat of a run that began just now: what it held before has no grace."""
    told = {"account": "usd", "positions": held, "open_positions": len(held), "started_at": at}
    rule, window = ReconciliationRule(), timedelta(minutes=10)
    health.hear(engine, beat(sent_at=at, **told), now=at, window=window, rule=rule)


def blocked(engine: Engine) -> bool:
    [report] = accounts.listed(engine, now=NOON)
    compared = report.reconciliation
    return compared is not None and compared.state is ReconciliationState.BLOCKED


def wait_for_rows(engine: Engine, more: int, running: list[Future[None]]) -> None:
    """Return once that many assignments more were made; fail if whoever makes them ended."""
    wanted, breath = count(engine, "assignments") + more, threading.Event()
    for _ in range(6000):
        if count(engine, "assignments") >= wanted:
            return
        for future in running:
            assert not future.done(), future.result()
        breath.wait(0.01)
    raise AssertionError("nobody decides")


def test_nothing_opens_after_the_heartbeat_is_answered(engine: Engine, database_url: str) -> None:
    open_btc(engine)
    stop = threading.Event()
    asked = itertools.count()

    def ask(number: int) -> None:
        own = connect(database_url, pool_size=1)
        router = Router(own)
        for i in itertools.count():
            if stop.is_set():
                break
            unit = Opportunity(unit_id=UnitId(f"r{number}-{i}"), instrument="BTCUSD")
            with suppress(Unreconciled):
                router.assign("btc", [unit], now=NOON)
            next(asked)
        own.dispose()

    with ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        running = [pool.submit(ask, number) for number in range(4)]
        stack.callback(stop.set)
        for turn in range(ROUNDS):
            wait_for_rows(engine, 8, running)
            tell(engine, NOON + 2 * turn * SECOND, STRAY)
            rows, before = count(engine, "assignments"), next(asked)
            breath = threading.Event()
            while next(asked) < before + 24:
                breath.wait(0.01)
            # Not one row more, from calls begun before or after the answer.
            assert count(engine, "assignments") == rows
            tell(engine, NOON + (2 * turn + 1) * SECOND)
        stop.set()
        for future in running:
            future.result(timeout=60)


def test_a_heartbeat_that_blocks_waits_for_the_decisions_under_way(engine: Engine) -> None:
    open_btc(engine)
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as connection:
            connection.execute(
                text("SELECT pg_advisory_xact_lock_shared(1, account_id) FROM experiments")
            )
            future = pool.submit(tell, engine, NOON, STRAY)
            wait_until_blocked(engine, future)
            assert not blocked(engine)
        future.result(timeout=60)
    assert blocked(engine)


def test_a_heartbeat_that_agrees_waits_for_nobody(engine: Engine) -> None:
    open_btc(engine)
    with transaction(engine) as connection:
        connection.execute(
            text("SELECT pg_advisory_xact_lock_shared(1, account_id) FROM experiments")
        )
        tell(engine, NOON)
    assert not blocked(engine)


def test_two_bots_that_are_heard_at_once_are_judged_together(
    engine: Engine, database_url: str
) -> None:
    """Whoever is judged second sees what the first one told."""
    open_btc(engine)
    made = assign(engine, ["one", "two"])
    for assignment in made:
        Router(engine).claim(assignment.id, now=NOON)
    barrier = threading.Barrier(2)

    def told_by(bot: str, held: UUID) -> None:
        own = connect(database_url, pool_size=1)
        for seconds in range(0, 600, 30):
            at = NOON + seconds * SECOND
            told = beat(
                bot, sent_at=at, account="usd", positions=(held,), open_positions=1, started_at=NOON
            )
            barrier.wait(timeout=60)
            health.hear(own, told, now=at, window=timedelta(minutes=10))
        own.dispose()

    with ThreadPoolExecutor(2) as pool:
        bots = zip(("alpha", "beta"), made, strict=True)
        for done in [pool.submit(told_by, bot, each.id) for bot, each in bots]:
            done.result(timeout=120)
    [report] = accounts.listed(engine, now=NOON)
    assert report.reconciliation is not None
    assert report.reconciliation.reconciliation.findings == ()
    with engine.connect() as connection:
        statement = text("SELECT count(*) FROM reconciliation_changes")
        assert connection.execute(statement).scalar_one() == 0


def test_a_group_that_shares_a_commit_decides_on_positions_and_opens_nothing(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    [held] = assign(engine, ["held"])
    live = LiveRouter(Router(engine), url=database_url, now=lambda: NOON)

    async def ask() -> list[object]:
        async with live.running():
            # Before the mismatch: the router remembers, as it does in a service.
            await live.assign("btc", Opportunity(unit_id=UnitId("before"), instrument="BTCUSD"))
            await asyncio.to_thread(tell, engine, NOON, STRAY)
            asked = [
                Opportunity(
                    unit_id=UnitId(f"u-{i}"),
                    instrument="BTCUSD",
                    position=held.id if i % 2 else None,
                )
                for i in range(20)
            ]
            return await asyncio.gather(
                *(live.assign("btc", each) for each in asked), return_exceptions=True
            )

    answers = asyncio.run(ask())
    assert all(isinstance(answer, Unreconciled) for answer in answers[::2])
    assert not any(isinstance(answer, BanditError) for answer in answers[1::2])
    assert count(engine, "assignments") == 2 + 10


def test_a_replica_that_starts_later_is_bound_by_it(engine: Engine, database_url: str) -> None:
    open_btc(engine)
    tell(engine, NOON, STRAY)
    later = connect(database_url, pool_size=1)
    with pytest.raises(Unreconciled, match=f"1 unknown: {STRAY}"):
        Router(later).assign(
            "btc", [Opportunity(unit_id=UnitId("u"), instrument="BTCUSD")], now=NOON
        )
    later.dispose()
