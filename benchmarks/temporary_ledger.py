"""An embedded server and ledgers that live as long as one benchmark."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from sqlalchemy import Engine

from bandit.core.account import LossLimits
from bandit.core.guard_rule import GuardRule
from bandit.core.limits import Limits
from bandit.core.model import Experiment, Policy, PolicyKind, PolicyName, PolicySha, Strategy
from bandit.core.reading import ChecklistRule, Rules
from bandit.service import experiments, policies
from bandit.storage import migrate
from bandit.storage.engine import connect
from bandit.storage.experiments import ExperimentRecord
from benchmarks.claims import progress
from liveops.embedded_postgres import EmbeddedPostgres

# Not the system's temporary folder, which is memory on many machines: nothing would reach a disk.
VAR = Path(__file__).resolve().parents[1] / "var"

EXPERIMENT = "btc"
INSTRUMENT = "BTCUSD"
OPENED = datetime(2015, 1, 1, tzinfo=UTC)
ACTOR = "benchmark"


@contextmanager
def server_on_disk(*, durable: bool) -> Iterator[EmbeddedPostgres]:
    """Run a server of its own on disk, and say what it runs on; `durable` waits for the disk."""
    VAR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VAR, prefix="benchmark-") as folder:
        Path(folder).chmod(0o711)  # for root, whose server may have to run as another user
        progress(
            f"machine: {os.cpu_count()} cores, {platform.machine()}, "
            f"Python {platform.python_version()}, "
            f"one 8 kB page to disk {1000 * _fsync_seconds(Path(folder)):.2f} ms"
        )
        with EmbeddedPostgres(data_dir=Path(folder, "postgres"), durable=durable) as server:
            yield server


@contextmanager
def ledger(server: EmbeddedPostgres, database: str) -> Iterator[Engine]:
    """Yield an engine on a new, migrated ledger."""
    server.create_database(database)
    migrate.upgrade(server.url(database))
    engine = connect(server.url(database))
    try:
        yield engine
    finally:
        engine.dispose()


PATIENT: Final = GuardRule(
    win_rate_reduced=0,
    win_rate_paused=0,
    drawdown_reduced=1,
    drawdown_paused=1,
    losing_streak_reduced=1_000_000,
    losing_streak_paused=1_000_000,
)
"""A performance guard that reads every trade and never says a word, whatever a benchmark loses."""

CALM: Final = Rules(guard=PATIENT, checklist=ChecklistRule().silenced)
"""Rules that stop no arm: of histories that end differently none may be read differently."""


def open_experiment(
    engine: Engine,
    *,
    challenger_ppm: int,
    limits: Limits | None = None,
    challengers: Sequence[str] = ("challenger",),
    strategy: Strategy = Strategy.RAMP,
    rules: Rules | None = None,
) -> ExperimentRecord:
    """Open an experiment with a champion and challengers, under the usual limits or `limits`."""
    names = [register(engine, name) for name in ("champion", *challengers)]
    experiment = Experiment(
        name=EXPERIMENT,
        champion=names[0],
        capital=Decimal(10**12),  # whatever a benchmark loses, no loss limit stops it
        currency="USD",
        equity_fraction=0.1,
        strategy=strategy,
    )
    record, _ = experiments.open_experiment(
        engine,
        experiment,
        challengers=names[1:],
        salt=bytes(range(32)),
        limits=limits or Limits(start_ppm=challenger_ppm),
        loss_limits=LossLimits(),
        rules=rules or Rules(guard=PATIENT),
        now=OPENED,
        actor=ACTOR,
    )
    return record


def register(engine: Engine, name: str) -> PolicyName:
    """Register a policy."""
    sha = PolicySha(name.encode().hex())
    policy = Policy(name=PolicyName(name), kind=PolicyKind.EXTERNAL, sha=sha)
    policies.register(engine, policy, now=OPENED, actor=ACTOR)
    return policy.name


def _fsync_seconds(folder: Path) -> float:
    """Return how long the disk takes to keep one page of PostgreSQL's, the median of 50."""
    seconds = []
    with Path(folder, "probe").open("wb", buffering=0) as file:
        for _ in range(50):
            start = perf_counter()
            file.write(bytes(8192))
            os.fdatasync(file.fileno())
            seconds.append(perf_counter() - start)
    return median(seconds)
