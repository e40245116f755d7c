"""Durable assignments per second with many callers at once, and how long one of them waits.

The yardstick of the rates is pgbench: 64 connections that run the single-row form of the same
transaction on the same table in the same run. The yardstick of the wait is one connection that
commits one row at a time, interleaved with the open loop; the ratio is the median over rounds, so
that a round in which the host gave the processor to others says nothing. That yardstick counts a
commit that hangs once, where an open loop counts everyone who comes meanwhile: so a second one is
what the same stream would wait if it were committed one by one, in the times just measured. All of
it again on a disk as slow as many a virtual one: where it is fast, only processors are waited for.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile
from time import perf_counter

import numpy as np
import psycopg
import uvloop
from psycopg import sql

from bandit.core.model import UnitId
from bandit.service.assigning import Router
from bandit.service.live_routing import LiveRouter
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import PROTOCOL
from benchmarks.claims import QUICK, Target, claim, paired, progress
from benchmarks.temporary_ledger import (
    EXPERIMENT,
    INSTRUMENT,
    OPENED,
    ledger,
    open_experiment,
    server_on_disk,
)
from liveops.postgres_home import packaged_binaries

CONNECTIONS = 64
CALLERS = {64: 1.2, 256: 2.0}
ROUND_SECONDS = 1 if QUICK else 5
ROUNDS = 1 if QUICK else 7
OPEN_LOOP_PER_SECOND = 1000
OPEN_LOOP_SECONDS = 1 if QUICK else 5
OPEN_LOOPS = 1 if QUICK else 15
OPEN_LOOP_TARGET = 3.0
SLOW_DISK_MICROSECONDS = 3500

_units = count()


def opportunity() -> Opportunity:
    """A unit that nobody asked for before."""
    return Opportunity(unit_id=UnitId(f"unit-{next(_units)}"), instrument=INSTRUMENT)


def now() -> datetime:
    """The time of every decision: the benchmark measures no clock."""
    return OPENED


async def closed_loop(live: LiveRouter, callers: int) -> float:
    """Rows a second that `callers` get back, each asking again when it is answered."""
    made = 0
    end = perf_counter() + ROUND_SECONDS

    async def caller() -> None:
        nonlocal made
        while perf_counter() < end:
            await live.assign(EXPERIMENT, opportunity())
            made += 1

    start = perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return made / (perf_counter() - start)


async def open_loop(live: LiveRouter, rng: np.random.Generator) -> list[float]:
    """Seconds that each of a Poisson stream of callers waits, counted from when it was due.

    The loop's timers know whole milliseconds only, which makes callers late and counts against
    ours. Who waits for them awake takes one of two processors from the server.
    """
    waits: list[float] = []
    tasks = set()

    async def caller(due: float) -> None:
        await live.assign(EXPERIMENT, opportunity())
        waits.append(perf_counter() - due)

    due = perf_counter()
    end = due + OPEN_LOOP_SECONDS
    while due < end:
        due += rng.exponential(1 / OPEN_LOOP_PER_SECOND)
        await asyncio.sleep(max(0.0, due - perf_counter()))
        task = asyncio.create_task(caller(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return waits


def single_rows(conninfo: str) -> str:
    """The pgbench script of the same transaction with one row."""
    with psycopg.connect(conninfo) as connection:
        found = connection.execute("SELECT e.id, e.epoch, a.id FROM experiments e, arms a LIMIT 1")
        row = found.fetchone()
    assert row is not None
    experiment, epoch, arm = row
    # No colons: pgbench would take what follows them for its variables.
    decided, expires = (f"'{t:%Y%m%dT%H%M%SZ}'" for t in (OPENED, OPENED + timedelta(seconds=2)))
    values = f"{PROTOCOL}, {experiment}, {epoch}, 1, {decided}, {expires}, false"
    json = (
        f"'id', u, 'unit_id', u, 'instrument', '{INSTRUMENT}', 'arm_id', {arm}, 'propensity', 0.9"
    )
    batch = f"(SELECT json_build_array(json_build_object({json})) FROM gen_random_uuid() u)"  # noqa: S608 - ours
    return f"SELECT id FROM commit_assignments({values}, {batch});"  # noqa: S608 - ours


def pgbench(conninfo: str, script: Path) -> float:
    """Transactions a second of pgbench."""
    program = packaged_binaries(18) / "pgbench"
    options = f"-n -M prepared -j 2 -c {CONNECTIONS} -T {ROUND_SECONDS}"
    ran = subprocess.run(
        [program, *options.split(), "-f", script, conninfo],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = re.search(r"tps = ([0-9.]+)", ran.stdout)
    assert found is not None, ran.stdout
    return float(found[1])


def commits(conninfo: str) -> list[float]:
    """Seconds of each of a second's worth of single-row commits on one connection."""
    seconds = []
    statement = single_rows(conninfo)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        end = perf_counter() + (0.5 if QUICK else 2)
        while (start := perf_counter()) < end:
            connection.execute(statement, prepare=True)
            seconds.append(perf_counter() - start)
    return seconds


