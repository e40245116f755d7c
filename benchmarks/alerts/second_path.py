"""From a loss that breaks a limit to the halt, with the guard in the ledger silent.

Prometheus scrapes the service, its rule fires, and Alertmanager asks for the halt: once with a
scrape and an evaluation each second, by two bare rules whose alerts end with what they read, and
once with the rules and routes that are shipped and the 15 s that docs/alertmanager.md begins with.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from sqlalchemy import Engine, text

from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import Assignment, PolicyName, UnitId
from bandit.core.outcomes import trade
from bandit.core.reading import ChecklistRule, Rules
from bandit.service import experiments, recording
from bandit.service.assigning import Router
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from benchmarks.alerts._stack import ProgramMissing, Stack, alert_stack, await_that
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.temporary_ledger import (
    ACTOR,
    EXPERIMENT,
    INSTRUMENT,
    OPENED,
    PATIENT,
    VAR,
    ledger,
    open_experiment,
    server_on_disk,
)
from config.settings import Settings
from liveops.api.server import serving
from liveops.clock import now
from liveops.wiring import running_app

BREACHES = 3 if QUICK else 100
SLOW_BREACHES = 0 if QUICK else 4
"""Breaches at 15 s; each arm has one, since an alert takes as long to end."""

SECONDS_MAX, SLOW_SECONDS_MAX = 3.0, 45.0
ARMS = tuple(PolicyName(f"challenger-{number}") for number in range(4))
WINDOW = 5
KEY = "lo_benchmark"
_POLL_SECONDS = 0.005
# Neither flags anything: what halts here is the alert.
_RULES = Rules(
    guard=PATIENT,
    checklist=ChecklistRule(
        window=WINDOW, long_window=WINDOW, pf_throttle=0, drawdown_halt_percent=100
    ),
)


@dataclass(kw_only=True)
class Loser:
    """Loses with one arm after the other, and brings each back."""

    engine: Engine
    rng: np.random.Generator
    _waiting: dict[PolicyName, list[Assignment]] = field(default_factory=dict)
    _units: int = 0
    _closed: int = 0

    def breach(self, arm: PolicyName) -> float:
        """Lose, and return the seconds from the commit of the loss to that of the halt."""
        self.earn(arm, "-0.9")
        began = perf_counter()
        await_that(lambda: self._is_halted(arm), seconds=120, pause=_POLL_SECONDS)
        return perf_counter() - began

    def bring_back(self, arm: PolicyName) -> None:
        """Win until the loss is out of the window, and let a person resume the arm."""
        for _ in range(WINDOW):
            self.earn(arm, "0.01")
        experiments.change_arm(
            self.engine,
            name=EXPERIMENT,
            policy=arm,
            verb=ArmVerb.RESUME,
            reason="drill",
            now=now(),
            actor=ACTOR,
        )

    def earn(self, arm: PolicyName, result: str) -> None:
        """Let an arm close a trade."""
        self._closed += 1
        told = trade(
            self._decision_of(arm).id,
            pnl=Decimal(result),
            return_ratio=Decimal(result),
            opened_at=OPENED,
            closed_at=OPENED + timedelta(seconds=self._closed),
        )
        [answer] = recording.record(self.engine, [told], now=now())
        assert isinstance(answer, Recorded), answer

    def prepare(self, decisions: int) -> None:
        """Have so many decisions of every arm, taken while none was stopped yet."""
        while min(len(self._waiting.get(arm, ())) for arm in ARMS) < decisions:
            units = [UnitId(f"loser-{self._units + i}") for i in range(256)]
            self._units += len(units)
            asked = [Opportunity(unit_id=unit, instrument=INSTRUMENT) for unit in units]
            for made in Router(self.engine).assign(EXPERIMENT, asked, now=OPENED):
                self._waiting.setdefault(made.policy, []).append(made)

    def _decision_of(self, arm: PolicyName) -> Assignment:
        return self._waiting[arm].pop()

    def _is_halted(self, arm: PolicyName) -> bool:
        statement = text(
            "SELECT a.status = 'halted' FROM arms a JOIN policies p ON p.id = a.policy_id"
            " WHERE p.name = :policy"
        )
        with self.engine.connect() as connection:
            return bool(connection.execute(statement, {"policy": arm}).scalar_one())


@contextmanager
def drill(*, seconds: int, breaches: int) -> Iterator[tuple[Loser, Stack]]:
    """Run a service on a ledger of its own, watched each so many seconds."""
    with ExitStack() as stack:
        server = stack.enter_context(server_on_disk(durable=True))
        made = stack.enter_context(ledger(server, "alerts"))
        limits = Limits(arm_minimum_ppm=100_000, start_ppm=100_000, unproven_cap_ppm=100_000)
        open_experiment(made, challenger_ppm=100_000, limits=limits, challengers=ARMS, rules=_RULES)
        url = server.url("alerts")
        engine = connect(url, pool_size=2)
        stack.callback(engine.dispose)
        loser = Loser(engine=engine, rng=np.random.default_rng(11))
        loser.prepare((WINDOW + 1) * (1 + -(-breaches // len(ARMS))))
        for arm in ARMS:
            for _ in range(WINDOW):
                loser.earn(arm, "0.01")
        settings = Settings.model_validate({"database": {"url": url}, "api_key": KEY})
        app = stack.enter_context(running_app(settings, demo=False, create=False, upgrade=False))
        address = stack.enter_context(serving(app, host="127.0.0.1", port=0))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=VAR)))
        watching = alert_stack(
            folder, service=address, key=KEY, seconds=seconds, is_shipped=seconds > 1
        )
        yield loser, stack.enter_context(watching)


def is_quiet(stack: Stack, arm: PolicyName) -> bool:
    """Say whether no alert fires of an arm."""
    return arm not in {policy for _, policy in stack.firing()}


def waits(*, seconds: int, breaches: int) -> list[float]:
    """Return how long each breach went on."""
    pause = threading.Event()
    found = []
    with drill(seconds=seconds, breaches=breaches) as (loser, stack):
        for number in range(breaches):
            arm = ARMS[number % len(ARMS)]
            await_that(partial(is_quiet, stack, arm), seconds=120)
            # At any moment between two scrapes.
            pause.wait(float(loser.rng.uniform(0, 2 * seconds)))
            found.append(loser.breach(arm))
            progress(f"{number + 1} of {breaches} breaches: {found[-1]:.2f} s")
            if number + len(ARMS) < breaches:
                loser.bring_back(arm)
    return found


def main() -> None:
    """Lose again and again, and print the claims."""
    try:
        quick = waits(seconds=1, breaches=BREACHES)
        slow = waits(seconds=15, breaches=SLOW_BREACHES) if SLOW_BREACHES else []
    except ProgramMissing as missing:
        sys.exit(str(missing))
    p50, p99 = (float(np.quantile(quick, part)) for part in (0.5, 0.99))
    claim(
        "alerts.second_path.p99",
        ours=f"{p99:.2f}s,p50={p50:.2f}s,n={len(quick)}",
        yardstick=f"{SECONDS_MAX:.0f}s",
        ratio=p99 / SECONDS_MAX,
        side=Target.AT_MOST,
        target=1.0,
    )
    if slow:
        claim(
            "alerts.second_path.defaults",
            ours=f"{max(slow):.1f}s,n={len(slow)}",
            yardstick=f"{SLOW_SECONDS_MAX:.0f}s",
            ratio=max(slow) / SLOW_SECONDS_MAX,
            side=Target.AT_MOST,
            target=1.0,
        )


if __name__ == "__main__":
    main()
