"""Halts under load: how many assignments follow an acknowledgement, and how long a halt waits.

Judged by the ledger and, apart from it, by the workers' own logs. The canary beside it reads the
status and inserts without a lock: where it does not leak, the run proved nothing and fails.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import psycopg
from sqlalchemy import Engine

from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import PolicyName
from bandit.service import experiments
from bandit.storage.engine import connect
from bandit.storage.locks import WRITER_NAME, LockClass
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.halt._workers import Replica
from benchmarks.operation_check import FaultKind, faults
from benchmarks.operation_log import OperationLog, Phase, Verb
from benchmarks.temporary_ledger import (
    ACTOR,
    EXPERIMENT,
    OPENED,
    ledger,
    open_experiment,
    server_on_disk,
)
from liveops.embedded_postgres import EmbeddedPostgres

HALTS = 20 if QUICK else 1000
CANARY_HALTS = 10 if QUICK else 50
FROZEN_HALTS = 4 if QUICK else 40
REPLICAS = 3
CHALLENGER = PolicyName("challenger")
# The largest share there is, so that an assignment that slips past a halt is likely to be seen.
LIMITS = Limits(arm_minimum_ppm=600_000, start_ppm=600_000, unproven_cap_ppm=600_000)
PAUSE_SECONDS = (0.005, 0.03)
P99_SECONDS_MAX, FROZEN_SECONDS_MAX = 0.25, 0.5


@dataclass(kw_only=True)
class Operator:
    """Halts and resumes the challenger on a connection of its own, and keeps a log of it."""

    engine: Engine
    ledger: psycopg.Connection
    rng: np.random.Generator
    log: OperationLog = field(default_factory=lambda: OperationLog("operator"))
    seconds: list[float] = field(default_factory=list)

    def halt(self) -> float:
        """Halt; the seconds until it was acknowledged."""
        operation = self.log.invoked(Verb.STOP, CHALLENGER)
        began = perf_counter()
        self._change(ArmVerb.HALT)
        waited = perf_counter() - began
        self.log.ended(operation, Verb.STOP, CHALLENGER, Phase.OK, answer=self._snapshot())
        self._pause()
        return waited

    def resume(self) -> None:
        """Let the challenger have its traffic again."""
        operation = self.log.invoked(Verb.RESUME, CHALLENGER, answer=self._snapshot())
        self._change(ArmVerb.RESUME)
        self.log.ended(operation, Verb.RESUME, CHALLENGER, Phase.OK)
        self._pause()

    def _change(self, verb: ArmVerb) -> None:
        experiments.change_arm(
            self.engine,
            name=EXPERIMENT,
            policy=CHALLENGER,
            verb=verb,
            reason="drill",
            now=OPENED,
            actor=ACTOR,
        )

    def _snapshot(self) -> str:
        found = self.ledger.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert found is not None
        return str(found[0])

    def _pause(self) -> None:
        threading.Event().wait(self.rng.uniform(*PAUSE_SECONDS))


@contextmanager
def frozen_writer(conninfo: str) -> Iterator[None]:
    """Hold the gate as a writer does that was stopped inside its batch: it says nothing more."""
    with closing(psycopg.connect(conninfo, application_name=WRITER_NAME)) as writer:
        gate = "SELECT pg_advisory_xact_lock_shared(%s, id) FROM experiments"
        writer.execute(gate, [int(LockClass.GATE)])
        yield


def halted(
    server: EmbeddedPostgres, kind: str, *, halts: int, frozen: int
) -> tuple[list[float], list[float], list[str]]:
    """Halt under load; seconds of the halts, of those beside a frozen replica, and the leaks."""
    rng = np.random.default_rng(11)
    with ledger(server, kind) as made:
        open_experiment(made, challenger_ppm=600_000, limits=LIMITS)
        engine = connect(server.url(kind), pool_size=1)
        conninfo = server.conninfo(kind)
        replicas = [Replica(kind, f"r{n}", url=server.url(kind)) for n in range(REPLICAS)]
        for replica in replicas:
            replica.await_ready()
        with psycopg.connect(conninfo, autocommit=True) as connection:
            operator = Operator(engine=engine, ledger=connection, rng=rng)
            seconds = []
            for number in range(halts):
                seconds.append(operator.halt())
                operator.resume()
                if number % 200 == 199:
                    progress(f"{kind}: {number + 1} of {halts} halts")
            beside = _beside_frozen(operator, replicas, conninfo, halts=frozen)
            entries = [entry for replica in replicas for entry in replica.finish()]
            _require_traffic(connection, halts=halts)
            found = faults([*operator.log.entries, *entries], connection)
        engine.dispose()
    if kind == "ours" and any(fault.kind is not FaultKind.LEAKED for fault in found):
        raise RuntimeError(f"the ledger is not what was acknowledged: {found[:5]}")
    return seconds, beside, [f.key for f in found if f.kind is FaultKind.LEAKED]


def _beside_frozen(
    operator: Operator, replicas: Sequence[Replica], conninfo: str, *, halts: int
) -> list[float]:
    """Halt while a replica is stopped at a random moment, every other time inside a batch."""
    seconds = []
    for number in range(halts):
        replica = replicas[int(operator.rng.integers(len(replicas)))]
        replica.process.send_signal(signal.SIGSTOP)
        try:
            if number % 2:
                with frozen_writer(conninfo):
                    seconds.append(operator.halt())
            else:
                seconds.append(operator.halt())
        finally:
            replica.process.send_signal(signal.SIGCONT)
        operator.resume()
    return seconds


def _require_traffic(connection: psycopg.Connection, *, halts: int) -> None:
    """Between the halts the arm had its share; else the race would have proved nothing."""
    found = connection.execute(
        "SELECT count(*) FROM assignments s JOIN arms a ON a.id = s.arm_id"
        " JOIN policies p ON p.id = a.policy_id WHERE p.name = 'challenger'"
    ).fetchone()
    assert found is not None
    progress(f"{found[0]} assignments went to the challenger")
    if found[0] <= halts:
        raise RuntimeError(f"the challenger got {found[0]} assignments in {halts} halts")


def main() -> None:
    """Halt ours and the canary, and print the claims; a leak of ours is an error."""
    with server_on_disk(durable=True) as server:
        _, _, canary = halted(server, "naive", halts=CANARY_HALTS, frozen=0)
        seconds, beside, leaks = halted(server, "ours", halts=HALTS, frozen=FROZEN_HALTS)
    if not canary:
        sys.exit("the naive protocol leaked nothing: this run proved nothing")
    claim(
        "halt.leaks",
        ours=f"{len(leaks)}/{HALTS + FROZEN_HALTS}_halts",
        yardstick=f"{len(canary)}/{CANARY_HALTS}_halts",
        ratio=len(leaks) / len(canary),
        side=Target.AT_MOST,
        target=0.0,
    )
    p50, p99 = (float(np.quantile(seconds, q)) for q in (0.5, 0.99))
    waits = (
        ("p50", p50, P99_SECONDS_MAX),
        ("p99", p99, P99_SECONDS_MAX),
        ("max", max(seconds), FROZEN_SECONDS_MAX),
        ("frozen_replica.max", max(beside[0::2]), FROZEN_SECONDS_MAX),
        ("frozen_batch.max", max(beside[1::2]), FROZEN_SECONDS_MAX),
    )
    for name, value, limit in waits:
        claim(
            f"halt.{name}",
            ours=f"{1000 * value:.1f}ms",
            yardstick=f"{1000 * limit:.0f}ms",
            ratio=value / limit,
            side=Target.AT_MOST,
            target=1.0,
        )
    if leaks:
        sys.exit(f"assignments after an acknowledged halt: {leaks[:20]}")


if __name__ == "__main__":
    main()
