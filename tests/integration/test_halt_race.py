"""Once a halt is acknowledged, no assignment to that arm commits, on any replica."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from ledger import (
    CHALLENGER,
    NOON,
    assign,
    assign_to,
    change,
    open_btc,
    traffic,
    wait_until_blocked,
)
from sqlalchemy import Connection, Engine, event, text

from bandit.core.errors import LedgerUnavailable, Revoked
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import UnitId
from bandit.core.routing import bucket_of
from bandit.service.assigning import Router
from bandit.service.experiments import apply_verb
from bandit.service.routing_table import Opportunity
from bandit.storage import experiments, locks
from bandit.storage.engine import connect, transaction

REPLICAS = 6
HALTS = 25
# The largest share there is, so that an assignment that slips past a halt is likely to be seen.
LIMITS = Limits(arm_minimum_ppm=600_000, start_ppm=600_000, unproven_cap_ppm=600_000)
PATIENCE_SECONDS = 60


@dataclass(kw_only=True)
class Replica:
    """A service with its own connections and memory, assigning without pause."""

    number: int
    url: str
    ticks: Iterator[int]
    stop: threading.Event
    calls: list[tuple[int, int, str]] = field(default_factory=list)

    def run(self) -> None:
        engine = connect(self.url, pool_size=1)
        router = Router(engine)
        for i in itertools.count():
            if self.stop.is_set():
                break
            unit = Opportunity(unit_id=UnitId(f"r{self.number}-{i}"), instrument="BTCUSD")
            started = next(self.ticks)
            [made] = router.assign("btc", [unit], now=NOON)
            self.calls.append((started, next(self.ticks), made.policy))
        engine.dispose()


def rows_of_challenger(engine: Engine) -> int:
    statement = text(
        "SELECT count(*) FROM assignments s JOIN arms a ON a.id = s.arm_id"
        " JOIN policies p ON p.id = a.policy_id WHERE p.name = :name"
    )
    with engine.connect() as connection:
        return int(connection.execute(statement, {"name": CHALLENGER}).scalar_one())


def wait_for_calls(replicas: list[Replica], more: int, running: list[Future[None]]) -> None:
    """Return once every replica has answered `more` further calls."""
    wanted = [len(replica.calls) + more for replica in replicas]
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 100):
        if all(len(r.calls) >= n for r, n in zip(replicas, wanted, strict=True)):
            return
        for future in running:
            if future.done():
                future.result()
        pause.wait(0.01)
    raise AssertionError("the replicas stand still")


def test_no_assignment_follows_an_acknowledged_halt(engine: Engine, database_url: str) -> None:
    open_btc(engine, limits=LIMITS)
    assert traffic(engine)[CHALLENGER] == 600_000
    ticks, stop = itertools.count(), threading.Event()
    replicas = [
        Replica(number=n, url=database_url, ticks=ticks, stop=stop) for n in range(REPLICAS)
    ]
    halted: list[tuple[int, int]] = []
    with ThreadPoolExecutor(REPLICAS) as pool, ExitStack() as stack:
        running = [pool.submit(replica.run) for replica in replicas]
        stack.callback(stop.set)
        for _ in range(HALTS):
            wait_for_calls(replicas, 3, running)
            change(engine, ArmVerb.HALT)
            acknowledged = next(ticks)
            rows = rows_of_challenger(engine)
            wait_for_calls(replicas, 3, running)
            # Not one row more, from calls begun before or after the acknowledgement.
            assert rows_of_challenger(engine) == rows
            halted.append((acknowledged, next(ticks)))
            change(engine, ArmVerb.RESUME)
        stop.set()
        for future in running:
            future.result(timeout=PATIENCE_SECONDS)
    calls = [call for replica in replicas for call in replica.calls]
    for acknowledged, resumed in halted:
        after = {
            policy for began, ended, policy in calls if acknowledged < began and ended < resumed
        }
        assert after == {"prod"}
    # Between the halts the arm had its share; else the race would have proved nothing.
    assert rows_of_challenger(engine) > HALTS


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_halt_is_not_acknowledged_while_an_assignment_is_under_way(
    engine: Engine, worker: ThreadPoolExecutor
) -> None:
    record = open_btc(engine, limits=LIMITS)
    with transaction(engine) as connection:
        hold = text("SELECT pg_advisory_xact_lock_shared(3, :id)")  # as a batch does
        connection.execute(hold, {"id": record.id})
        future = worker.submit(change, engine, ArmVerb.HALT)
        wait_until_blocked(engine, future)
        # And no later batch overtakes it.
        with engine.connect() as other:
            free = text("SELECT pg_try_advisory_xact_lock_shared(3, :id)")
            assert not other.execute(free, {"id": record.id}).scalar_one()
    assert future.result(timeout=PATIENCE_SECONDS) == ("halted", True)


def test_assignment_that_waited_for_a_halt_is_routed_by_what_the_halt_left(
    engine: Engine, worker: ThreadPoolExecutor
) -> None:
    record = open_btc(engine, limits=LIMITS)
    units = [f"u-{i}" for i in range(50)]
    router = Router(engine)
    [_] = router.assign(
        "btc", [Opportunity(unit_id=UnitId("before"), instrument="BTCUSD")], now=NOON
    )
    batch = [Opportunity(unit_id=UnitId(unit), instrument="BTCUSD") for unit in units]
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, record.id)
        future = worker.submit(router.assign, "btc", batch, now=NOON)
        wait_until_blocked(engine, future)
        halt_within(connection)
    made = future.result(timeout=PATIENCE_SECONDS)
    assert {(m.policy, m.epoch, m.propensity) for m in made} == {("prod", 2, 1.0)}
    # By the allocation it remembered, the challenger would have had most of them.
    remembered = [bucket_of(record.salt, experiment="btc", unit=m.unit_id) for m in made]
    assert sum((bucket * 10**6 >> 64) >= 400_000 for bucket in remembered) > 20


def halt_within(connection: Connection) -> None:
    apply_verb(
        connection,
        experiments.load(connection, "btc"),
        CHALLENGER,
        ArmVerb.HALT,
        reason="drill",
        inputs={},
        reasons={},
        now=NOON,
        actor="test",
    )


@pytest.fixture
def own(database_url: str) -> Iterator[Engine]:
    """An engine of one connection, of a process that is stopped."""
    engine = connect(database_url, pool_size=1)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("way", ["assign", "assign_behind_gate", "claim"])
def test_process_that_is_stopped_inside_a_batch_does_not_keep_a_halt_waiting(
    engine: Engine, own: Engine, worker: ThreadPoolExecutor, way: str
) -> None:
    open_btc(engine, limits=LIMITS)
    [before] = assign_to(engine, CHALLENGER, 1)
    router = Router(own)
    router.table("btc")
    committing, thawed = threading.Event(), threading.Event()

    @event.listens_for(own, "commit")
    def stopped(_: Connection) -> None:
        committing.set()
        thawed.wait(PATIENCE_SECONDS)

    asked = [Opportunity(unit_id=UnitId("u"), instrument="BTCUSD")]
    calls = {
        "assign": lambda: router.assign("btc", asked, now=NOON),
        "assign_behind_gate": lambda: router.assign_behind_gate("btc", asked, now=NOON),
        "claim": lambda: router.claim(before.id, now=NOON),
    }
    future = worker.submit(calls[way])
    assert committing.wait(PATIENCE_SECONDS)
    # Before it learns that its session was ended, which is how it loses the gate.
    assert change(engine, ArmVerb.HALT) == ("halted", True)
    thawed.set()
    if way == "assign":  # what comes twice as once is tried again, and meets the halt
        [made] = future.result(timeout=PATIENCE_SECONDS)
        assert (made.policy, made.epoch) == ("prod", before.epoch + 1)
    else:
        with pytest.raises(Revoked if way == "claim" else LedgerUnavailable):
            future.result(timeout=PATIENCE_SECONDS)


def test_process_that_is_stopped_inside_a_change_loses_the_gate(
    engine: Engine, worker: ThreadPoolExecutor
) -> None:
    record = open_btc(engine, limits=LIMITS)
    with pytest.raises(LedgerUnavailable), transaction(engine) as connection:  # noqa: PT012
        locks.gate_exclusive(connection, record.id)
        future = worker.submit(change, engine, ArmVerb.HALT)
        # It says nothing more until the next one is through.
        assert future.result(timeout=PATIENCE_SECONDS) == ("halted", True)
        connection.execute(text("SELECT 1"))


def test_gates_of_two_experiments_are_two(engine: Engine, worker: ThreadPoolExecutor) -> None:
    record = open_btc(engine)
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, record.id + 1)
        future = worker.submit(assign, engine, ["u"])
        assert len(future.result(timeout=PATIENCE_SECONDS)) == 1
