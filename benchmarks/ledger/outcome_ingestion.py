"""Outcomes per second from NDJSON bytes to durable statistics, beside a bare COPY of their rows.

The yardstick is one COPY of the rows into the same constrained table in the same run. What ours
does beside it: reads every line strictly, hashes every body, enters each batch into the audit log
by the digest of its bodies, and keeps sums, days, fold and windows of every arm. A stream is what
an import does: one batch is read while others are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from statistics import median
from time import perf_counter

import msgspec
import numpy as np
import psycopg
from sqlalchemy import Engine

from bandit.core.evidence import Terms
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import Outcome
from bandit.service import rebuilding, recording
from bandit.service.assigning import BATCH_MAX as ASSIGNED_AT_ONCE
from bandit.service.assigning import Router
from bandit.service.bulk_recording import record_stream
from bandit.service.recording import BATCH_MAX, Recorded
from bandit.service.routing_table import Opportunity
from bandit.storage import evidence
from bandit.storage.engine import transaction
from benchmarks.claims import QUICK, Target, claim, paired, progress
from benchmarks.temporary_ledger import (
    EXPERIMENT,
    INSTRUMENT,
    OPENED,
    ledger,
    open_experiment,
    server_on_disk,
)
from liveops.api.outcome_lines import outcomes_in
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.memory import keeping_what_is_loaded

ROWS = 2_000 if QUICK else 20_000
ROUNDS = 1 if QUICK else 7
END = OPENED + timedelta(days=30)

_COPY = """
COPY outcomes (assignment_id, arm_id, unit_id, instrument, no_trade, pnl, return_ratio, r_multiple,
               fees, slippage, size, worst_excursion, opened_at, closed_at, expired, unclaimed,
               body_hash, recorded_at, audit_id)
