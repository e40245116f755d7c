"""What the monitor's numbers cost as the history grows: reading them, and counting one outcome.

A refresh is all that the monitor and the status of a service read again and again.

The yardstick is the same work on the shortest history, in the same round. Once the trades grow and
the days do not, once the days grow and the trades do not: what a report reads of each may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import count
from statistics import median
from time import perf_counter

import psycopg
from sqlalchemy import Engine

from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import trade
from bandit.service import recording
from bandit.service.assigning import BATCH_MAX, Router
from bandit.service.recording import Recorded
from bandit.service.reporting import report
from bandit.service.routing_table import Opportunity
from bandit.storage.experiments import ExperimentRecord
from benchmarks import refresh
from benchmarks.claims import QUICK, Target, alternated, claim, paired, progress
from benchmarks.history import END, count_planted, plant, sums_agree
from benchmarks.refresh import refreshing
from benchmarks.temporary_ledger import (
    CALM,
    EXPERIMENT,
    INSTRUMENT,
    ledger,
    open_experiment,
    server_on_disk,
)
from liveops.embedded_postgres import EmbeddedPostgres

# Champion's trades and years they took; the challenger, at a fifth of the traffic, has a quarter of
# the trades. The first is the yardstick; the last has as many trades on ten times as many days.
SHORTEST = 10**3 if QUICK else 10**4
LONGER = (10**4,) if QUICK else (10**5, 10**6)
HISTORIES = {
    "yardstick": (SHORTEST, 1),
    **{f"1e{len(str(trades)) - 1}_trades": (trades, 1) for trades in LONGER},
    "10_years": (SHORTEST, 10),
}
ROUNDS = 20 if QUICK else 300
WARM_UP = 20  # past the fifth time, when statements become prepared and plans may become generic
# SPEC D4: the cost of an arm's numbers is that of its window, whatever lies before it.
TARGETS = {"refresh": refresh.TARGET, "report": 1.25, "record": 1.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A ledger with a planted history."""

    engine: Engine
    record: ExperimentRecord


def planted(server: EmbeddedPostgres, name: str, stack: ExitStack) -> Ledger:
    """A ledger with the history of this name, vacuumed and analysed."""
    start = perf_counter()
    database = f"history_{name}"
    engine = stack.enter_context(ledger(server, database))
    record = open_experiment(engine, challenger_ppm=200_000, rules=CALM)
    champion, challenger = record.arms
    trades, years = HISTORIES[name]
    every = timedelta(days=365 * years) / trades
    with psycopg.connect(server.conninfo(database), autocommit=True) as connection:
        plant(connection, champion, trades=trades, every=every)
        plant(connection, challenger, trades=trades // 4, every=4 * every)
        count_planted(engine)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    progress(f"planted {trades} trades of {years} years in {perf_counter() - start:.0f} s")
    return Ledger(engine=engine, record=record)


def waiting(engine: Engine, *, trades: int) -> Iterator[Assignment]:
    """Assignments of the champion that wait for their outcomes."""
    router, numbers = Router(engine), count()
    while trades > 0:
        units = [UnitId(f"new-{next(numbers)}") for _ in range(BATCH_MAX)]
        opportunities = [Opportunity(unit_id=unit, instrument=INSTRUMENT) for unit in units]
        made = router.assign(EXPERIMENT, opportunities, now=END)
        chosen = [a for a in made if a.policy == "champion"][:trades]
        trades -= len(chosen)
        yield from chosen


def recording_one(engine: Engine, *, trades: int) -> Callable[[], None]:
    """Record the next trade of the champion, each a minute after the one before."""
    assignments = list(waiting(engine, trades=trades))
    minutes = count(1)

    def record() -> None:
        minute = next(minutes)
        closed_at = END + timedelta(minutes=minute)
        earned = Decimal("0.001") if minute % 2 else Decimal("-0.001")
        outcome = trade(
            assignments[minute - 1].id,
            pnl=1000 * earned,
            return_ratio=earned,
            opened_at=END,
            closed_at=closed_at,
        )
        (answer,) = recording.record(engine, [outcome], now=closed_at)
        assert isinstance(answer, Recorded), answer

    return record


def reading(engine: Engine) -> Callable[[], None]:
    """Read everything `live_ops_monitor --mode report` shows."""

    def read() -> None:
        assert len(report(engine, EXPERIMENT).to_json()["arms"]) == 2

    return read


def measure(ledgers: dict[str, Ledger]) -> None:
    """Claim that all costs are flat."""
    work: dict[str, Callable[[], object]] = {}
    for name, found in ledgers.items():
        work[f"refresh.{name}"] = refreshing(found.engine)
        work[f"report.{name}"] = reading(found.engine)
        work[f"record.{name}"] = recording_one(found.engine, trades=WARM_UP + ROUNDS)
    progress(f"measuring {ROUNDS} rounds")
    alternated(work, rounds=WARM_UP)
    seconds = alternated(work, rounds=ROUNDS)
    for cost, target in TARGETS.items():
        shortest = seconds.pop(f"{cost}.yardstick")
        for name in [name for name in seconds if name.startswith(cost)]:
            claim(
                f"monitor.{name}",
                ours=f"{1000 * median(seconds[name]):.2f}ms",
                yardstick=f"{1000 * median(shortest):.2f}ms",
                ratio=paired(seconds[name], shortest),
                side=Target.AT_MOST,
                target=target,
            )


def main() -> None:
    """Print the claims."""
    # Not durable: waiting for the disk would be the largest part of an outcome, and hide growth.
    with server_on_disk(durable=False) as server, ExitStack() as stack:
        ledgers = {name: planted(server, name, stack) for name in HISTORIES}
        measure(ledgers)
        for found in ledgers.values():
            assert sums_agree(found.engine)


if __name__ == "__main__":
    main()
