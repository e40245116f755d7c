"""What ageing costs those who decide meanwhile, what it leaves behind, and how fast it is.

A bot assigns one unit after the other, at first alone, then while decisions leave. The room is that
of the tables with their indexes, rewritten without holes, before and after.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np
import psycopg
from sqlalchemy import Engine

from bandit.core.model import UnitId
from bandit.service import ageing
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.history import END, count_planted, plant, sums_agree
from benchmarks.temporary_ledger import (
    ACTOR,
    EXPERIMENT,
    INSTRUMENT,
    VAR,
    ledger,
    open_experiment,
    server_on_disk,
)
from snapshots.archive_files import ParquetArchives

DECISIONS = 10**4 if QUICK else 10**5
ALONE_SECONDS = 2 if QUICK else 10
BEFORE, NOW = END - timedelta(days=10), END + timedelta(days=60)
HALT_MILLISECONDS = 250
"""What a halt may take: nobody who decides waits longer for decisions that leave."""

TABLES = ("assignments", "outcomes", "claims", "marks", "aged_assignments")


def bot(engine: Engine, is_over: Callable[[], bool]) -> list[float]:
    """Assign until it is over; return what each assignment took, in milliseconds."""
    router, numbers, waited = Router(engine), count(), list[float]()
    prefix = f"{perf_counter():.6f}"
    while not is_over():
        unit = Opportunity(unit_id=UnitId(f"{prefix}-{next(numbers)}"), instrument=INSTRUMENT)
        start = perf_counter()
        router.assign(EXPERIMENT, [unit], now=NOW)
        waited.append(1000 * (perf_counter() - start))
    return waited


def megabytes(connection: psycopg.Connection) -> float:
    """How large the tables of decisions are without holes."""
    total = 0
    for table in TABLES:
        connection.execute(f"VACUUM FULL {table}")
        found = connection.execute("SELECT pg_total_relation_size(%s)", (table,)).fetchone()
        assert found is not None
        total += found[0]
    return total / 1e6


def measure(engine: Engine, connection: psycopg.Connection, folder: Path) -> None:
    """Claim that nobody waits long, and that most of the room is given back."""
    before = megabytes(connection)
    until = perf_counter() + ALONE_SECONDS
    alone = bot(engine, lambda: perf_counter() > until)
    over, meanwhile = threading.Event(), list[float]()
    thread = threading.Thread(target=lambda: meanwhile.extend(bot(engine, over.is_set)))
    thread.start()
    start = perf_counter()
    files = ParquetArchives(folder)
    aged = ageing.age(engine, files, EXPERIMENT, before=BEFORE, now=NOW, actor=ACTOR)
    seconds = perf_counter() - start
    over.set()
    thread.join()
    archived = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    after = megabytes(connection)
    progress(
        f"{aged.assignments} decisions left in {seconds:.1f} s, "
        f"{aged.assignments / seconds:.0f}/s, to {archived:.1f} MB of Parquet; a bot waited "
        f"{max(meanwhile):.0f} ms at most, alone {np.percentile(alone, 99):.1f} ms at p99"
    )
    claim(
        "ledger.assign_while_ageing_p99",
        ours=f"{np.percentile(meanwhile, 99):.1f}ms",
        yardstick=f"{HALT_MILLISECONDS}ms",
        ratio=float(np.percentile(meanwhile, 99)) / HALT_MILLISECONDS,
        side=Target.AT_MOST,
        target=1.0,
    )
    claim(
        "ledger.room_after_ageing",
        ours=f"{after:.1f}MB",
        yardstick=f"{before:.1f}MB",
        ratio=after / before,
        side=Target.AT_MOST,
        target=0.75,
    )


def main() -> None:
    """Print the claims."""
    with server_on_disk(durable=True) as server, ledger(server, "ageing") as engine:
        champion, challenger = open_experiment(engine, challenger_ppm=200_000).arms
        every = timedelta(days=365) / DECISIONS
        with (
            psycopg.connect(server.conninfo("ageing"), autocommit=True) as connection,
            tempfile.TemporaryDirectory(dir=VAR, prefix="benchmark-") as folder,
        ):
            plant(connection, champion, trades=DECISIONS * 4 // 5, every=every * 5 / 4)
            plant(connection, challenger, trades=DECISIONS // 5, every=every * 5)
            count_planted(engine)
            connection.execute("VACUUM (ANALYZE)")
            measure(engine, connection, Path(folder))
        assert sums_agree(engine)


if __name__ == "__main__":
    main()
