"""The frozen distribution of one series of numbers, and two tests of a window against it.

What is kept is bounded, however many rows it was made from: the edges of at most ten bins, and the
empirical distribution function, exact at no more than `GRID_MAX` of its points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc
from scipy.stats import ks_2samp, kstwo

from bandit.core.errors import InvalidInput
from learners.drift.autocorrelation import autocorrelation_time

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

BINS: Final = 10
GRID_MAX: Final = 2_048
"""Points of the distribution function that are kept. Between two of them lie 0.05 % of the rows."""

_HALF: Final = 0.5  # a count added to each bin of a window, so that an empty one has a logarithm
_EXACT_MAX: Final = 10**6  # pairs of rows up to which the exact distribution of KS is cheap
_STEPS_MIN: Final = 2.0


class Comparison(NamedTuple):
    """A distance, the probability of one so large or larger without drift, its test statistic."""

    value: float
    p_value: float
    statistic: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """The finite values of a series: their bins, and their distribution function at a grid.

    Bin i holds `counts[i]` values above `edges[i - 1]` up to `edges[i]`; the outer two are open.
    `cumulative[i]` values are at most `grid[i]`; the last one is the largest. `missing` values were
    not finite. `time` is the autocorrelation time of the values in their order, or of how far out
    they lie. `whole` says that the grid holds every value there was.
    """

    edges: Floats
    counts: Whole
    grid: Floats
    cumulative: Whole
    minimum: float
    missing: int
    time: float
    whole: bool

    def __post_init__(self) -> None:
        """Refuse what no series makes."""
        _require_rising(self.edges, "edges")
        _require_rising(self.grid, "grid")
        _require_rising(self.cumulative, "cumulative")
        n = int(self.cumulative[-1]) if len(self.cumulative) else 0
        rules = {
            "edges": len(self.edges) < BINS,
            "grid": len(self.grid) == len(self.cumulative) <= min(GRID_MAX, n),
            "counts": len(self.counts) == (len(self.edges) + 1 if n else 0)
            and int(self.counts.sum()) == n
            and bool((self.counts > 0).all()),
            "cumulative": n == 0 or int(self.cumulative[0]) > 0,
            "minimum": math.isfinite(self.minimum) and (n == 0 or self.minimum <= self.grid[0]),
            "missing": self.missing >= 0,
            "time": 1.0 <= self.time < math.inf,
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidInput(field=name, rule="must describe a series", found="another")

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Freeze the values of a series in time order; what is not finite counts as missing.

        >>> found = Distribution.of(np.array([3.0, 1.0, 2.0, np.nan]))
        >>> found.n, found.missing, found.edges.tolist(), found.counts.tolist()
        (3, 1, [1.0, 2.0], [1, 1, 1])
        """
        known = values[np.isfinite(values)].astype(np.float64)
        time = _time(known)
        known.sort()
        edges = _edges(known)
        counts = np.diff(
            np.concatenate([[0], np.searchsorted(known, edges, "right"), [len(known)]])
        )
        grid = np.unique(known)
        whole = len(grid) <= GRID_MAX
        if not whole:
            grid = np.unique(known[-(-len(known) * np.arange(1, GRID_MAX + 1) // GRID_MAX) - 1])
        return cls(
            edges=edges,
            counts=counts.astype(np.int64) if len(known) else np.empty(0, np.int64),
            grid=grid,
            cumulative=np.searchsorted(known, grid, "right").astype(np.int64),
            minimum=float(known[0]) if len(known) else 0.0,
            missing=len(values) - len(known),
            time=time,
            whole=whole,
        )

    @property
    def n(self) -> int:
        """How many finite values there were."""
        return int(self.cumulative[-1]) if len(self.cumulative) else 0

    @property
    def n_effective(self) -> float:
        """How many independent values these are worth."""
        return self.n / self.time

    @property
    def maximum(self) -> float:
        """The largest value; 0 without any."""
        return float(self.grid[-1]) if self.n else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to compare: one value, or none."""
        return len(self.edges) == 0

    def quantile(self, probability: float) -> float:
        """Return the smallest value kept that so large a part of the values does not exceed.

        >>> Distribution.of(np.arange(100.0)).quantile(0.25)
        24.0
        """
        if self.n == 0:
            return 0.0
        place = int(np.searchsorted(self.cumulative, probability * self.n, "left"))
        return float(self.grid[min(place, len(self.grid) - 1)])

    def psi(self, ordered: Floats) -> Comparison:
        """Return the population stability index of a window over the frozen bins, and its p-value.

        `ordered` are the window's finite values, ascending; it must have some, and the reference
        more than one. PSI = Σ (a - q) ln(a / q), where a is the part of the window in a bin, with
        half a row added to each, and q that of the reference. The p-value is of χ² = Σ (a - q)² / q
        · nm / (n + m) with B - 1 degrees of freedom, to which PSI · nm / (n + m) comes down for
        many rows, and which keeps its level from 50 rows on (benchmarks/drift/false_alarms.py); n
        and m are effective rows, a first-order correction as of Rao and Scott (1981).

        >>> reference = Distribution.of(np.arange(1000.0))
        >>> same = reference.psi(np.arange(0.0, 1000.0, 10.0))
        >>> round(same.value, 6), round(same.p_value, 6)
        (0.0, 1.0)
        """
        n = len(ordered)
        places = np.searchsorted(ordered, self.edges, "right")
        counts = np.diff(np.concatenate([[0], places, [n]]))
        expected = self.counts / self.n
        bins = len(self.counts)
        smoothed = (counts + _HALF) / (n + _HALF * bins)
        value = float(((smoothed - expected) * np.log(smoothed / expected)).sum())
        away = float(((counts / n - expected) ** 2 / expected).sum())
        statistic = away * self._together(n)
        return Comparison(max(value, 0.0), float(chdtrc(bins - 1, statistic)), statistic)

    def ks(self, ordered: Floats) -> Comparison:
        """Return the two-sample Kolmogorov-Smirnov distance of a window, and its p-value.

        The distance is the largest one at the grid: the exact one where the grid holds every value,
        else at most 1 / `GRID_MAX` too small. The p-value is that of `scipy.stats.kstwo` at
        nm / (n + m) effective rows, as `scipy.stats.ks_2samp` has it for large samples, and its
        exact one for small samples of rows that know nothing of each other.

        >>> reference = Distribution.of(np.arange(1000.0))
        >>> reference.ks(np.arange(500.0)).value
        0.5
        """
        n, m = len(ordered), self.n
        share = self.cumulative / m
        value = float(np.abs(np.searchsorted(ordered, self.grid, "right") / n - share).max())
        if self.whole:
            # Just below a kept value the reference stands where it stood after the one before.
            below = np.concatenate([[0.0], share[:-1]])
            left = np.abs(np.searchsorted(ordered, self.grid, "left") / n - below)
            value = max(value, float(left.max()))
        # At the smallest steps scipy's exact sum may pass 1 by rounding, and warns: it is 1 there.
        if self._is_small(n) and value * min(n, m) > _STEPS_MIN:
            kept = np.repeat(self.grid, np.diff(self.cumulative, prepend=0))
            p_value = float(ks_2samp(ordered, kept, method="exact").pvalue)
        else:
            p_value = float(kstwo.sf(value, max(1, round(self._together(n)))))
        return Comparison(value, p_value, value)

    def _is_small(self, n: int) -> bool:
        return self.whole and self.time == 1.0 and n * self.n <= _EXACT_MAX

    def _together(self, n: int) -> float:
        """Return the effective rows of which the difference to `n` rows has the variance of one."""
        return n * self.n / (n + self.n) / self.time


def ordered(values: Floats) -> Floats:
    """Return the finite values of a window, ascending.

    >>> ordered(np.array([2.0, np.inf, 1.0])).tolist()
    [1.0, 2.0]
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    known.sort()
    return known


def _edges(known: Floats) -> Floats:
    """Return the deciles that tell values apart, so that no bin of the reference is empty."""
    if len(known) == 0 or known[0] == known[-1]:
        return np.empty(0)
    places = -(-len(known) * np.arange(1, BINS) // BINS) - 1
    edges = np.unique(known[places])
    edges = edges[edges < known[-1]]
    if len(edges) == 0:
        edges = known[np.searchsorted(known, known[-1], "left") - 1 :][:1]
    return edges.copy()


def _time(known: Floats) -> float:
    """Return the time of values in their order, or of how far out they lie: what is longer.

    Returns know little of the one before, but a wild day follows a wild day, and the outer bins
    fill together. What is extreme is brought in, so that one value hides no time.
    """
    if len(known) == 0:
        return 1.0
    low, middle, high = np.quantile(known, (0.01, 0.5, 0.99), method="inverted_cdf")
    inner = np.clip(known, low, high) / 2.0
    return max(autocorrelation_time(inner), autocorrelation_time(np.abs(inner - middle / 2.0)))


def _require_rising(values: NDArray[Any], name: str) -> None:
    if values.ndim != 1 or not np.isfinite(values).all() or not (values[1:] > values[:-1]).all():
        raise InvalidInput(field=name, rule="must rise and be finite", found=values.shape)
