"""Kill -9 of Postgres, of a replica and of both, again and again, under clients that retry.

What was acknowledged has to be in the ledger afterwards, once and unchanged. The yardstick of the
losses is a writer beside it whose commits do not wait for the disk; that of the recovery is a time.
"""

from __future__ import annotations

import shutil
import socket
import sys
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import psycopg

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.crash._clients import CarelessWriter, Client
from benchmarks.crash._replicas import Replica, kill_server
from benchmarks.operation_check import Fault, FaultKind, faults
from benchmarks.operation_log import Entry, Phase
from benchmarks.temporary_ledger import ledger, open_experiment, server_on_disk
from liveops.embedded_postgres import EmbeddedPostgres

KILLS = 10 if QUICK else 200
REPLICAS = 2
CLIENTS = 8
SEED = 20260321
CHALLENGER_PPM = 250_000
RECOVERY_SECONDS_MAX = {"postgres": 5.0, "replica": 2.0, "both": 5.0}
CALM_SECONDS = (0.05, 0.6)
DATABASE, CANARY_DATABASE = "ledger", "careless"


class Victim(StrEnum):
    """Who is killed."""

    POSTGRES = "postgres"
    REPLICA = "replica"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Who was killed, and when."""

    victim: Victim
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run of kills did."""

    entries: Sequence[Entry]
    kills: Sequence[Kill]
    faults: Sequence[Fault]
    careless_lost: int
    careless_acknowledged: int

    @property
    def acknowledged(self) -> int:
        """How many operations were."""
        return sum(entry.phase is Phase.OK for entry in self.entries)

    def recoveries(self, victim: Victim) -> list[float]:
        """Seconds from each kill to the end of the first write that began after it and was kept."""
        began = {e.operation: e.at for e in self.entries if e.phase is Phase.INVOKE}
        done = [(began[e.operation], e.at) for e in self.entries if e.phase is Phase.OK]
        done.sort()
        # The earliest end among all that began at or after a place in that order.
        ends = [end for _, end in done]
        for place in range(len(ends) - 2, -1, -1):
            ends[place] = min(ends[place], ends[place + 1])
        found = []
        for kill in self.kills:
            if kill.victim is victim:
                place = bisect_left(done, (kill.at, 0.0))
                found.append(ends[place] - kill.at)
        return found


def run(server: EmbeddedPostgres, folder: Path, *, kills: int, seed: int) -> Report:
    """Kill `kills` times and let the checker judge; for the main thread, which owns the server."""
    rng = np.random.default_rng(seed)
    server.create_database(CANARY_DATABASE)
    with ledger(server, DATABASE) as engine:
        open_experiment(engine, challenger_ppm=CHALLENGER_PPM)
    careless = CarelessWriter(conninfo=server.conninfo(CANARY_DATABASE), stop=threading.Event())
    made: list[Kill] = []
    with replicas(server, folder) as served:
        urls = [replica.url for replica in served]
        stop, abandon = threading.Event(), threading.Event()
        clients = [
            Client(name=f"c{number}", urls=urls, stop=stop, abandon=abandon, rng=generator)
            for number, generator in enumerate(rng.spawn(CLIENTS))
        ]
        with _at_work([*clients, careless], stops=(stop, careless.stop), abandon=abandon) as failed:
            for number in range(kills):
                made.append(_kill(server, served, number=number, rng=rng))
                if failed():
                    break
                if number % 20 == 19:
                    progress(f"{number + 1} of {kills} kills")
    entries = [entry for client in clients for entry in client.log.entries]
    with psycopg.connect(server.conninfo(DATABASE), autocommit=True) as connection:
        found = faults(entries, connection)
    return Report(
        entries=entries,
        kills=made,
        faults=found,
        careless_lost=careless.lost(),
        careless_acknowledged=len(careless.acknowledged),
    )


