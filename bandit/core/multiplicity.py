"""How far the Sharpe ratio of a backtest can be believed after a search (SPEC H6).

Whoever tries many policies and keeps the best one has a high Sharpe ratio by luck alone. The
probabilistic Sharpe ratio asks whether one is above a benchmark, given how long it was measured and
how its returns are shaped; the deflated one takes as benchmark what the best of all trials reaches
by luck. All ratios are per period unless they are called annual; periods are taken as independent.

Sources: Bailey and López de Prado, "The Sharpe Ratio Efficient Frontier" (2012): standard error,
probabilistic ratio, shortest track record; and "The Deflated Sharpe Ratio" (2014): the benchmark.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri

from bandit.core.equity import checked_result
from bandit.core.errors import InvalidInput
from bandit.core.profit_factor import Interval

_PERIODS_MIN: Final = 3
"""With fewer periods neither skew nor kurtosis says anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnMoments:
    """What the Sharpe ratio needs to know of a series of returns; None where it is undefined.

    `variance` is that of a sample (ddof 1); `skew` = m3 / m2^1.5 and `kurtosis` = m4 / m2² are
    those of the series itself (ddof 0), the latter 3 for a normal distribution.
    """

    n: int
    mean: float | None
    variance: float | None
    skew: float | None
    kurtosis: float | None

    @classmethod
    def of(cls, returns: Sequence[float]) -> ReturnMoments:
        """Measure a series; raises `InvalidInput` for a return that is not finite.

        >>> found = ReturnMoments.of([0.0, 0.0, 0.0, 4.0])
        >>> found.mean, found.variance, round(found.skew, 6), round(found.kurtosis, 6)
        (1.0, 4.0, 1.154701, 2.333333)
        """
        values = np.asarray([checked_result(r, field="return") for r in returns], dtype=np.float64)
        n = len(values)
        if n == 0:
            return cls(n=0, mean=None, variance=None, skew=None, kurtosis=None)
        mean = math.fsum(values) / n
        away = values - mean
        scale = float(np.abs(away).max())
        # Equal returns have no spread; the rounded mean would invent one.
        if n == 1 or values.min() == values.max() or scale <= sys.float_info.epsilon * abs(mean):
            none = None if n == 1 else 0.0
            return cls(n=n, mean=mean, variance=none, skew=None, kurtosis=None)
        # In units of the largest, so that no power leaves what a double can hold.
        second, third, fourth = (math.fsum((away / scale) ** k) / n for k in (2, 3, 4))
        variance = scale * scale * second * n / (n - 1)
        if variance < sys.float_info.min:
            return cls(n=n, mean=mean, variance=0.0, skew=None, kurtosis=None)
        skew, kurtosis = third / second**1.5, fourth / second**2
        return cls(n=n, mean=mean, variance=variance, skew=skew, kurtosis=kurtosis)

    @property
    def sharpe(self) -> float | None:
        """Mean over standard deviation, per period and never annualised; None without spread."""
        if self.mean is None or not self.variance:
            return None
        return self.mean / math.sqrt(self.variance)

    @property
    def sharpe_error(self) -> float | None:
        """Standard error of `sharpe`: √((1 - skew·SR + (kurtosis - 1)/4 · SR²) / (n - 1)).

        None below three periods, without spread, and where the shape leaves no error at all.
        """
        variance = self._shape
        return None if variance is None else math.sqrt(variance / (self.n - 1))

    @property
    def _shape(self) -> float | None:
        sharpe = self.sharpe
        if sharpe is None or self.skew is None or self.kurtosis is None or self.n < _PERIODS_MIN:
            return None
        variance = 1.0 - self.skew * sharpe + (self.kurtosis - 1.0) / 4.0 * sharpe * sharpe
        return variance if variance > 0.0 else None


def sharpe_interval(moments: ReturnMoments, *, confidence: float = 0.95) -> Interval | None:
    """Return `sharpe` ± z standard errors; None where there is none.

    >>> found = sharpe_interval(ReturnMoments.of([0.02, -0.01] * 50))
    >>> round(found.low, 4), round(found.high, 4)
    (0.1347, 0.5286)
    """
    sharpe, error = moments.sharpe, moments.sharpe_error
    if sharpe is None or error is None:
        return None
    half = NormalDist().inv_cdf(0.5 + confidence / 2.0) * error
    return Interval(low=sharpe - half, high=sharpe + half, confidence=confidence)


def probabilistic_sharpe(moments: ReturnMoments, *, benchmark: float = 0.0) -> float | None:
    """Return the probability that the true Sharpe ratio exceeds `benchmark`, both per period.

    Φ((SR - benchmark) / standard error); None where there is no standard error.

    >>> round(probabilistic_sharpe(ReturnMoments.of([0.02, -0.01] * 50)), 4)
    0.9995
    >>> probabilistic_sharpe(ReturnMoments.of([0.01] * 50)) is None
    True
    """
    sharpe, error = moments.sharpe, moments.sharpe_error
    if sharpe is None or error is None:
        return None
    return float(ndtr((sharpe - benchmark) / error))


