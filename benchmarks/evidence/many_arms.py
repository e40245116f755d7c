"""What a night costs with twenty challengers, whose statistics count a million outcomes each.

Sixteen of them are live, as many as may be, and four watch. Two years are planted: a thousand real
outcomes an arm, with their evidence, on as many days as a million would take; then the sums that
a night reads are multiplied. A night reads sums by day and the newest trades, never the history.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import timedelta
from statistics import median
from time import perf_counter

import psycopg
from sqlalchemy import Engine

from bandit.core.evidence import Terms
from bandit.core.limits import Limits
from bandit.core.model import ArmMode, Strategy
from bandit.core.reading import ChecklistRule, Rules
from bandit.core.rederivation import Comparison
from bandit.service import experiments, scaling
from bandit.service.rederiving import rederive
from bandit.storage import evidence
from bandit.storage.engine import transaction
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.history import END, count_planted, plant
from benchmarks.temporary_ledger import (
    ACTOR,
    EXPERIMENT,
    OPENED,
    ledger,
    open_experiment,
    register,
    server_on_disk,
)
from liveops.embedded_postgres import EmbeddedPostgres

LIVE, WATCHING = (3, 1) if QUICK else (16, 4)
TRADES = 100 if QUICK else 1000
OUTCOMES = 10**6
DAYS = 730
NIGHTS = 3 if QUICK else 15
SECONDS = 0.2
STRATEGIES = (Strategy.RAMP, Strategy.DISCOUNTED_THOMPSON)

_MORE_BY_DAY = """
UPDATE arm_days SET n_trades = n_trades * %(k)s, n_wins = n_wins * %(k)s,
  n_losses = n_losses * %(k)s, pnl = pnl * %(k)s, fees = fees * %(k)s,
  return_gain = return_gain * %(k)s, return_loss = return_loss * %(k)s
"""
_MORE_IN_ALL = """
UPDATE arm_statistics SET n_outcomes = n_outcomes * %(k)s, n_trades = n_trades * %(k)s,
  n_wins = n_wins * %(k)s, n_losses = n_losses * %(k)s, gross_profit = gross_profit * %(k)s,
  gross_loss = gross_loss * %(k)s, fees = fees * %(k)s, return_gain = return_gain * %(k)s,
  return_loss = return_loss * %(k)s, return_squares = return_squares * %(k)s
"""


def planted(server: EmbeddedPostgres, strategy: Strategy, stack: ExitStack) -> Engine:
    """A ledger whose arms look back on two years."""
    start = perf_counter()
    engine = stack.enter_context(ledger(server, f"arms_{strategy}"))
    record = open_experiment(
        engine,
        challenger_ppm=30_000,
        challengers=[f"live-{i}" for i in range(LIVE)],
        strategy=strategy,
        limits=Limits(start_ppm=30_000),
        rules=Rules(checklist=ChecklistRule().silenced),
    )
    for i in range(WATCHING):
        policy = register(engine, f"watching-{i}")
        experiments.add_arm(
            engine, name=EXPERIMENT, policy=policy, mode=ArmMode.SHADOW, now=OPENED, actor=ACTOR
        )
    with transaction(engine) as connection:
        terms = Terms(unit=0.005, baseline=0.05, profit_factor=1.2)
        evidence.fix_terms(connection, record.id, terms, fixed_at=OPENED)
    every = timedelta(days=DAYS) / TRADES
    database = f"arms_{strategy}"
    with psycopg.connect(server.conninfo(database), autocommit=True) as connection_:
        for arm in record.arms:
            plant(connection_, arm, trades=TRADES, every=every)
        count_planted(engine)
        for multiplied in (_MORE_BY_DAY, _MORE_IN_ALL):
            connection_.execute(multiplied, {"k": OUTCOMES // TRADES})
        connection_.execute("VACUUM (ANALYZE)")
    progress(f"planted {LIVE + WATCHING + 1} arms in {perf_counter() - start:.0f} s")
    return engine


def nights(engine: Engine) -> list[float]:
    """Decide nights, and return what each took, in seconds."""
    seconds = []
    for day in range(1, NIGHTS + 1):
        start = perf_counter()
        scaling.scale(engine, EXPERIMENT, now=END + timedelta(days=day), actor=ACTOR)
        seconds.append(perf_counter() - start)
    return seconds[1:]  # the first one prepares statements


def main() -> int:
    """Print all claims; 1 where a night is not replayed as it was."""
    wrong = 0
    with ExitStack() as stack:
        server = stack.enter_context(server_on_disk(durable=True))
        for strategy in STRATEGIES:
            engine = planted(server, strategy, stack)
            took = median(nights(engine))
            claim(
                f"evidence.many_arms.{strategy}",
                ours=f"{1000 * took:.0f}ms",
                yardstick=f"{1000 * SECONDS:.0f}ms",
                ratio=took / SECONDS,
                side=Target.AT_MOST,
                target=1.0,
            )
            found = rederive(engine, EXPERIMENT)
            same = sum(night.comparison is Comparison.SAME for night in found)
            wrong += len(found) - same
            claim(
                f"evidence.many_arms.replayed.{strategy}",
                ours=str(same),
                yardstick=str(len(found)),
                ratio=same / len(found),
                side=Target.AT_LEAST,
                target=1.0,
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
