"""An arm of a made-up experiment: what it has earned so far, in the forms that nights read."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal

import numpy as np

from bandit.core.allocators import registry
from bandit.core.allocators.posterior import Moments, ResultKind
from bandit.core.allocators.strategy import DayResults
from bandit.core.cohorts import Cohort, CohortSums
from bandit.core.evidence import Earned
from bandit.core.fill_gap import FillGap, paper_agrees
from bandit.core.ladder import EvidenceSums, Family, LadderRule, Standing, newest_matured
from bandit.core.model import ArmRole, ArmStatus, Ppm, Rung, Strategy
from bandit.core.paper_days import PaperDay, PaperSums, newest_factor
from bandit.core.performance import ClosedTrade
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import Throttled, Windows
from bandit.core.trial_plan import SCALE, TrialPlan, closed_at, decided_at, unit_of


class TrialArm:
    """What an arm has earned so far.

    `routed` are its decisions beside the champion's, `paired` its results on paper beside the
    champion's, `live` and `told` its results of either kind by day. `throttled_at` says since when
    the checklist keeps it from deciding, `held` what it held before, and `resumed_at` when it last
    came back.
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
        self.routed, self.paired = Cohorts(), Cohorts()
        self.gap = FillGap()
        self.paper: list[PaperDay] = []
        self.live, self.told = _ByDay(), _ByDay()

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
            self.live.add(at.date(), [result])
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
        self.told.add(date, results)

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
        kind, counted = ResultKind.LIVE, self.live
        if self.plan.rules.weighs_paper(self.gap, on_paper=self.told.n, live=self.n):
            kind, counted = ResultKind.PAPER, self.told
        rule = registry.strategy(self.plan.strategy.value, self.plan.rules.allocator)
        second = counted.squares / SCALE**2 / unit**2 / counted.n if counted.n else 0.0
        weighed = rule.weigh(counted.results(now.date(), unit=unit), second_moment=second)
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
        paired = None
        if self.paired.known:
            paired = self.paired.matured(now=now, rule=rules.ladder).total
        known = EvidenceSums(
            trades=self.n,
            routed=self.routed.matured(now=now, rule=rules.ladder),
            paired=paired,
            fill_gap=paper_agrees(self.gap, rules.fill_gap).verdict,
        )
        return Standing.of(known, family=family, rule=rules.ladder)


class Cohorts:
    """Cohorts of two arms, in the order of their days: those that wait, and the sums of others."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.waiting: deque[Cohort] = deque()
        self.sums = CohortSums()
        self.known = False

    def add(self, cohort: Cohort) -> None:
        """Learn of a day after all others."""
        self.waiting.append(cohort)
        self.known = True

    def matured(self, *, now: datetime, rule: LadderRule) -> CohortSums:
        """Return the sums of those whose attribution window has closed; `now` never runs back."""
        ready = newest_matured(now=now, rule=rule)
        while self.waiting and self.waiting[0].day <= ready:
            self.sums.add(self.waiting.popleft())
        return self.sums


class _ByDay:
    """Results of one kind, in steps of a return: how many and their sums by day, all squares."""

    def __init__(self) -> None:
        self.n = self.squares = 0
        self.counts: dict[int, int] = {}
        self.totals: dict[int, int] = {}

    def add(self, day: date, results: Sequence[int]) -> None:
        at = day.toordinal()
        self.n += len(results)
        self.squares += sum(result * result for result in results)
        self.counts[at] = self.counts.get(at, 0) + len(results)
        self.totals[at] = self.totals.get(at, 0) + sum(results)

    def results(self, today: date, *, unit: float) -> DayResults:
        days, n, total = (
            np.fromiter(column, np.int64, len(self.counts))
            for column in (self.counts, self.counts.values(), self.totals.values())
        )
        return DayResults(days_ago=today.toordinal() - days, n=n, total=total / SCALE / unit)
