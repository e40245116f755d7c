"""Assignments per second: routed in process, and as durable rows.

In process the yardstick is the textbook: SHA-256 of the unit modulo a million, a linear scan over
the weights, a name-based UUID. Durable, it is a plain INSERT of the same row, one commit each.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from itertools import count
from statistics import median

import numpy as np
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import Engine

from bandit.core.model import WHOLE_PPM, Allocation, PolicyName, Ppm, UnitId
from bandit.core.routing import assignment_id, partition_of_history, router
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from benchmarks.claims import QUICK, Target, alternated, claim, paired, progress
from benchmarks.temporary_ledger import (
    EXPERIMENT,
    INSTRUMENT,
    OPENED,
    ledger,
    open_experiment,
    server_on_disk,
)

SALT = bytes(range(32))
NIGHTS = 90
UNITS_A_ROUND = 1000
ROWS_A_ROUND = 64

# A secret salt and minimal moves must not make routing dearer than a textbook that has neither.
ROUTING_TARGET = 1.0
# One assignment, with everything it checks, in the time of two plain INSERTs.
SINGLE_TARGET = 0.5
# 64 assignments, which wait for the disk once, in the time of eight plain INSERTs.
BATCH_TARGET = 8.0

Routed = list[tuple[uuid.UUID, PolicyName, float]]


def history(arms: int) -> list[dict[PolicyName, Ppm]]:
    """The weights of `arms` arms on each night, every weight moved by at most a quarter a night."""
    rng = np.random.default_rng(arms)
    policies = [PolicyName(f"policy-{i:02}") for i in range(arms)]
    weights = np.full(arms, 1.0 / arms)
    versions = []
    for _ in range(NIGHTS):
        weights *= rng.uniform(0.8, 1.25, size=arms)
        weights /= weights.sum()
        parts = [int(weight * WHOLE_PPM) for weight in weights]
        parts[0] += WHOLE_PPM - sum(parts)
        versions.append({name: Ppm(part) for name, part in zip(policies, parts, strict=True)})
    return versions


def by_us(versions: list[dict[PolicyName, Ppm]], units: Sequence[UnitId]) -> Callable[[], Routed]:
    """Route `units` as the service does: id, policy and propensity."""
    ppm = versions[-1]
    routes = router(
        SALT,
        experiment=EXPERIMENT,
        allocation=Allocation(version=len(versions), champion=next(iter(ppm)), ppm=ppm),
        partition=partition_of_history(versions),
    )

    def route() -> Routed:
        keys = [assignment_id(SALT, experiment=EXPERIMENT, unit=unit) for unit in units]
        return [
            (key, found.policy, found.propensity)
            for key, found in zip(keys, routes(units), strict=True)
        ]

    return route


def by_the_book(ppm: dict[PolicyName, Ppm], units: Sequence[UnitId]) -> Callable[[], Routed]:
    """Route `units` as textbooks do: the same three answers, any reweight moves any unit."""
    weights = list(ppm.items())
    salt = SALT.hex()

    def route() -> Routed:
        routed = []
        for unit in units:
            digest = hashlib.sha256(f"{salt}:{EXPERIMENT}:{unit}".encode()).hexdigest()
            point = int(digest, 16) % WHOLE_PPM
            key = uuid.uuid5(uuid.NAMESPACE_OID, f"{EXPERIMENT}:{unit}")
            for policy, part in weights:
                point -= part
                if point < 0:
                    routed.append((key, policy, part / WHOLE_PPM))
                    break
        return routed

    return route


def measure_routing(arms: int) -> None:
    """Claim how many units a second one core routes between `arms` arms."""
    versions = history(arms)
    units = [UnitId(f"{INSTRUMENT}-2026-03-01T12:{i:04}") for i in range(UNITS_A_ROUND)]
    work = {"ours": by_us(versions, units), "book": by_the_book(versions[-1], units)}
    for route in work.values():
        routed = route()
        assert len({key for key, _, _ in routed}) == len(units)
        assert all(propensity == versions[-1][p] / WHOLE_PPM for _, p, propensity in routed)
    progress(f"routing between {arms} arms after {NIGHTS} nights")
    seconds = alternated(work, rounds=20 if QUICK else 400)
    claim(
        f"core.routing.{arms}_arms",
        ours=f"{UNITS_A_ROUND / median(seconds['ours']):.0f}/s",
        yardstick=f"{UNITS_A_ROUND / median(seconds['book']):.0f}/s",
        ratio=paired(seconds["book"], seconds["ours"]),
        side=Target.AT_LEAST,
        target=ROUTING_TARGET,
    )


def assigning(engine: Engine, *, batch: int) -> Callable[[], None]:
    """Assign `ROWS_A_ROUND` new units through the router, `batch` at a time."""
    router = Router(engine)
    numbers = count()

    def assign() -> None:
        for _ in range(0, ROWS_A_ROUND, batch):
            units = [UnitId(f"batch-of-{batch}-{next(numbers)}") for _ in range(batch)]
            opportunities = [Opportunity(unit_id=unit, instrument=INSTRUMENT) for unit in units]
            made = router.assign(EXPERIMENT, opportunities, now=OPENED)
            assert [a.unit_id for a in made] == units

    return assign


def inserting(connection: psycopg.Connection[dict[str, object]]) -> Callable[[], None]:
    """Insert `ROWS_A_ROUND` rows like the first assignment, each with a commit of its own."""
    template = connection.execute("SELECT * FROM assignments LIMIT 1").fetchone()
    assert template is not None
    statement = sql.SQL("INSERT INTO assignments ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, template)),
        sql.SQL(", ").join(map(sql.Placeholder, template)),
    )
    numbers = count()

    def insert() -> None:
        for _ in range(ROWS_A_ROUND):
            unit = UnitId(f"plain-{next(numbers)}")
            key = assignment_id(SALT, experiment=EXPERIMENT, unit=unit)
            connection.execute(statement, template | {"id": key, "unit_id": unit})

    return insert


def measure_durable() -> None:
    """Claim how many assignments a second one caller gets back from the disk."""
    with server_on_disk(durable=True) as server, ledger(server, "core") as engine:
        open_experiment(engine, challenger_ppm=100_000)
        work = {batch: assigning(engine, batch=batch) for batch in (1, 64)}
        for assign in work.values():
            assign()
        with psycopg.connect(
            server.conninfo("core"), autocommit=True, row_factory=dict_row
        ) as connection:
            insert = inserting(connection)
            insert()
            progress("durable assignments beside plain INSERTs")
            seconds = alternated(
                {"1": work[1], "64": work[64], "plain": insert}, rounds=3 if QUICK else 60
            )
    for batch, target in (("1", SINGLE_TARGET), ("64", BATCH_TARGET)):
        claim(
            f"core.durable.batch_{batch}",
            ours=f"{ROWS_A_ROUND / median(seconds[batch]):.0f}/s",
            yardstick=f"{ROWS_A_ROUND / median(seconds['plain']):.0f}/s",
            ratio=paired(seconds["plain"], seconds[batch]),
            side=Target.AT_LEAST,
            target=target,
        )


def main() -> None:
    """Print the claims."""
    for arms in (2, 17):
        measure_routing(arms)
    measure_durable()


if __name__ == "__main__":
    main()
