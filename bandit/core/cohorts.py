"""Decisions of two arms by day, and what a rung reads of many days."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

import numpy as np

from bandit.core.evidence import BETS, STEP, Floats, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The decisions of one UTC day between two arms, with the outcomes known of them."""

    day: date
    tally: Tally


@dataclass(slots=True, kw_only=True)
class CohortSums:
    """Cohorts of two arms as a rung reads them: all together, and how they came to that.

    `days` are those on which the challenger decided. `n` and `scores` are the decisions and the
    steps of their scores on the mean up to each day that had any, and before the first;
    `bets_for` and `bets_against` what each such day added to the wealth of the bets on the mean,
    for the arm and against it, day after day; the first may be left out.

    >>> day = Cohort(day=date(2026, 3, 1), tally=Tally(n_challenger=2, scores=(7, 0)))
    >>> sums = CohortSums.of([day, day])
    >>> sums.total.n, sums.days, sums.n, sums.scores
    (4, 2, [0, 2, 4], [0, 7, 14])
    """

    total: Tally = field(default_factory=Tally)
    days: int = 0
    n: list[int] = field(default_factory=lambda: [0])
    scores: list[int] = field(default_factory=lambda: [0])
    bets_for: array[float] = field(default_factory=lambda: array("d"))
    bets_against: array[float] = field(default_factory=lambda: array("d"))

    @classmethod
    def of(cls, cohorts: Iterable[Cohort]) -> CohortSums:
        """Add cohorts up, which must come in the order of their days."""
        sums = cls()
        for cohort in cohorts:
            sums.add(cohort)
        return sums

    def add(self, cohort: Cohort) -> None:
        """Count the cohort of a day after all others."""
        tally = cohort.tally
        self.total += tally
        if tally.n_challenger:
            self.days += 1
        if tally.n:
            self.n.append(self.n[-1] + tally.n)
            self.scores.append(self.scores[-1] + tally.scores[0])
            self.bets_for.extend(tally.wealth[: len(BETS)])
            self.bets_against.extend(tally.wealth[len(BETS) : 2 * len(BETS)])

    @property
    def bets_by_day(self) -> tuple[Floats, Floats]:
        """Steps of log-wealth of every bet on the mean, for the arm and against: (days, bets)."""
        up, down = (np.array(bets) for bets in (self.bets_for, self.bets_against))
        return up.reshape(-1, len(BETS)), down.reshape(-1, len(BETS))


def worst_mean_score(sums: CohortSums, blocks: int) -> float | None:
    """Return the mean score of the worst of `blocks` runs of days with as many decisions each.

    None while there are fewer days than blocks.
    """
    days = range(len(sums.n) - 1)
    if len(days) < blocks:
        return None

    def block_of(day: int) -> int:
        # By the middle of the day: one with many decisions falls into the block it mostly fills.
        middle = sums.n[day + 1] - (sums.n[day + 1] - sums.n[day]) / 2
        return min(int(middle * blocks / sums.n[-1]), blocks - 1)

    ends = [0, *(bisect_right(days, block, key=block_of) for block in range(blocks))]
    runs = list(pairwise(ends))
    if any(first == end for first, end in runs):
        return None
    return min(
        (sums.scores[end] - sums.scores[first]) / STEP / (sums.n[end] - sums.n[first])
        for first, end in runs
    )