@contextmanager
def _at_work(
    workers: Sequence[Client | CarelessWriter],
    *,
    stops: Sequence[threading.Event],
    abandon: threading.Event,
) -> Iterator[Callable[[], bool]]:
    """Let them work while the context lasts; yields what says that one of them has failed."""
    with ThreadPoolExecutor(len(workers)) as pool, ExitStack() as stack:
        running = [pool.submit(worker.run) for worker in workers]
        # When the context fails nobody serves any more, so that nobody may wait to be served.
        for event in (*stops, abandon):
            stack.callback(event.set)
        yield lambda: any(future.done() for future in running)
        for event in stops:
            event.set()
        for future in running:
            future.result()


@contextmanager
def replicas(server: EmbeddedPostgres, folder: Path) -> Iterator[list[Replica]]:
    """Serve while the context lasts."""
    served = [
        Replica(folder / f"replica-{n}", port=_free_port(), database_url=server.url(DATABASE))
        for n in range(REPLICAS)
    ]
    try:
        for replica in served:
            replica.start()
        for replica in served:
            replica.await_ready()
        yield served
    finally:
        for replica in served:
            replica.kill()


def _kill(
    server: EmbeddedPostgres, served: Sequence[Replica], *, number: int, rng: np.random.Generator
) -> Kill:
    """Wait for a random moment, kill, start again what was killed, and wait until it serves."""
    threading.Event().wait(rng.uniform(*CALM_SECONDS))
    victims = list(Victim)
    # Each kind once, and then at random; half of them Postgres, which is the quickest to be back.
    victim = victims[number] if number < len(victims) else rng.choice(victims, p=[0.5, 0.3, 0.2])
    replica = served[int(rng.integers(len(served)))]
    if victim != Victim.REPLICA:
        kill_server(server)
    if victim != Victim.POSTGRES:
        replica.kill()
    kill = Kill(victim=Victim(victim), at=perf_counter())
    if victim != Victim.REPLICA:
        server.start()
    if victim != Victim.POSTGRES:
        replica.start()
    for one in served:
        one.await_ready()
    return kill


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def claimed(report: Report) -> None:
    """Print the claims."""
    kinds = Counter(fault.kind for fault in report.faults)
    share = report.careless_lost / max(1, report.careless_acknowledged)
    lost = kinds[FaultKind.LOST]
    claim(
        "crash.kept",
        ours=f"{report.acknowledged - lost}/{report.acknowledged}",
        yardstick=f"{report.careless_acknowledged - report.careless_lost}"
        f"/{report.careless_acknowledged}",
        ratio=(report.acknowledged - lost) / max(1, report.acknowledged),
        side=Target.AT_LEAST,
        target=1.0,
    )
    for kind in FaultKind:
        claim(
            f"crash.{kind}",
            ours=str(kinds[kind]),
            yardstick=str(report.careless_lost) if kind is FaultKind.LOST else "0",
            ratio=float(kinds[kind]),
            side=Target.AT_MOST,
            target=0.0,
        )
    if not report.careless_lost:
        progress("no commit without the disk was lost either: these kills proved little")
    progress(f"the careless writer lost {100 * share:.2f} % of its commits")
    for victim in Victim:
        seconds, limit = report.recoveries(victim), RECOVERY_SECONDS_MAX[victim]
        for name, value in (("median", median(seconds)), ("worst", max(seconds))):
            claim(
                f"crash.recovery.{victim}.{name}",
                ours=f"{value:.2f}s",
                yardstick=f"{limit:.2f}s",
                ratio=value / limit,
                side=Target.AT_MOST,
                target=1.0,
            )


def main() -> None:
    """Kill on a server that waits for its disk; a fault is an error, not a missed target."""
    with server_on_disk(durable=True) as server:
        folder = server.data_dir.parent / "replicas"
        folder.mkdir()
        report = run(server, folder, kills=KILLS, seed=SEED)
        shutil.rmtree(folder)
    victims = Counter(kill.victim.value for kill in report.kills)
    unknown = sum(entry.phase is Phase.UNKNOWN for entry in report.entries)
    progress(f"{dict(victims)}, {unknown} operations without an answer")
    claimed(report)
    for fault in report.faults[:20]:
        progress(str(fault))
    if report.faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
