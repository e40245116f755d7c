"""Pairs, gaps and days follow from what was told, whatever came in which order and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from ledger import CHALLENGER, closed, join, open_btc, record_all, register
from shadow_history import (
    FIXED,
    LATER,
    NEXT_DAY,
    TERMS,
    expected_pairs,
    fix,
    gap,
    on_paper,
    pairs,
    paper_days,
    tell,
)
from sqlalchemy import Engine

from bandit.core.evidence import Tally, Terms, total
from bandit.core.fill_gap import FillGap
from bandit.core.model import ArmMode, Assignment, UnitId
from bandit.core.outcomes import Outcome, declined
from bandit.core.paper_days import PaperSums
from bandit.core.shadow import ShadowOutcome
from bandit.service import rebuilding, revising
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity

WATCHER = "watcher"
POLICIES = ("prod", CHALLENGER, WATCHER)
OTHER = Terms(unit=0.001, baseline=0.1, profit_factor=1.1)
UNITS = 120
END = NEXT_DAY + timedelta(days=1)


@dataclass(frozen=True)
class Told:
    """All that is ever told of the decisions: first bodies, and corrections in their order."""

    made: Sequence[Assignment]
    live: Sequence[Outcome]
    revised: Sequence[Outcome]
    paper: Sequence[ShadowOutcome]


def history(engine: Engine, rng: np.random.Generator) -> Told:
    """Two days of decisions under two terms; of most there is a live result, and some on paper."""
    open_btc(engine)
    join(engine, register(engine, WATCHER, "bbbbbbbb"), ArmMode.SHADOW)
    fix(engine)
    fix(engine, OTHER, now=FIXED + timedelta(hours=3))
    made: list[Assignment] = []
    for part, moment in enumerate((LATER, LATER + timedelta(hours=3), NEXT_DAY)):
        offered = [
            Opportunity(unit_id=UnitId(f"{part}-{i}"), instrument=("BTCUSD", "ETHUSD")[i % 2])
            for i in range(UNITS // 3)
        ]
        made += Router(engine).assign("btc", offered, now=moment)
    live = [outcome(rng, a) for a in made if rng.random() < 0.8]
    settled = {o.assignment_id: o for o in live}
    revised = [outcome(rng, a) for a in made if a.id in settled and rng.random() < 0.2]
    paper = [
        on_paper(a, policy, None if rng.random() < 0.2 else drawn(rng))
        for a in made
        for policy in POLICIES
        if rng.random() < 0.7
    ]
    return Told(made, live, revised, paper)


def drawn(rng: np.random.Generator) -> str:
    return f"{Decimal(int(rng.integers(-(10**10), 10**10))).scaleb(-12):f}"


def outcome(rng: np.random.Generator, assignment: Assignment) -> Outcome:
    if rng.random() < 0.2:
        return declined(assignment.id)
    earned = drawn(rng)
    pnl = (Decimal(earned) * 1000).quantize(Decimal("1e-8"))
    return closed(assignment, earned, pnl=f"{pnl:f}")


def deliver(engine: Engine, told: Told, rng: np.random.Generator) -> None:
    """Tell everything in an order of its own, in batches, some of it again and again."""
    todo: list[tuple[str, object]] = [("live", o) for o in told.live]
    todo += [("paper", s) for s in told.paper]
    todo += [todo[int(i)] for i in rng.integers(len(todo), size=len(todo) // 3)]
    order = [todo[int(i)] for i in rng.permutation(len(todo))]
    waiting = {o.assignment_id: o for o in told.revised}
    known: set[object] = set()
    while order:
        size = int(rng.integers(1, 40))
        some, order = order[:size], order[size:]
        live = [o for kind, o in some if kind == "live"]
        paper = [o for kind, o in some if kind == "paper"]
        for kind in rng.permutation(["live", "paper"]):
            if kind == "live" and live:
                record_all(engine, live, now=END)  # type: ignore[arg-type]
                known |= {o.assignment_id for o in live}  # type: ignore[attr-defined]
            elif kind == "paper" and paper:
                tell(engine, paper, now=END)  # type: ignore[arg-type]
        for key in [k for k in waiting if k in known and (not order or rng.random() < 0.3)]:
            revising.revise(engine, waiting.pop(key), reason="fill", now=END, actor="test")
    for left in waiting.values():
        revising.revise(engine, left, reason="fill", now=END, actor="test")


def expected(told: Told, policy: str) -> tuple[dict[str, Tally], FillGap]:
    """One pass over what stands at the end."""
    live = {o.assignment_id: o for o in (*told.live, *told.revised)}
    paper = {(s.assignment_id, s.policy): s for s in told.paper}
    cohorts: dict[str, list[Tally]] = {}
    gaps: list[tuple[Decimal, Decimal]] = []
    for a in told.made:
        mine, settled = paper.get((a.id, policy)), live.get(a.id)
        if mine is None:
            continue
        if a.policy == policy and settled and not (settled.no_trade and mine.no_trade):
            gaps.append((settled.return_ratio, mine.return_ratio))
        champion = settled if a.policy == "prod" else paper.get((a.id, "prod"))
        if policy == "prod" or champion is None:
            continue
        terms = TERMS if a.decided_at < FIXED + timedelta(hours=3) else OTHER
        one = Terms(
            unit=terms.unit_of(a.instrument),
            baseline=terms.baseline,
            profit_factor=terms.profit_factor,
        )
        both = [(f"{mine.return_ratio:f}", f"{champion.return_ratio:f}")]
        tally = expected_pairs(both, [a.policy == "prod"], terms=one)
        cohorts.setdefault(a.decided_at.date().isoformat(), []).append(tally)
    return {day: total(tallies) for day, tallies in cohorts.items()}, FillGap.of(gaps)


def expected_days(told: Told, policy: str) -> dict[str, PaperSums]:
    """One pass over the trades of an arm on paper, whoever took the decision."""
    day_of = {a.id: a.decided_at.date().isoformat() for a in told.made}
    earned: dict[str, list[Decimal]] = {}
    for result in told.paper:
        if result.policy == policy and not result.no_trade:
            earned.setdefault(day_of[result.assignment_id], []).append(result.return_ratio)
    return {day: PaperSums.of(returns) for day, returns in earned.items()}


@pytest.mark.parametrize("seed", range(4))
def test_order_batches_and_repetition_change_nothing(engine: Engine, seed: int) -> None:
    told = history(engine, np.random.default_rng(20_260_301))
    deliver(engine, told, np.random.default_rng(seed))
    for policy in POLICIES:
        cohorts, fill_gap = expected(told, policy)
        assert pairs(engine, policy) == cohorts, policy
        assert gap(engine, policy) == fill_gap, policy
        assert paper_days(engine, policy) == expected_days(told, policy), policy
        assert len(expected_days(told, policy)) == 2
    found = pairs(engine, WATCHER).values()
    assert sum(t.n_champion for t in found) > 20
    assert sum(t.n_challenger for t in found) > 0
    assert gap(engine, "prod").n > 20
    assert rebuilding.compare(engine, now=END).mismatches == ()
