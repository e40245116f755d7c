"""What a decision and its outcome cost as the ledger grows, from 10^5 to 10^7 of them.

The yardstick is the same work on the shortest history, in the same round. A night looks at every
decision of a month, and a longer history is here a denser one: of a night, the cost of a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
from itertools import count
from statistics import median
from time import perf_counter

import psycopg
from sqlalchemy import Engine

from bandit.core.claims import WINDOW
from bandit.core.errors import Conflict
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import declined, trade
from bandit.service import recording, scaling, settling
from bandit.service.assigning import Router
from bandit.service.recording import Recorded
from bandit.service.reporting import report
from bandit.service.routing_table import Opportunity
from bandit.storage import experiments
from bandit.storage.engine import snapshot
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

SIZES = (10**3, 10**4) if QUICK else (10**5, 10**6, 10**7)
YEARS = 2
ROUNDS = 20 if QUICK else 300
WARM_UP = 20  # past the fifth time, when statements become prepared and plans may become generic
LATE = timedelta(hours=6)
TARGET = 1.25
REFRESH, NIGHT = "refresh", "night_by_decision"

Work = Callable[[], object]


def planted(server: EmbeddedPostgres, size: int, stack: ExitStack) -> Engine:
    """A ledger with that many settled decisions, four fifths of them the champion's."""
    start = perf_counter()
    database = f"decisions_{size}"
    engine = stack.enter_context(ledger(server, database))
    champion, challenger = open_experiment(engine, challenger_ppm=200_000, rules=CALM).arms
    every = timedelta(days=365 * YEARS) / size
    with psycopg.connect(server.conninfo(database), autocommit=True) as connection:
        plant(connection, champion, trades=size * 4 // 5, every=every * 5 / 4)
        plant(connection, challenger, trades=size // 5, every=every * 5)
        progress(f"inserted {size} decisions in {perf_counter() - start:.0f} s")
        count_planted(engine)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    progress(f"planted {size} decisions in {perf_counter() - start:.0f} s")
    return engine


def numbered() -> Iterator[Opportunity]:
    """Opportunities that nobody saw before."""
    for number in count():
        yield Opportunity(unit_id=UnitId(f"new-{number}"), instrument=INSTRUMENT)


def work_on(engine: Engine) -> dict[str, Work]:
    """What a service does all day, each piece once a call."""
    router, units, minutes = Router(engine), numbered(), count(1)
    with engine.connect() as connection:
        old = connection.exec_driver_sql(
            "SELECT assignment_id FROM outcomes ORDER BY assignment_id LIMIT %s",
            (ROUNDS + WARM_UP,),
        )
        known = iter([row[0] for row in old])

    def assigned() -> Assignment:
        [made] = router.assign(EXPERIMENT, [next(units)], now=END)
        return made

    def settled(*, late: timedelta) -> Callable[[], None]:
        def settle() -> None:
            closed_at = END + timedelta(minutes=next(minutes)) - late
            earned = Decimal("0.001")
            outcome = trade(
                assigned().id,
                pnl=1000 * earned,
                return_ratio=earned,
                opened_at=END,
                closed_at=max(END, closed_at),
            )
            [answer] = recording.record(engine, [outcome], now=END + timedelta(days=300))
            assert isinstance(answer, Recorded), answer

        return settle

    def claimed() -> None:
        assert router.claim(assigned().id, now=END) == END

    def told_again() -> None:
        [answer] = recording.record(engine, [declined(next(known))], now=END)
        assert isinstance(answer, Conflict), answer

    return {
        "assign": assigned,
        "assign_and_claim": claimed,
        "assign_and_settle": settled(late=timedelta(0)),
        "assign_and_settle_late": settled(late=LATE),
        "known_outcome": told_again,
        "report": lambda: report(engine, EXPERIMENT).to_json(),
        REFRESH: refreshing(engine),
        NIGHT: lambda: read_night(engine),
    }


def read_night(engine: Engine) -> None:
    """Read what a night decides by."""
    with snapshot(engine) as connection:
        record = experiments.load(connection, EXPERIMENT)
        readings = scaling.read_arms(connection, record, record.kept_arms)
        scaling.with_evidence(connection, record, readings, now=END)
        settling.settled(connection, record, now=END)


def decisions_in_a_month(size: int) -> float:
    """How many decisions of a history a night looks at."""
    return size * (WINDOW / timedelta(days=365 * YEARS))


def measure(engines: dict[int, Engine]) -> None:
    """Claim that every cost is flat."""
    work = {
        f"{name}.{size}": done
        for size, engine in engines.items()
        for name, done in work_on(engine).items()
    }
    progress(f"measuring {ROUNDS} rounds")
    alternated(work, rounds=WARM_UP)
    seconds = alternated(work, rounds=ROUNDS)
    for key in list(seconds):
        work_name, rows = key.rsplit(".", 1)
        if work_name == NIGHT:
            seconds[key] = [took / decisions_in_a_month(int(rows)) for took in seconds[key]]
    for name in (
        key.removesuffix(f".{SIZES[0]}") for key in seconds if key.endswith(f".{SIZES[0]}")
    ):
        shortest = seconds[f"{name}.{SIZES[0]}"]
        for size in SIZES[1:]:
            claim(
                f"ledger.{name}.1e{len(str(size)) - 1}",
                ours=f"{1000 * median(seconds[f'{name}.{size}']):.3g}ms",
                yardstick=f"{1000 * median(shortest):.3g}ms",
                ratio=paired(seconds[f"{name}.{size}"], shortest),
                side=Target.AT_MOST,
                target=refresh.TARGET if name == REFRESH else TARGET,
            )


def main() -> None:
    """Print the claims."""
    # Not durable: waiting for the disk would be the largest part of a decision, and hide growth.
    with server_on_disk(durable=False) as server, ExitStack() as stack:
        engines = {size: planted(server, size, stack) for size in SIZES}
        measure(engines)
        for engine in engines.values():
            assert sums_agree(engine)


if __name__ == "__main__":
    main()
