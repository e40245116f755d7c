"""A long tape of outcomes, shuffled, repeated, late and corrected, told by two processes at once.

It must end in the statistics of a single pass over the outcomes as they should have been told, in
closing order: every column of every row. The ratio is that of equal rows to all rows.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from time import perf_counter
from uuid import UUID

import numpy as np
from sqlalchemy import Engine, text

from bandit.core.model import UnitId
from bandit.core.outcomes import Outcome, declined, trade
from bandit.service import recording, revising
from bandit.service.assigning import BATCH_MAX as ASSIGNED_AT_ONCE
from bandit.service.assigning import Router
from bandit.service.recording import BATCH_MAX, Recorded
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.temporary_ledger import (
    ACTOR,
    EXPERIMENT,
    OPENED,
    ledger,
    open_experiment,
    server_on_disk,
)

COUNT = 20_000 if QUICK else 1_000_000
PROCESSES = 2
SEED = 20261121
INSTRUMENTS = ("BTCUSD", "ETHUSD", "SOLUSD")
REPEATED, LATE, REVISED, DECLINED = 0.05, 0.05, 0.01, 0.1
# How many places of the tape an outcome may be off its turn.
SHUFFLED_BY, LATE_BY = 2_000, 20_000
END = OPENED + timedelta(days=365)
TABLES = ("arm_statistics", "arm_days", "equity_checkpoints")


@dataclass(frozen=True, kw_only=True)
class Tape:
    """What each unit earned, as told first and as it should have been told, and the order."""

    count: int
    returns: np.ndarray
    seconds: np.ndarray
    are_declined: np.ndarray
    are_revised: np.ndarray
    order: np.ndarray

    @classmethod
    def drawn(cls, count: int) -> Tape:
        """Return the tape of this length: always the same one."""
        rng = np.random.default_rng(SEED)
        units = np.arange(count)
        turns = units + rng.integers(0, SHUFFLED_BY, count)
        turns = turns + np.where(rng.random(count) < LATE, rng.integers(0, LATE_BY, count), 0)
        again = units[rng.random(count) < REPEATED]
        turns_again = turns[again] + rng.integers(0, LATE_BY, len(again))
        places = np.concatenate([turns, turns_again]).argsort(kind="stable")
        return cls(
            count=count,
            returns=rng.integers(-(10**10), 10**10, (2, count)),
            seconds=np.stack([units, units + rng.integers(-3_000, 3_000, count)]) + 7_200,
            are_declined=rng.random((2, count)) < DECLINED,
            are_revised=rng.random(count) < REVISED,
            order=np.concatenate([units, again])[places],
        )

    def outcome(self, unit: int, assignment: UUID, *, corrected: bool) -> Outcome:
        """Return the first or the corrected body of a unit."""
        version = int(corrected)
        if self.are_declined[version, unit]:
            return declined(assignment)
        earned = Decimal(int(self.returns[version, unit])).scaleb(-12)
        return trade(
            assignment,
            pnl=earned.scaleb(4),
            return_ratio=earned,
            # Every seventh position was opened after its decision had expired.
            opened_at=OPENED + timedelta(hours=1 if unit % 7 == 0 else 0),
            closed_at=OPENED + timedelta(seconds=int(self.seconds[version, unit])),
            fees=Decimal(unit % 100).scaleb(-2) if unit % 3 else None,
        )

    def final(self, unit: int, assignment: UUID) -> Outcome:
        """Return what counts of a unit in the end."""
        return self.outcome(unit, assignment, corrected=bool(self.are_revised[unit]))


def assign_all(engine: Engine, count: int) -> None:
    """Open the experiment and assign every unit of the tape."""
    open_experiment(engine, challenger_ppm=100_000)
    router = Router(engine)
    for start in range(0, count, ASSIGNED_AT_ONCE):
        units = range(start, min(start + ASSIGNED_AT_ONCE, count))
        asked = [
            Opportunity(unit_id=UnitId(f"{i:07}"), instrument=INSTRUMENTS[i % 3]) for i in units
        ]
        router.assign(EXPERIMENT, asked, now=OPENED)


def tell_shuffled(url: str, count: int) -> None:
    """Let `PROCESSES` processes tell the tape as it comes."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        for told in [pool.submit(_tell_part, url, count, part) for part in range(PROCESSES)]:
            told.result()


def _tell_part(url: str, count: int, part: int) -> None:
    engine, tape = connect(url), Tape.drawn(count)
    ids = assignments(engine)
    for number, units in enumerate(_batches(tape.order)):
        if number % PROCESSES != part:
            continue
        _record(engine, [tape.outcome(i, ids[i], corrected=False) for i in units])
        for unit in units:
            if tape.are_revised[unit]:
                corrected = tape.outcome(unit, ids[unit], corrected=True)
                revising.revise(engine, corrected, reason="drill", now=END, actor=ACTOR)
    engine.dispose()


def tell_sorted(engine: Engine, count: int) -> None:
    """Tell what counts in the end, once and in closing order."""
    tape, ids = Tape.drawn(count), assignments(engine)
    versions = tape.are_revised.astype(int)
    for units in _batches(tape.seconds[versions, np.arange(count)].argsort(kind="stable")):
        _record(engine, [tape.final(i, ids[i]) for i in units])


def statistics(engine: Engine) -> set[str]:
    """Every row of the statistics, each with its table and all its columns."""
    with engine.connect() as connection:
        return {
            f"{table} {row}"
            for table in TABLES
            for row in connection.execute(text(f"SELECT t::text FROM {table} t")).scalars()  # noqa: S608
        }


def assignments(engine: Engine) -> list[UUID]:
    """The ids of all assignments in the order of their units."""
    with engine.connect() as connection:
        return list(
            connection.execute(text("SELECT id FROM assignments ORDER BY unit_id")).scalars()
        )


def _record(engine: Engine, outcomes: Sequence[Outcome]) -> None:
    for answer in recording.record(engine, outcomes, now=END):
        assert isinstance(answer, Recorded), answer


def _batches(order: np.ndarray) -> Iterator[list[int]]:
    left = iter(order.tolist())
    while batch := list(islice(left, BATCH_MAX)):
        yield batch


def main() -> None:
    """Tell the tape both ways, on a server that does not wait for its disk."""
    with (
        server_on_disk(durable=False) as server,
        ledger(server, "shuffled") as shuffled,
        ledger(server, "sorted") as in_order,
    ):
        for engine in (shuffled, in_order):
            assign_all(engine, COUNT)
        start = perf_counter()
        progress(f"telling {COUNT} outcomes by {PROCESSES} processes")
        tell_shuffled(server.url("shuffled"), COUNT)
        told = perf_counter()
        progress(f"in {told - start:.0f} s; now in order by one")
        tell_sorted(in_order, COUNT)
        progress(f"in {perf_counter() - told:.0f} s")
        ours, theirs = statistics(shuffled), statistics(in_order)
    claim(
        f"ledger.outcome_tape.{COUNT}",
        ours=f"{len(ours & theirs)}",
        yardstick=f"{len(ours | theirs)}",
        ratio=len(ours & theirs) / len(ours | theirs),
        side=Target.AT_LEAST,
        target=1.0,
    )


if __name__ == "__main__":
    main()
