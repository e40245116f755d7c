"""An arm of a made-up experiment: what it has earned so far, in the forms that nights read."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal

from bandit.core.allocators import registry
from bandit.core.allocators.posterior import Moments, ResultKind
from bandit.core.allocators.strategy import DayResults
from bandit.core.evidence import Earned
from bandit.core.fill_gap import FillGap, paper_agrees
from bandit.core.ladder import ArmEvidence, Cohort, Family, Standing, matured
from bandit.core.model import ArmRole, ArmStatus, Ppm, Rung, Strategy
from bandit.core.paper_days import PaperDay, PaperSums, newest_factor
from bandit.core.performance import ClosedTrade
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import Throttled, Windows
from bandit.core.trial_plan import SCALE, TrialPlan, closed_at, decided_at, unit_of


class TrialArm:
    """What an arm has earned so far.

    `cohorts` are its routed decisions beside the champion's, `pairs` its results on paper beside
    the champion's, both by day; `throttled_at` says since when the checklist keeps it from
    deciding, `held` what it held before, and `resumed_at` when it last came back.
    """

    def __init__(self, plan: TrialPlan, role: ArmRole) -> None:
        """Begin with nothing."""
        self.plan, self.role = plan, role
        self.status, self.rung = ArmStatus.ACTIVE, Rung.UNPROVEN
        self.throttled_at: datetime | None = None
        self.resumed_at: datetime | None = None
        self.held = Ppm(0)
        self.newest: deque[ClosedTrade] = deque(maxlen=plan.rules.checklist.long_window)
        self.closed: list[datetime] = []
        # Gains, losses and losers of all trades up to each, and before the first.
        self.sums: list[tuple[int, int, int]] = [(0, 0, 0)]
        self.squares = 0
        self.days: dict[date, tuple[int, int]] = {}
        self.cohorts: list[Cohort] = []
        self.pairs: list[Cohort] = []
        self.gap = FillGap()
        self.paper: list[PaperDay] = []
        self.paper_totals: dict[date, tuple[int, int]] = {}

    @property
    def n(self) -> int:
        """How many trades have closed."""
        return len(self.closed)

    @property
    def earned(self) -> Earned:
        """What they earned."""
        gain, loss, _ = self.sums[-1]
        return Earned(n=self.n, gain=gain / SCALE, loss=loss / SCALE)

    def add(self, day: int, places: Sequence[int], results: Sequence[int]) -> None:
        """Learn what trades of a day earned."""
        for place, result in zip(places, results, strict=True):
            at = closed_at(self.plan, day, place)
            self.closed.append(at)
            self.squares += result * result
            n, total_ = self.days.get(at.date(), (0, 0))
            self.days[at.date()] = (n + 1, total_ + result)
            gain, loss, losers = self.sums[-1]
            self.sums.append((gain + max(result, 0), loss + max(-result, 0), losers + (result < 0)))
            trade = ClosedTrade(closed_at=at, unit=unit_of(day, place), result=result / SCALE)
            self.newest.append(trade)

    def add_paper(self, day: int, results: Sequence[int], *, live: int) -> None:
        """Learn what a day's opportunities would have earned; `live` of them it took itself.

        Fills on paper are those of real trades.
        """
        self.gap += FillGap(n=live)
        date, sums = decided_at(day, 0).date(), PaperSums.of(Decimal(r) / SCALE for r in results)
        self.paper.append(PaperDay(day=date, sums=sums))
        self.paper_totals[date] = (len(results), sum(results))

    def factor_since(self, since: datetime | None) -> ProfitFactor:
        """Return the profit factor of the trades that closed since then; of none without a time."""
        first = self.n if since is None else bisect_left(self.closed, since)
        before, now = self.sums[first], self.sums[-1]
        return ProfitFactor.from_sums(
            gross_profit=now[0] - before[0],
            gross_loss=now[1] - before[1],
            n=self.n - first,
            n_losses=now[2] - before[2],
            scale=SCALE,
        )

    def moments(self, champion: Earned, *, now: datetime) -> Moments | None:
        """Return what the strategy counts of the results, in units of the champion's."""
        if self.plan.strategy is Strategy.RAMP or not champion.n:
            return None
        unit = (champion.gain + champion.loss) / champion.n
        kind, counted, squares = ResultKind.LIVE, self.days, self.squares / SCALE**2
        on_paper = sum(day.sums.n_trades for day in self.paper)
        if self.plan.rules.weighs_paper(self.gap, on_paper=on_paper, live=self.n):
            kind, counted = ResultKind.PAPER, self.paper_totals
            squares = float(sum(day.sums.return_squares for day in self.paper))
        n = sum(count for count, _ in counted.values())
        days = [
            DayResults(days_ago=(now.date() - at).days, n=count, total=total_ / SCALE / unit)
            for at, (count, total_) in counted.items()
        ]
        rule = registry.strategy(self.plan.strategy.value, self.plan.rules.allocator)
        weighed = rule.weigh(days, second_moment=squares / unit**2 / n if n else 0.0)
        return replace(weighed, kind=kind)

    def windows(self) -> Windows:
        """Return the checklist's numbers of its newest trades."""
        return self._windows(self.newest)

    def resumed(self) -> tuple[ProfitFactor, float] | None:
        """Return the checklist's numbers of the trades since it came back, where it did."""
        if self.resumed_at is None:
            return None
        fresh = [trade for trade in self.newest if trade.closed_at > self.resumed_at]
        return self._windows(fresh).judged

    def _windows(self, newest: Sequence[ClosedTrade]) -> Windows:
        rule, fraction = self.plan.rules.checklist, self.plan.equity_fraction
        return Windows.of(newest, rule=rule, nominal_fraction=fraction)

    def throttled(self) -> Throttled | None:
        """Return what its return is decided by; None of an arm that is not throttled."""
        if self.throttled_at is None:
            return None
        paper = newest_factor(
            self.paper,
            window=self.plan.rules.checklist.long_window,
            reaching=self.throttled_at.date(),
        )
        return Throttled(since=self.throttled_at, held=self.held, paper=paper)

    def standing(self, family: Family, *, now: datetime) -> Standing:
        """Return where it stands beside the champion."""
        rules = self.plan.rules
        known = ArmEvidence(
            trades=self.n,
            routed=matured(self.cohorts, now=now, rule=rules.ladder),
            paired=matured(self.pairs, now=now, rule=rules.ladder) if self.pairs else None,
            fill_gap=paper_agrees(self.gap, rules.fill_gap).verdict,
        )
        return Standing.of(known, family=family, rule=rules.ladder)
