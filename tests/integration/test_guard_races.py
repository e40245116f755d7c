"""After the outcome that tightens a guard is acknowledged, nothing looser commits."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from guarded_ledger import (
    LATER,
    begin_anew,
    count_of,
    earned,
    followed,
    open_wide,
    pause,
    refused,
    states,
)
from ledger import (
    NOON,
    assign,
    record_all,
    wait_until_blocked,
)
from shadow_history import tell
from sqlalchemy import Engine, text

from bandit.core.errors import Paused
from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.model import UnitId
from bandit.core.reading import Rules
from bandit.service import (
    recording,
    shadowing,
)
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect, transaction

NORMAL, REDUCED, PAUSED = GuardState


# Nothing looser commits after the acknowledgement


def wait_for_rows(engine: Engine, more: int, condition: str, running: list[Future[None]]) -> None:
    """Return once that many rows more meet a condition; fail if whoever writes them ended."""
    wanted, breath = count_of(engine, "assignments", condition) + more, threading.Event()
    for _ in range(6000):
        if count_of(engine, "assignments", condition) >= wanted:
            return
        for future in running:
            assert not future.done(), future.result()
        breath.wait(0.01)
    raise AssertionError("nobody decides")


# One trade tells a win rate: a single loss tightens.
@pytest.mark.parametrize(
    ("rule", "most"),
    [
        (GuardRule(recovery_trades=1, win_rate_paused=0), 0.5),
        (GuardRule(recovery_trades=1), 0.0),
    ],
)
def test_no_looser_decision_commits_after_the_outcome_is_acknowledged(
    engine: Engine, database_url: str, rule: GuardRule, most: float
) -> None:
    open_wide(engine, rules=Rules(guard=rule))
    made = assign(engine, [f"lost-{i}" for i in range(12)])
    stop = threading.Event()

    def ask(number: int) -> None:
        own = connect(database_url, pool_size=1)
        router = Router(own)
        for i in itertools.count():
            if stop.is_set():
                break
            unit = Opportunity(unit_id=UnitId(f"r{number}-{i}"), instrument="BTCUSD")
            with suppress(Paused):
                router.assign("btc", [unit], now=NOON)
        own.dispose()

    looser = f"mode = 'live' AND size_multiplier > {most}"
    with ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        running = [pool.submit(ask, number) for number in range(4)]
        stack.callback(stop.set)
        for each in made:
            wait_for_rows(engine, 8, looser, running)
            record_all(engine, [earned(each, "-1")], now=LATER)
            rows = count_of(engine, "assignments", looser)
            wait_for_rows(engine, 12, "true", running)
            # Not one row more, from calls begun before or after the acknowledgement.
            assert count_of(engine, "assignments", looser) == rows
            begin_anew(engine, experiment="btc")
            begin_anew(engine, account="usd")
        stop.set()
        for future in running:
            future.result(timeout=60)


@pytest.mark.parametrize("lock", ["kill", "gate"])
def test_outcome_that_pauses_waits_for_the_decisions_under_way(engine: Engine, lock: str) -> None:
    record = open_wide(engine)
    made = assign(engine, [f"u-{i}" for i in range(5)])
    losses = [earned(each, "-1") for each in made]
    hold = {
        "kill": "SELECT pg_advisory_xact_lock_shared(1, account_id) FROM experiments",
        "gate": f"SELECT pg_advisory_xact_lock_shared(3, {record.id})",
    }[lock]
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as connection:
            connection.execute(text(hold))
            future = pool.submit(recording.record, engine, losses, now=LATER)
            wait_until_blocked(engine, future)
            assert states(engine) == {"usd": NORMAL, "btc": NORMAL}
        assert all(isinstance(a, recording.Recorded) for a in future.result(timeout=60))
    assert states(engine) == {"usd": PAUSED, "btc": PAUSED}


def test_ordinary_outcomes_and_recoveries_wait_for_nobody(engine: Engine) -> None:
    record = open_wide(engine)
    pause(engine)
    told = [followed(refused(engine, f"n-{i}"), "0.001") for i in range(5)]
    with transaction(engine) as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock_shared(3, {record.id})"))
        connection.execute(
            text("SELECT pg_advisory_xact_lock_shared(1, account_id) FROM experiments")
        )
        tell(engine, told, now=LATER)
        assert states(engine) == {"usd": NORMAL, "btc": NORMAL}
    assert isinstance(shadowing.record(engine, told[:1], now=LATER)[0], shadowing.RecordedShadow)
