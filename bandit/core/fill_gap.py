"""The fill gap: whether what an arm earns on paper is what it earns live (SPEC B6).

Measured on the arm's own routed trades that also have a result on paper. Only their difference
counts, so that neither kind of number ever enters the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from bandit.core.verdicts import Reason

STEP: Final = 10**12
"""Differences are counted in steps of 1 / STEP, in which returns are exact, and their squares."""

_EXACT_DIGITS = 64
_TRADES_TUNED = 100
"""The interval is narrowest about here; at any other number it holds as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FillGap:
    """All that is remembered of an arm's trades with both results: live - paper, as returns.

    Sums of a set: any order gives the same, parts add up, and a corrected trade is taken back.

    >>> gap = FillGap.of([(Decimal("0.0010"), Decimal("0.0013"))])
    >>> gap.n, gap.mean, gap - gap == FillGap()
    (1, -0.0003, True)
    """

    n: int = 0
    total: int = 0
    squares: int = 0

    @classmethod
    def of(cls, results: Iterable[tuple[Decimal, Decimal]]) -> FillGap:
        """Count trades, each with its live and its paper return, to twelve decimals."""
        with localcontext(prec=_EXACT_DIGITS):
            steps = [int((live - paper) * STEP) for live, paper in results]
        return cls(n=len(steps), total=sum(steps), squares=sum(step * step for step in steps))

    def __add__(self, other: FillGap) -> FillGap:
        """Count the trades of both, which must have none in common."""
        return FillGap(
            n=self.n + other.n,
            total=self.total + other.total,
            squares=self.squares + other.squares,
        )

    def __sub__(self, other: FillGap) -> FillGap:
        """Take back trades that were counted."""
        return FillGap(
            n=self.n - other.n,
            total=self.total - other.total,
            squares=self.squares - other.squares,
        )

    @property
    def mean(self) -> float | None:
        """The mean of live - paper: below 0 where paper flatters; None without a trade."""
        return None if self.n == 0 else self.total / self.n / STEP

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Return the ends of an interval that holds the mean whenever it is looked at.

        It misses with a probability of `alpha`, over all looks together: the asymptotic confidence
        sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021 (arXiv 2103.06476, theorem
        2.2). None with fewer than two trades. Trades are taken as independent: gaps that come in
        runs make the truth wider.

        >>> gap = FillGap.of([(Decimal(i % 2), Decimal(0)) for i in range(100)])
        >>> [round(end, 3) for end in gap.interval(0.05)]
        [0.347, 0.653]
        """
        if self.n < 2 or self.mean is None:
            return None
        n = self.n
        # Whole numbers, so that the difference of large sums loses nothing.
        spread = math.sqrt((n * self.squares - self.total * self.total) / (n * (n - 1))) / STEP
        half = spread * _width(n, alpha)
        return self.mean - half, self.mean + half


@dataclass(frozen=True, slots=True, kw_only=True)
class FillGapRule:
    """How far results on paper may flatter before they are not believed.

    `flattery_max` is the mean of paper - live that is put up with, as a return: 0.0002 are two
    basis points of the notional. Fewer than `trades` say nothing. `alpha` is that of the interval.

    >>> FillGapRule().flattery_max
    0.0002
    """

    flattery_max: float = 0.0002
    trades: int = 50
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Refuse rules that everybody satisfies."""
        if not 0.0 <= self.flattery_max <= 0.01:
            found = self.flattery_max
            raise InvalidInput(field="flattery_max", rule="must lie in 0..0.01", found=found)
        if not 2 <= self.trades <= 10**6:
            raise InvalidInput(field="trades", rule="must lie in 2..1000000", found=self.trades)
        if not 0.0 < self.alpha <= 0.2:
            rule = "must be above 0 and at most 0.2"
            raise InvalidInput(field="alpha", rule=rule, found=self.alpha)


def paper_agrees(gap: FillGap, rule: FillGapRule) -> Reason:
    """Say whether paper agrees with live: PASS, FAIL, or INCONCLUSIVE while that is not known.

    PASS where the interval leaves no room for a flattery beyond the limit, FAIL where it leaves
    room for nothing else. Paper that is worse than live flatters nobody. `value` is the mean of
    paper - live.

    >>> exact = FillGap.of([(Decimal("0.001"), Decimal("0.001"))] * 50)
    >>> paper_agrees(exact, FillGapRule()).verdict
    <Verdict.PASS: 'PASS'>
    >>> kind = FillGap.of([(Decimal("0.001"), Decimal("0.002"))] * 50)
    >>> paper_agrees(kind, FillGapRule()).verdict
    <Verdict.FAIL: 'FAIL'>
    """
    limit = rule.flattery_max
    flattery = None if gap.mean is None else -gap.mean
    found = gap.interval(rule.alpha)
    note = f"{gap.n} trades, {rule.trades} needed"
    verdict = Verdict.INCONCLUSIVE
    if found is not None and gap.n >= rule.trades:
        low, high = -found[1], -found[0]
        note = f"{gap.n} trades, {1 - rule.alpha:.0%} interval {low:.6f} to {high:.6f}"
        if high <= limit:
            verdict = Verdict.PASS
        elif low > limit:
            verdict = Verdict.FAIL
    return Reason(
        check="paper flatters live", value=flattery, limit=limit, verdict=verdict, note=note
    )


def _width(n: int, alpha: float) -> float:
    """Return half the width of the interval in standard deviations."""
    tuned = -2.0 * math.log(alpha)
    rho_squared = (tuned + math.log(tuned + 1.0)) / _TRADES_TUNED
    grown = n * rho_squared + 1.0
    return math.sqrt(2.0 * grown / (n * n * rho_squared) * math.log(math.sqrt(grown) / alpha))