def track_record_min(
    moments: ReturnMoments, *, benchmark: float = 0.0, confidence: float = 0.95
) -> float | None:
    """Return the periods after which such returns would show at `confidence` to beat `benchmark`.

    1 + (1 - skew·SR + (kurtosis - 1)/4 · SR²) · (z / (SR - benchmark))²; None where the Sharpe
    ratio is not above the benchmark: then no length would do.

    >>> round(track_record_min(ReturnMoments.of([0.02, -0.01] * 50)), 1)
    25.6
    """
    sharpe, shape = moments.sharpe, moments._shape
    if sharpe is None or shape is None or sharpe <= benchmark:
        return None
    needed = 1.0 + shape * (NormalDist().inv_cdf(confidence) / (sharpe - benchmark)) ** 2
    return needed if math.isfinite(needed) else None


def expected_max_sharpe(n_trials: int, sharpe_deviation: float) -> float:
    """Return what the best Sharpe ratio of so many trials is in the mean where none has an edge.

    s · ((1 - c) Φ⁻¹(1 - 1/N) + c Φ⁻¹(1 - 1/(N e))) with Euler's constant c = 0.5772… and s, the
    `sharpe_deviation` over the trials. It is 0 for a single trial. Raises `InvalidInput` for less
    than one trial and for a deviation that is negative or not finite.

    >>> round(expected_max_sharpe(50, 1.0), 4)
    2.2763
    """
    if n_trials < 1:
        raise InvalidInput(field="n_trials", rule="must be at least 1", found=n_trials)
    if not 0.0 <= sharpe_deviation < math.inf:
        rule = "must be finite and not negative"
        raise InvalidInput(field="sharpe_deviation", rule=rule, found=sharpe_deviation)
    if n_trials == 1:
        return 0.0
    usual, rare = ndtri(1.0 - 1.0 / n_trials), ndtri(1.0 - 1.0 / (n_trials * math.e))
    return sharpe_deviation * float((1.0 - np.euler_gamma) * usual + np.euler_gamma * rare)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Every trial that was ever made, whatever became of it.

    `n_trials` counts them all, `n_measured` those that have a Sharpe ratio; `annual_deviation` is
    the deviation (ddof 1) of these ratios, made annual so that trials of different periods compare.
    """

    n_trials: int
    n_measured: int
    annual_deviation: float | None

    @classmethod
    def of(cls, annual_sharpes: Iterable[float | None]) -> Search:
        """Count trials, each with its annual Sharpe ratio or None where it has none.

        >>> Search.of([1.0, None, 3.0])
        Search(n_trials=3, n_measured=2, annual_deviation=1.4142135623730951)
        """
        trials = list(annual_sharpes)
        measured = [s for s in trials if s is not None]
        spread = None
        if len(measured) > 1:
            mean = math.fsum(measured) / len(measured)
            squares = math.fsum((s - mean) ** 2 for s in measured)
            spread = math.sqrt(squares / (len(measured) - 1))
        return cls(n_trials=len(trials), n_measured=len(measured), annual_deviation=spread)

    def annual_benchmark(self) -> float | None:
        """Return the annual Sharpe ratio that the best trial reaches by luck.

        None without a trial, and where trials were made whose spread nobody knows.
        """
        if self.n_trials == 0:
            return None
        if self.n_trials > 1 and self.annual_deviation is None:
            return None
        return expected_max_sharpe(self.n_trials, self.annual_deviation or 0.0)


def deflated_sharpe(
    moments: ReturnMoments, search: Search, *, periods_per_year: float
) -> float | None:
    """Return the probability of a Sharpe ratio above 0, the luck of the search taken off.

    The probabilistic Sharpe ratio beside `search.annual_benchmark()`, brought to the period. None
    where either has no value. Trials that resemble each other spread less and count in full, so the
    number errs to the cautious side for them.

    >>> moments = ReturnMoments.of([0.02, -0.01] * 50)
    >>> alone = Search.of([1.0])
    >>> deflated_sharpe(moments, alone, periods_per_year=365) == probabilistic_sharpe(moments)
    True
    >>> many = Search.of([-1.0, 1.0] * 25)
    >>> round(deflated_sharpe(moments, many, periods_per_year=365), 4)
    0.9822
    """
    if not 0.0 < periods_per_year < math.inf:
        rule = "must be positive and finite"
        raise InvalidInput(field="periods_per_year", rule=rule, found=periods_per_year)
    benchmark = search.annual_benchmark()
    if benchmark is None:
        return None
    return probabilistic_sharpe(moments, benchmark=benchmark / math.sqrt(periods_per_year))