def one_at_a_time(seconds: list[float], rng: np.random.Generator) -> list[float]:
    """Seconds that the callers of `open_loop` would wait for commits that take so long, in turn."""
    waits, behind = [], 0.0  # Lindley's recursion
    for i in range(OPEN_LOOP_PER_SECOND * OPEN_LOOP_SECONDS):
        waits.append(behind + seconds[i % len(seconds)])
        behind = max(0.0, waits[-1] - rng.exponential(1 / OPEN_LOOP_PER_SECOND))
    return waits


def slow_down_commits(conninfo: str) -> None:
    """Let every commit of later sessions take as long as on a disk of `SLOW_DISK_MICROSECONDS`."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        name = connection.info.dbname
        for setting in (f"commit_delay = {SLOW_DISK_MICROSECONDS}", "commit_siblings = 0"):
            connection.execute(
                sql.SQL(f"ALTER DATABASE {{}} SET {setting}").format(sql.Identifier(name))
            )


async def measured(live: LiveRouter, conninfo: str, script: Path) -> None:
    """Print the claims."""
    rates: dict[int, list[float]] = {callers: [] for callers in CALLERS}
    yardstick: list[float] = []
    await live.assign(EXPERIMENT, opportunity())
    progress("closed loops beside pgbench")
    for _ in range(ROUNDS):
        for callers in CALLERS:
            rates[callers].append(await closed_loop(live, callers))
        yardstick.append(await asyncio.to_thread(pgbench, conninfo, script))
    for callers, target in CALLERS.items():
        claim(
            f"ledger.durable_assignments.{callers}_callers",
            ours=f"{median(rates[callers]):.0f}/s",
            yardstick=f"{median(yardstick):.0f}/s",
            ratio=paired(rates[callers], yardstick),
            side=Target.AT_LEAST,
            target=target,
        )


async def waits_beside_single(live: LiveRouter, conninfo: str, *, disk: str) -> None:
    """Print how long a caller of the open loop waits beside one that commits alone."""
    progress(f"open loop beside single commits, {disk}")
    await live.assign(EXPERIMENT, opportunity())
    rng = np.random.default_rng(7)
    ours: list[float] = []
    theirs: list[float] = []
    in_turn: list[float] = []
    for _ in range(OPEN_LOOPS):
        single = await asyncio.to_thread(commits, conninfo)
        waits = await open_loop(live, rng)
        queued = one_at_a_time(single, rng)
        for found, seconds in ((theirs, single), (ours, waits), (in_turn, queued)):
            found.append(1000 * float(np.quantile(seconds, 0.99)))
        progress(f"p99 {ours[-1]:.1f} ms, one by one {theirs[-1]:.1f} ms, queued {in_turn[-1]:.1f}")
    claim(
        f"ledger.open_loop_p99.{disk}",
        ours=f"{median(ours):.1f}ms",
        yardstick=f"{median(theirs):.1f}ms",
        ratio=paired(ours, theirs),
        side=Target.AT_MOST,
        target=OPEN_LOOP_TARGET,
    )
    claim(
        f"ledger.open_loop_p99_beside_a_queue.{disk}",
        ours=f"{median(ours):.1f}ms",
        yardstick=f"{median(in_turn):.1f}ms",
        ratio=paired(ours, in_turn),
        side=Target.AT_MOST,
        target=1.0,
    )


def main() -> None:
    """Measure on a server that waits for its disk."""
    with server_on_disk(durable=True) as server, ledger(server, "ledger") as engine:
        open_experiment(engine, challenger_ppm=100_000)
        conninfo = server.conninfo("ledger")

        async def run() -> None:
            live = LiveRouter(Router(engine), url=server.url("ledger"), now=now)
            async with live.running():
                await measured(live, conninfo, Path(file.name))
                await waits_beside_single(live, conninfo, disk="this_disk")
            slow_down_commits(conninfo)
            live = LiveRouter(Router(engine), url=server.url("ledger"), now=now)
            async with live.running():
                await waits_beside_single(live, conninfo, disk="slow_disk")

        with NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(single_rows(conninfo))
            file.flush()
            uvloop.run(run())


if __name__ == "__main__":
    main()
