"""A history of decisions that is old enough to leave, for tests."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
from ledger import CHALLENGER, NOON, open_btc, record_all, set_budget
from shadow_history import on_paper, tell
from sqlalchemy import Engine, text

from bandit.core.evidence import Terms
from bandit.core.model import Assignment, UnitId
from bandit.core.outcomes import Flags, Outcome, declined, trade
from bandit.core.performance import ClosedTrade
from bandit.core.reading import ChecklistRule, Rules
from bandit.core.tally import Fold, Sums
from bandit.service import (
    ageing,
    experiments,
    rebuilding,
    reporting,
    revising,
)
from bandit.service.ageing import Aged
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage import evidence, statistics
from bandit.storage.engine import snapshot, transaction
from snapshots.archive_files import ParquetArchives

KEPT = 20  # two long windows of ten
SPOKEN = timedelta(days=10)
BEFORE = NOON + timedelta(days=60)
NOW = NOON + timedelta(days=100)
UNITS = 400

STATISTICS = "SELECT s.* FROM arm_statistics s ORDER BY s.arm_id"
COHORTS = "SELECT c.* FROM evidence_cohorts c ORDER BY 1, 2, 3"
PAIRS = "SELECT c.* FROM paired_cohorts c ORDER BY 1, 2, 3"
GAPS = "SELECT g.* FROM fill_gaps g ORDER BY 1"
PAPER_DAYS = "SELECT d.* FROM paper_days d ORDER BY 1, 2"
EXPLORED = (
    "SELECT o.*, t.* FROM explored_opened o LEFT JOIN explored_told t USING (arm_id) ORDER BY 1"
)
DAYS = "SELECT d.* FROM arm_days d ORDER BY 1, 2, 3"


def drawn(rng: np.random.Generator, made: Assignment) -> Outcome:
    if rng.random() < 0.1:
        return declined(made.id)
    earned = Decimal(int(rng.integers(-(10**9), 10**9))).scaleb(-12)
    return trade(
        made.id,
        pnl=(earned * 10_000).quantize(Decimal("1e-8")),
        return_ratio=earned,
        opened_at=NOON,
        closed_at=NOON + timedelta(hours=1, minutes=15 * int(rng.integers(UNITS))),
        fees=Decimal(int(rng.integers(0, 10**6))).scaleb(-8) if rng.random() < 0.5 else None,
    )


class History:
    """Decisions of `btc` with what became of them, as told so far."""

    def __init__(self, engine: Engine, files: ParquetArchives) -> None:
        rules = Rules(checklist=ChecklistRule(window=5, long_window=10, pf_throttle=0))
        record = open_btc(engine, rules=rules)
        terms = Terms(unit=0.0005, baseline=0.0, profit_factor=1.2, units={"X1USD": 0.0002})
        with transaction(engine) as connection:
            evidence.fix_terms(connection, record.id, terms, fixed_at=NOON)
        set_budget(engine, "10000000")
        self.engine = engine
        self.rng = np.random.default_rng(20_260_301)
        self.made: dict[UUID, Assignment] = {}
        self.told: dict[UUID, Outcome] = {}
        self.files = files

    def moved_to(self, engine: Engine, files: ParquetArchives) -> History:
        """The same history in a copy of its ledger."""
        moved = copy.copy(self)
        moved.engine, moved.files, moved.rng = engine, files, copy.deepcopy(self.rng)
        moved.made, moved.told = dict(self.made), dict(self.told)
        return moved

    def assign(self, units: Sequence[str], *, now: datetime = NOON) -> list[Assignment]:
        offered = [
            Opportunity(unit_id=UnitId(unit), instrument=f"X{number % 3}USD")
            for number, unit in enumerate(units)
        ]
        made = Router(self.engine).assign("btc", offered, now=now)
        self.made |= {a.id: a for a in made}
        return made

    def tell(self, outcomes: Sequence[Outcome], *, now: datetime) -> None:
        record_all(self.engine, outcomes, now=now)
        self.told |= {o.assignment_id: o for o in outcomes}

    def live(self) -> None:
        """Most decisions are settled, some of them corrected later; a few never are."""
        made = self.assign([f"u-{i:03}" for i in range(UNITS)])
        settled = [drawn(self.rng, a) for a in made[:-10]]
        order = self.rng.permutation(len(settled))
        self.tell([settled[int(i)] for i in order], now=NOON + SPOKEN)
        for i in self.rng.choice(len(settled), size=20, replace=False):
            corrected = drawn(self.rng, made[int(i)])
            revising.revise(self.engine, corrected, reason="drill", now=NOON + SPOKEN, actor="test")
            self.told[corrected.assignment_id] = corrected
        self.tell_on_paper([a for a in made if self.rng.random() < 0.5])

    def tell_on_paper(self, made: Sequence[Assignment]) -> None:
        """Of each of these decisions both arms are told what they would have earned."""
        earned = self.rng.integers(-(10**9), 10**9, size=(len(made), 2))
        paper = [
            on_paper(a, policy, f"{Decimal(int(steps)).scaleb(-12):f}")
            for a, both in zip(made, earned, strict=True)
            for policy, steps in zip(("prod", CHALLENGER), both, strict=True)
        ]
        tell(self.engine, paper, now=NOON + SPOKEN)

    def age(self, engine: Engine | None = None, files: Any = None) -> Aged:
        return ageing.age(
            engine or self.engine, files or self.files, "btc", before=BEFORE, now=NOW, actor="test"
        )

    def keys(self, table: str) -> set[UUID]:
        with self.engine.connect() as connection:
            return set(connection.execute(text(f"SELECT id FROM {table}")).scalars())

    def expected(self, policy: str, *, first: Collection[UUID] = ()) -> tuple[Sums, Fold]:
        """One sorted pass over all that was told of an arm; `first` come before the others."""
        mine = [o for key, o in self.told.items() if self.made[key].policy == policy]
        sums = Sums().plus_all((o, Flags(unclaimed=not o.no_trade)) for o in mine)
        trades = sorted(
            (o.assignment_id not in first, o.closed_at, self.made[o.assignment_id].unit_id, o)
            for o in mine
            if o.closed_at is not None
        )
        fold = Fold()
        for _, closed_at, unit, outcome in trades:
            assert closed_at is not None
            fold = Fold(n=fold.n, equity=fold.equity, streaks=fold.streaks).after(
                ClosedTrade(closed_at=closed_at, unit=unit, result=float(outcome.return_ratio)),
                equity_fraction=0.1,
            )
        return sums, fold

    def stored(self, policy: str) -> tuple[Sums, Fold]:
        record = experiments.load(self.engine, "btc")
        arm = next(a for a in record.arms if a.place.policy == policy)
        with snapshot(self.engine) as connection:
            found = statistics.of_arms(connection, [arm.id])[arm.id]
        return found.sums, found.fold


def read(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def numbers(engine: Engine) -> tuple[object, ...]:
    report = reporting.report(engine, "btc").to_json()
    bets = [read(engine, statement) for statement in (COHORTS, PAIRS, GAPS, PAPER_DAYS, EXPLORED)]
    assert all(bets)
    return read(engine, STATISTICS), read(engine, DAYS), bets, json.dumps(report, default=str)


def mismatches(engine: Engine) -> tuple[object, ...]:
    return rebuilding.compare(engine, now=NOW).mismatches
