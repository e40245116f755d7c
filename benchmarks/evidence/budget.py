"""Whether an exploration budget holds: random schedules of decisions, outcomes and nights.

The yardstick is a budget that looks at what was lost so far and sets nothing aside, on the same
schedules. Then other schedules are lived in a ledger, by two processes' worth of routers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

import numpy as np
from sqlalchemy import Engine

from bandit.core.exploration import ExplorationBudget, Explored, Reservation
from bandit.core.limits import Limits
from bandit.core.model import ArmRole, Assignment, UnitId
from bandit.core.outcomes import declined, trade
from bandit.service import exploring, rebuilding, recording
from bandit.service.assigning import Router
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.temporary_ledger import (
    ACTOR,
    EXPERIMENT,
    INSTRUMENT,
    OPENED,
    ledger,
    open_experiment,
    server_on_disk,
)

SEED = 612_000
SCHEDULES = 200 if QUICK else 10_000
LIVED = 2 if QUICK else 40
STEPS = 60
BATCHES = 10 if QUICK else 30
ROUTERS = 2
LATER = OPENED + timedelta(days=1)
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A budget and what happens under it: a size, a share of challengers and a way of losing."""

    budget: ExplorationBudget
    largest: int
    share: float
    bad: float
    seed: Sequence[int]

    @classmethod
    def drawn(cls, seed: Sequence[int]) -> Schedule:
        """Draw one."""
        rng = np.random.default_rng(seed)
        at_risk = int(rng.integers(1, 1000)) * CENT
        return cls(
            budget=ExplorationBudget(amount=at_risk * int(rng.integers(1, 60)), at_risk=at_risk),
            largest=int(rng.integers(1, 30)),
            share=float(rng.uniform(0.05, 0.9)),
            bad=float(rng.uniform(0.2, 1.0)),
            seed=seed,
        )

    def earned(self, rng: np.random.Generator, at_risk: Decimal) -> Decimal:
        """Draw what a decision earns: no less than minus what is at risk."""
        if rng.random() < 0.1:
            return Decimal(0)
        part = -rng.random() if rng.random() < self.bad else rng.exponential()
        return max(-at_risk, (Decimal(part) * at_risk).quantize(CENT))


def most_charged(schedule: Schedule, *, careless: bool) -> Decimal:
    """Return the most that was ever spent by the end of a schedule, over the budget's amount."""
    rng = np.random.default_rng([*schedule.seed, 1])
    budget, explored, opened, most = schedule.budget, Explored(), list[Reservation](), Decimal(0)
    for _ in range(STEPS):
        what = rng.random()
        if what < 0.5:
            n = int(rng.integers(1, schedule.largest + 1))
            mine = int(rng.binomial(n, schedule.share))
            known = Explored(spent=explored.spent) if careless else explored
            if budget.admits(n, known):
                opened += [budget.reservation] * mine
                explored = sum([Explored.opened(budget.reservation)] * mine, explored)
        elif what < 0.95 and opened:
            kept = opened.pop(int(rng.integers(len(opened))))
            explored += Explored.told(kept, schedule.earned(rng, kept.at_risk))
        else:
            budget = replace(budget, expected=int(rng.integers(0, 50)) * CENT)
        most = max(most, explored.spent)
    # What is still open ends as badly as it may.
    left = sum((Explored.told(kept, -kept.at_risk) for kept in opened), explored)
    return max(most, left.spent) / schedule.budget.amount


def lived(engine: Engine, schedule: Schedule) -> Decimal:
    """Live a schedule in a ledger; return the most that was ever spent and set aside, likewise."""
    open_experiment(engine, challenger_ppm=250_000, limits=Limits(start_ppm=250_000))
    budget = schedule.budget
    exploring.set_budget(
        engine,
        EXPERIMENT,
        amount=budget.amount,
        at_risk=budget.at_risk,
        reason="benchmark",
        now=OPENED,
        actor=ACTOR,
    )

    def ask(number: int) -> Decimal:
        rng = np.random.default_rng([*schedule.seed, 2, number])
        router, opened, most = Router(engine), list[Assignment](), Decimal(0)
        for batch in range(BATCHES):
            units = [UnitId(f"{number}-{batch}-{i}") for i in range(schedule.largest)]
            asked = [Opportunity(unit_id=unit, instrument=INSTRUMENT) for unit in units]
            made = router.assign(EXPERIMENT, asked, now=OPENED)
            opened += [a for a in made if a.role is ArmRole.CHALLENGER]
            rng.shuffle(opened)
            told, opened = opened[::2], opened[1::2]
            tell(engine, schedule, told, rng)
            explored = exploring.report(engine, EXPERIMENT).explored
            most = max(most, explored.spent + explored.reserved)
        return most

    with ThreadPoolExecutor(ROUTERS) as pool:
        most = max(pool.map(ask, range(ROUTERS)))
    assert rebuilding.compare(engine, now=LATER).mismatches == ()
    return most / budget.amount


def tell(
    engine: Engine, schedule: Schedule, made: Sequence[Assignment], rng: np.random.Generator
) -> None:
    """Tell what decisions have earned."""
    batch = []
    for assignment in made:
        pnl = schedule.earned(rng, schedule.budget.at_risk)
        if not pnl:
            batch.append(declined(assignment.id))
            continue
        batch.append(
            trade(
                assignment.id,
                pnl=pnl,
                return_ratio=pnl / 10_000,
                opened_at=OPENED,
                closed_at=OPENED + timedelta(hours=1),
            )
        )
    if batch:
        answers = recording.record(engine, batch, now=LATER)
        assert all(isinstance(answer, Recorded) for answer in answers), answers


def main() -> int:
    """Print the claims; 1 where a budget was passed."""
    schedules = [Schedule.drawn([SEED, i]) for i in range(SCHEDULES)]
    passed = {
        careless: sum(most_charged(each, careless=careless) > 1 for each in schedules)
        for careless in (False, True)
    }
    claim(
        "evidence.budget.passed",
        ours=f"{passed[False]}/{SCHEDULES}",
        yardstick=f"{passed[True]}/{SCHEDULES}",
        ratio=passed[False] / SCHEDULES,
        side=Target.AT_MOST,
        target=0.0,
    )
    most = []
    with server_on_disk(durable=False) as server:
        for i in range(LIVED):
            with ledger(server, f"budget_{i}") as engine:
                most.append(lived(engine, Schedule.drawn([SEED, SCHEDULES + i])))
    used = sum(each > Decimal("0.8") for each in most)
    progress(f"in the ledger: {used} of {LIVED} budgets were used by more than 80 %")
    over = sum(each > 1 for each in most)
    claim(
        "evidence.budget.passed_in_ledger",
        ours=f"{over}/{LIVED}",
        yardstick=f"0/{LIVED}",
        ratio=over / LIVED,
        side=Target.AT_MOST,
        target=0.0,
    )
    return 1 if passed[False] or over else 0


if __name__ == "__main__":
    sys.exit(main())
