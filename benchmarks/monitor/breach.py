"""From a loss that breaks a limit to the next decision: what is still decided, and who knows when.

An outcome halts its arm in the transaction that records it. Replicas assign without pause; each
breach is judged by the ledger, by their logs, and by a claim of an older decision of the arm.
In some of them no replica hears of changes any more: its listening session is ended just before.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import numpy as np
import psycopg

from bandit.core.errors import Revoked
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import trade
from bandit.service import experiments, recording
from bandit.service.assigning import Router
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.halt._workers import Replica
from benchmarks.halt.linearizable import CHALLENGER, LIMITS, REPLICAS, Operator
from benchmarks.operation_check import FaultKind, faults
from benchmarks.operation_log import Entry, Phase, Verb
from benchmarks.temporary_ledger import (
    ACTOR,
    EXPERIMENT,
    INSTRUMENT,
    OPENED,
    ledger,
    open_experiment,
    server_on_disk,
)

BREACHES = 20 if QUICK else 1000
DEAF = 4 if QUICK else 50
"""Breaches of which no replica is told."""

LATENCY_SECONDS_MAX, DEAF_SECONDS_MAX = 0.25, 2.0
_DEAFEN = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'liveops-listener' AND datname = current_database()"
)


@dataclass(kw_only=True)
class Loser(Operator):
    """Halts the challenger by an outcome that ruins it, and lets a person resume it."""

    claims_granted: int = 0
    _moments: int = 0
    _units: int = 0
    _waiting: list[Assignment] = field(default_factory=list)

    def ready(self) -> None:
        """Have two decisions of the challenger: one to lose with, one to claim afterwards."""
        while len(self._waiting) < 2:
            units = [UnitId(f"loser-{self._units + i}") for i in range(16)]
            self._units += len(units)
            asked = [Opportunity(unit_id=unit, instrument=INSTRUMENT) for unit in units]
            made = Router(self.engine).assign(EXPERIMENT, asked, now=OPENED)
            self._waiting += [each for each in made if each.policy == CHALLENGER]

    def breach(self) -> float:
        """Lose; the seconds until the outcome was acknowledged."""
        seconds = self.halt()
        try:
            Router(self.engine).claim(self._waiting[1].id, now=OPENED)
            self.claims_granted += 1
        except Revoked:
            self._waiting = []
        return seconds

    def _change(self, verb: ArmVerb) -> None:
        self._moments += 1
        now = OPENED + timedelta(seconds=self._moments)
        if verb is ArmVerb.HALT:
            ruin = trade(
                self._waiting[0].id,
                pnl=Decimal(-900),
                return_ratio=Decimal("-0.9"),
                opened_at=OPENED,
                closed_at=now,
            )
            [answer] = recording.record(self.engine, [ruin], now=now)
            assert isinstance(answer, Recorded), answer
            return
        experiments.change_arm(
            self.engine,
            name=EXPERIMENT,
            policy=CHALLENGER,
            verb=verb,
            reason="drill",
            now=now,
            actor=ACTOR,
        )


def visible_after(stops: Sequence[Entry], replica: Sequence[Entry]) -> list[float]:
    """Return how long after each acknowledged loss a replica gave its next answer, in seconds."""
    answers = sorted(e.at for e in replica if e.verb is Verb.ASSIGN and e.phase is Phase.OK)
    found = []
    for stop in stops:
        place = bisect_right(answers, stop.at)
        if place < len(answers):
            found.append(answers[place] - stop.at)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What became of some breaches."""

    leaks: list[str]
    claims_granted: int
    acknowledged: list[float]
    visible: list[float]


def drill(*, breaches: int, deaf: int) -> tuple[Drill, list[float]]:
    """Break the limit under load; also what replicas took that were not told of it."""
    with server_on_disk(durable=True) as server, ledger(server, "breach") as made:
        open_experiment(made, challenger_ppm=600_000, limits=LIMITS)
        engine, conninfo = connect(server.url("breach"), pool_size=2), server.conninfo("breach")
        replicas = [Replica("ours", f"r{n}", url=server.url("breach")) for n in range(REPLICAS)]
        for replica in replicas:
            replica.await_ready()
        with psycopg.connect(conninfo, autocommit=True) as connection:
            loser = Loser(engine=engine, ledger=connection, rng=np.random.default_rng(11))
            seconds = []
            for number in range(breaches + deaf):
                loser.ready()
                if number >= breaches:
                    connection.execute(_DEAFEN)
                seconds.append(loser.breach())
                loser.resume()
                if number % 200 == 199:
                    progress(f"{number + 1} of {breaches + deaf} breaches")
            logs = [replica.finish() for replica in replicas]
            everything = [*loser.log.entries, *(entry for log in logs for entry in log)]
            leaks = [f.key for f in faults(everything, connection) if f.kind is FaultKind.LEAKED]
        engine.dispose()
    stops = [e for e in loser.log.entries if e.verb is Verb.STOP and e.phase is Phase.OK]
    told = [s for log in logs for s in visible_after(stops[:breaches], log)]
    untold = [s for log in logs for s in visible_after(stops[breaches:], log)]
    found = Drill(
        leaks=leaks, claims_granted=loser.claims_granted, acknowledged=seconds, visible=told
    )
    return found, untold


def main() -> None:
    """Lose again and again, and print the claims; a decision after a breach is an error."""
    found, untold = drill(breaches=BREACHES, deaf=DEAF)
    for name, count in (("leaks", len(found.leaks)), ("claims", found.claims_granted)):
        claim(
            f"monitor.breach.{name}",
            ours=f"{count}/{BREACHES + DEAF}_breaches",
            yardstick="0",
            ratio=float(count),
            side=Target.AT_MOST,
            target=0.0,
        )
    waits = (
        ("acknowledged.p99", found.acknowledged, LATENCY_SECONDS_MAX),
        ("visible.p99", found.visible, LATENCY_SECONDS_MAX),
        ("visible_untold.p99", untold, DEAF_SECONDS_MAX),
    )
    for name, seconds, limit in waits:
        value = float(np.quantile(seconds, 0.99))
        claim(
            f"monitor.breach.{name}",
            ours=f"{1000 * value:.1f}ms",
            yardstick=f"{1000 * limit:.0f}ms",
            ratio=value / limit,
            side=Target.AT_MOST,
            target=1.0,
        )
    if found.leaks or found.claims_granted:
        sys.exit(f"decided or claimed after a breach: {found.leaks[:20]}")


if __name__ == "__main__":
    main()
