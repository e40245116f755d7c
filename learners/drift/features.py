"""The frozen reference of a policy's features, and what a window of them is held against.

reference = FeatureReference.of(training_rows, names)     # once, stored with the artefact
checks = reference.check(window_rows)                     # every hour
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import betabinom

from bandit.core.drift import DriftCheck, DriftMetric
from bandit.core.errors import InvalidInput
from learners.drift.distribution import Distribution, ordered
from learners.drift.judging import (
    EFFECTIVE_MIN,
    ROWS_MIN,
    Bound,
    DriftLimits,
    discovered,
    judged,
    unknown,
)

Floats = NDArray[np.float64]

FEATURES_MAX: Final = 256
PAIR: Final = "every pair of features"
"""The subject of the correlation check."""

_TAIL: Final = 0.01  # a feature counts for its correlations between these quantiles only
_CERTAIN: Final = 0.999999  # a correlation beyond has no finite Fisher z


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureReference:
    """What training rows looked like: a distribution of each feature, and their correlations.

    `correlation` has the shape (features, features); a feature that is constant has 0 with others.
    """

    names: tuple[str, ...]
    distributions: tuple[Distribution, ...]
    correlation: Floats

    def __post_init__(self) -> None:
        """Refuse names that are none, and a matrix that holds no correlations."""
        checked_names(self.names)
        size = len(self.names)
        if len(self.distributions) != size or self.correlation.shape != (size, size):
            rule = f"must describe {size} features"
            raise InvalidInput(field="reference", rule=rule, found=self.correlation.shape)
        matrix = self.correlation
        if not (np.abs(matrix) <= 1.0).all() or not np.array_equal(matrix, matrix.T):
            rule = "must be symmetric, within -1..1"
            raise InvalidInput(field="correlation", rule=rule, found="another")

    @classmethod
    def of(cls, values: Floats, names: Sequence[str]) -> Self:
        """Freeze training rows (n, features) in time order; what is not finite is missing.

        Rows in another order are taken to know nothing of each other. Raises `InvalidInput` for
        rows of another width, and for names that are empty, repeated or too many.

        >>> rows = np.random.default_rng(1).normal(size=(500, 2))
        >>> FeatureReference.of(rows, ["rsi", "adx"]).distributions[0].n
        500
        """
        checked_names(names)
        rows = _rows(values, len(names))
        distributions = tuple(Distribution.of(rows[:, i]) for i in range(len(names)))
        return cls(
            names=tuple(names),
            distributions=distributions,
            correlation=_correlations(rows, distributions)[0],
        )

    def check(self, values: Floats, limits: DriftLimits | None = None) -> list[DriftCheck]:
        """Hold a window's rows (n, features) against the reference.

        Of each feature: PSI, KS, missing values, values beyond all of the reference; PSI and KS are
        corrected for the number of features. Of all together: the correlations. Total: whatever
        cannot be told is INCONCLUSIVE, with the reason. Raises `InvalidInput` for rows of another
        width.

        >>> rng = np.random.default_rng(1)
        >>> reference = FeatureReference.of(rng.normal(size=(5000, 2)), ["rsi", "adx"])
        >>> window = rng.normal(size=(1000, 2)) + [0.0, 1.0]
        >>> [(c.metric.value, c.subject) for c in reference.check(window) if c.drifted]
        [('psi', 'adx'), ('ks', 'adx')]
        """
        limits = limits or DriftLimits()
        rows = _rows(values, len(self.names))
        psi, ks, others = [], [], []
        for i, (name, reference) in enumerate(zip(self.names, self.distributions, strict=True)):
            known = ordered(rows[:, i])
            psi.append(compared_psi(DriftMetric.PSI, name, reference, known, limits))
            ks.append(_ks(name, reference, known, limits))
            others += [
                _missing(name, reference, len(rows), len(known), limits),
                _out_of_range(name, reference, known, limits),
            ]
        return [
            *discovered(psi, significance=limits.significance),
            *discovered(ks, significance=limits.significance),
            *others,
            *self._pairs(rows, limits),
        ]

    def _pairs(self, rows: Floats, limits: DriftLimits) -> Iterator[DriftCheck]:
        """Compare the correlation of the pair that moved most; none of a single feature.

        Pearson's of values between two quantiles of the reference, so that no outlier makes one.
        The p-value is that of Fisher's z, multiplied by the number of pairs (Bonferroni).
        """
        if len(self.names) < 2:
            return
        metric, moving = DriftMetric.CORRELATION, self._moving
        now, n = _correlations(rows, self.distributions)
        time = max((self.distributions[i].time for i in moving), default=1.0)
        before = min((self.distributions[i].n_effective for i in moving), default=0.0)
        if len(moving) < 2:
            yield unknown(metric, PAIR, "fewer than two features vary in the reference", n=n)
            return
        if n < ROWS_MIN or min(n / time, before) < EFFECTIVE_MIN:
            reason = "too few rows in which all features are known"
            yield unknown(metric, PAIR, reason, n=n, n_effective=n / time)
            return
        away = np.triu(np.abs(now - self.correlation), 1)
        first, second = np.unravel_index(int(np.argmax(away)), away.shape)
        pairs = len(moving) * (len(moving) - 1) // 2
        found, expected = float(now[first, second]), float(self.correlation[first, second])
        error = math.sqrt(1.0 / (n / time - 3.0) + 1.0 / (before - 3.0))
        z = abs(_fisher(found) - _fisher(expected)) / error
        yield judged(
            metric,
            PAIR,
            abs(found - expected),
            Bound(warning=limits.correlation, significance=limits.significance),
            n=n,
            n_effective=n / time,
            p_value=min(1.0, 2.0 * float(ndtr(-z)) * pairs),
            detail={
                "pair": [self.names[first], self.names[second]],
                "correlation": found,
                "reference": expected,
                "pairs": pairs,
            },
        )

    @property
    def _moving(self) -> list[int]:
        return [i for i, each in enumerate(self.distributions) if not each.is_constant]


def compared_psi(
    metric: DriftMetric, subject: str, reference: Distribution, known: Floats, limits: DriftLimits
) -> DriftCheck:
    """Hold the finite values of a window, ascending, against the frozen bins."""
    n_effective = len(known) / reference.time
    reason = _untestable(reference, known)
    if reason is not None:
        return unknown(metric, subject, reason, n=len(known), n_effective=n_effective)
    found = reference.psi(known)
    return judged(
        metric,
        subject,
        found.value,
        Bound(
            warning=limits.psi_warning,
            critical=limits.psi_critical,
            significance=limits.significance,
        ),
        n=len(known),
        n_effective=n_effective,
        p_value=found.p_value,
        detail={"statistic": found.statistic, "bins": len(reference.counts), "n_ref": reference.n},
    )


def checked_names(names: Sequence[str]) -> None:
    """Raise `InvalidInput` for names that are empty, too long, repeated, or too many."""
    if not 1 <= len(names) <= FEATURES_MAX or len(set(names)) < len(names):
        rule = f"must be 1 to {FEATURES_MAX} names, each once"
        raise InvalidInput(field="names", rule=rule, found=len(names))
    for name in names:
        if not 1 <= len(name) <= 64 or not name.isprintable() or name != name.strip():
            rule = "must be 1 to 64 printable characters"
            raise InvalidInput(field="names", rule=rule, found=ascii(name))


def _ks(name: str, reference: Distribution, known: Floats, limits: DriftLimits) -> DriftCheck:
    n_effective = len(known) / reference.time
    reason = _untestable(reference, known)
    if reason is not None:
        return unknown(DriftMetric.KS, name, reason, n=len(known), n_effective=n_effective)
    found = reference.ks(known)
    return judged(
        DriftMetric.KS,
        name,
        found.value,
        Bound(warning=limits.ks, significance=limits.significance),
        n=len(known),
        n_effective=n_effective,
        p_value=found.p_value,
        detail={"n_ref": reference.n},
    )


def _untestable(reference: Distribution, known: Floats) -> str | None:
    if reference.n == 0:
        return "the reference has no value"
    if reference.is_constant:
        return "the reference is constant"
    if len(known) < ROWS_MIN:
        return f"fewer than {ROWS_MIN} known values"
    if min(len(known) / reference.time, reference.n_effective) < EFFECTIVE_MIN:
        return f"worth fewer than {EFFECTIVE_MIN:g} independent values"
    return None


def _missing(
    name: str, reference: Distribution, n: int, known: int, limits: DriftLimits
) -> DriftCheck:
    if n < ROWS_MIN:
        return unknown(DriftMetric.MISSING, name, f"fewer than {ROWS_MIN} rows", n=n)
    rows = reference.n + reference.missing
    return judged(
        DriftMetric.MISSING,
        name,
        (n - known) / n,
        Bound(warning=limits.missing_warning, critical=limits.missing_critical),
        n=n,
        detail={"reference": reference.missing / rows if rows else 1.0},
    )


def _out_of_range(
    name: str, reference: Distribution, known: Floats, limits: DriftLimits
) -> DriftCheck:
    """Count values beyond all of the reference.

    The part beyond the range of m values is beta(2, m - 1) distributed whatever they are, so that
    of n more, k lie there with the probability of a beta-binomial: a small reference is left often.
    """
    metric, n, m = DriftMetric.OUT_OF_RANGE, len(known), reference.n_effective
    if reference.n == 0:
        return unknown(metric, name, "the reference has no value", n=n)
    if n < ROWS_MIN or m < EFFECTIVE_MIN:
        reason = f"fewer than {ROWS_MIN} known values, or a reference worth fewer than 20"
        return unknown(metric, name, reason, n=n)
    below = int(np.searchsorted(known, reference.minimum, "left"))
    above = n - int(np.searchsorted(known, reference.maximum, "right"))
    events = math.floor((below + above) / reference.time)
    rows = max(1, round(n / reference.time))
    p_value = float(betabinom.sf(events - 1, rows, 2.0, m - 1.0)) if events else 1.0
    return judged(
        metric,
        name,
        (below + above) / n,
        Bound(warning=limits.out_of_range, significance=limits.significance),
        n=n,
        n_effective=n / reference.time,
        p_value=min(max(p_value, 0.0), 1.0),
        detail={
            "below": below,
            "above": above,
            "minimum": reference.minimum,
            "maximum": reference.maximum,
        },
    )


def _rows(values: Floats, width: int) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != width:
        rule = f"must be rows of {width} columns"
        raise InvalidInput(field="rows", rule=rule, found=rows.shape)
    return rows


def _correlations(rows: Floats, distributions: Sequence[Distribution]) -> tuple[Floats, int]:
    """Return the correlations of the rows in which everything is finite, and how many these are."""
    size = rows.shape[1]
    varying = [i for i, each in enumerate(distributions) if not each.is_constant]
    whole = rows[:, varying]
    whole = whole[np.isfinite(whole).all(axis=1)]
    matrix = np.eye(size)
    if len(whole) < 2:
        return matrix, len(whole)
    low = np.array([distributions[i].quantile(_TAIL) for i in varying])
    high = np.array([distributions[i].quantile(1.0 - _TAIL) for i in varying])
    half = high / 2.0 - low / 2.0  # 0 also of the two smallest numbers there are
    away = (np.clip(whole, low, high) / 2.0 - low / 2.0) / np.where(half > 0.0, half, 1.0)
    away -= away.mean(axis=0)
    size_of = np.sqrt((away * away).sum(axis=0))
    away /= np.where(size_of > 0.0, size_of, 1.0)
    found = np.clip(away.T @ away, -1.0, 1.0)
    matrix[np.ix_(varying, varying)] = (found + found.T) / 2.0
    np.fill_diagonal(matrix, 1.0)
    return matrix, len(whole)


def _fisher(correlation: float) -> float:
    return math.atanh(min(max(correlation, -_CERTAIN), _CERTAIN))