FROM STDIN
"""
_ROWS_OF_A_ROUND = _COPY.replace("COPY outcomes (", "COPY (SELECT ").replace(
    ")\nFROM STDIN", " FROM outcomes WHERE unit_id LIKE %s) TO STDOUT"
)


def batches_of(engine: Engine, rng: np.random.Generator, *, day: int) -> list[bytes]:
    """Trades of new assignments of a day, one a second, as NDJSON in batches."""
    units = [
        Opportunity(unit_id=UnitId(f"{day}-{i:06}"), instrument=INSTRUMENT) for i in range(ROWS)
    ]
    router, decided = Router(engine), OPENED + timedelta(days=day)
    made = [
        assignment
        for start in range(0, ROWS, ASSIGNED_AT_ONCE)
        for assignment in router.assign(
            EXPERIMENT, units[start : start + ASSIGNED_AT_ONCE], now=decided
        )
    ]
    results = rng.normal(0.0002, 0.01, ROWS)
    lines = [
        line_of(assignment, float(result), second=i)
        for i, (assignment, result) in enumerate(zip(made, results, strict=True))
    ]
    return [b"\n".join(lines[start : start + BATCH_MAX]) for start in range(0, ROWS, BATCH_MAX)]


def line_of(assignment: Assignment, result: float, *, second: int) -> bytes:
    """The trade of an assignment as a bot would tell it."""
    return msgspec.json.encode(
        {
            "assignment_id": assignment.id,
            "pnl": f"{Decimal(round(result * 1e10)).scaleb(-7):f}",
            "return": round(result, 10),
            "opened_at": assignment.decided_at,
            "closed_at": assignment.decided_at + timedelta(seconds=second),
            "fees": "0.25",
        }
    )


def ingested(engine: Engine, batches: Sequence[bytes]) -> dict[str, float]:
    """Seconds it takes to read the batches, and to store them."""
    seconds = {"read": 0.0, "store": 0.0}
    for batch in batches:
        start = perf_counter()
        outcomes = [entry for entry in outcomes_in(batch) if isinstance(entry, Outcome)]
        read = perf_counter()
        answers = recording.record(engine, outcomes, now=END)
        stored = perf_counter()
        assert all(isinstance(answer, Recorded) and answer.created for answer in answers)
        seconds["read"] += read - start
        seconds["store"] += stored - read
    return seconds


def streamed(engine: Engine, batches: Sequence[bytes]) -> float:
    """Seconds it takes to read and store the batches while others are under way."""
    start = perf_counter()
    read = (
        [entry for entry in outcomes_in(batch) if isinstance(entry, Outcome)] for batch in batches
    )
    for answers in record_stream(engine, read, now=END):
        assert all(isinstance(answer, Recorded) and answer.created for answer in answers)
    return perf_counter() - start


def copied(connection: psycopg.Connection, rows: bytes) -> float:
    """Seconds it takes to copy rows into the table of outcomes, and commit them."""
    start = perf_counter()
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(rows)
    connection.commit()
    return perf_counter() - start


def taken_out(connection: psycopg.Connection, *, day: int) -> bytes:
    """Take these outcomes out of the table, so that they can be copied in again."""
    with connection.cursor() as cursor, cursor.copy(_ROWS_OF_A_ROUND, [f"{day}-%"]) as copy:
        rows = b"".join(bytes(block) for block in copy)
    connection.execute("SET LOCAL session_replication_role = replica")
    connection.execute("DELETE FROM outcomes WHERE unit_id LIKE %s", [f"{day}-%"])
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM outcomes")
    connection.autocommit = False
    return rows


def measured(server: EmbeddedPostgres, name: str, *, terms: Terms | None) -> dict[str, list[float]]:
    """Seconds of each round in a ledger that scores evidence by `terms`, or none."""
    rng = np.random.default_rng(7)
    seconds: dict[str, list[float]] = {"read": [], "store": [], "stream": [], "copy": []}
    with (
        ledger(server, name) as engine,
        psycopg.connect(server.conninfo(name)) as connection,
    ):
        record = open_experiment(engine, challenger_ppm=100_000)
        if terms is not None:
            with transaction(engine) as writing:
                evidence.fix_terms(writing, record.id, terms, fixed_at=OPENED)
        for round_ in range(ROUNDS):
            progress(f"{name}: round {round_ + 1} of {ROUNDS}")
            for part, taken in ingested(engine, batches_of(engine, rng, day=2 * round_)).items():
                seconds[part].append(taken)
            seconds["stream"].append(streamed(engine, batches_of(engine, rng, day=2 * round_ + 1)))
            seconds["copy"].append(copied(connection, taken_out(connection, day=2 * round_ + 1)))
        assert rebuilding.compare(engine, now=END).mismatches == ()
        scored = connection.execute("SELECT coalesce(sum(n_challenger), 0) FROM evidence_cohorts")
        assert (scored.fetchone() != (0,)) == (terms is not None)
    for part, found in seconds.items():
        progress(f"{name}: {part}: {1e6 * median(found) / ROWS:.1f} µs a row")
    return seconds


def main() -> None:
    """Measure on a server that waits for its disk, without evidence and with it."""
    scored = Terms(unit=0.005, baseline=0.05, profit_factor=1.2)
    with server_on_disk(durable=True) as server, keeping_what_is_loaded():
        for suffix, terms in (("", None), ("_with_evidence", scored)):
            seconds = measured(server, f"ledger{suffix}", terms=terms)
            both = zip(seconds["read"], seconds["store"], strict=True)
            one = [read + store for read, store in both]
            for name, ours, target in (("batches", one, 0.25), ("stream", seconds["stream"], 0.5)):
                claim(
                    f"ledger.outcome_ingestion.{name}{suffix}_beside_copy",
                    ours=f"{ROWS / median(ours):.0f}/s",
                    yardstick=f"{ROWS / median(seconds['copy']):.0f}/s",
                    ratio=paired(seconds["copy"], ours),
                    side=Target.AT_LEAST,
                    target=target,
                )


if __name__ == "__main__":
    main()
