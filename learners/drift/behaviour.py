"""Frozen references of what a policy says: what it looks at, how sure it is, how right it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind_from_stats

from bandit.core.drift import DriftCheck, DriftMetric
from bandit.core.errors import InvalidInput
from learners.drift.autocorrelation import autocorrelation_time
from learners.drift.distribution import Distribution, ordered
from learners.drift.features import checked_names, compared_psi
from learners.drift.judging import EFFECTIVE_MIN, ROWS_MIN, Bound, DriftLimits, judged, unknown

Floats = NDArray[np.float64]

_TOP: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImportanceReference:
    """How much each feature counted for the model: parts of one, and how they vary row by row.

    `n` rows, worth `n` / `time` independent ones, had the mean `parts` and the `deviations`.
    """

    names: tuple[str, ...]
    n: int
    parts: Floats
    deviations: Floats
    time: float

    def __post_init__(self) -> None:
        """Refuse parts that make no whole, and deviations of nothing."""
        checked_names(self.names)
        total = float(self.parts.sum()) if self.parts.shape == (len(self.names),) else math.nan
        rules = {
            "importance": abs(total - 1.0) < 1e-9 and bool((self.parts >= 0.0).all()),
            "deviations": self.deviations.shape == self.parts.shape
            and bool(((self.deviations >= 0.0) & (self.deviations <= 1.0)).all()),
            "n": self.n >= 1,
            "time": 1.0 <= self.time < math.inf,
        }
        for name, holds in rules.items():
            if not holds:
                rule = "must be of parts of one, a feature each"
                raise InvalidInput(field=name, rule=rule, found=total)

    @classmethod
    def of(cls, importances: Floats, names: Sequence[str]) -> Self:
        """Freeze importances (n, features) of rows in time order, each row of any size.

        Rows that are not finite, negative or all 0 do not count; raises `InvalidInput` where there
        is no other.

        >>> rows = np.array([[3.0, 1.0], [1.0, 1.0]])
        >>> ImportanceReference.of(rows, ["rsi", "adx"]).parts.tolist()
        [0.625, 0.375]
        """
        shares = _shares(importances, len(names))
        if not len(shares):
            rule = "must have a row that is finite, not negative, and not all 0"
            raise InvalidInput(field="importance", rule=rule, found="others")
        parts = shares.mean(axis=0)
        times = np.array([autocorrelation_time(column) for column in shares.T])
        return cls(
            names=tuple(names),
            n=len(shares),
            parts=parts / parts.sum(),
            deviations=shares.std(axis=0),
            time=float(parts @ times / parts.sum()),
        )

    def check(self, importances: Floats, limits: DriftLimits | None = None) -> DriftCheck:
        """Hold the model's importances on a window's rows (n, features) against the reference.

        The value is the part of all importance that has moved to other features, ½ Σ |p - q|, less
        what of it chance makes in the mean: ½ Σ √(2 / π) s √(τ / n + τ / n_ref), the mean size of
        normal differences with the deviations s of the reference.

        >>> rows = np.random.default_rng(1).dirichlet([6.0, 2.0], size=500)
        >>> reference = ImportanceReference.of(rows, ["rsi", "adx"])
        >>> check = reference.check(np.ones((200, 2)))
        >>> round(check.value, 2), check.verdict.value
        (0.25, 'FAIL')
        """
        limits = limits or DriftLimits()
        metric, shares = DriftMetric.IMPORTANCE, _shares(importances, len(self.names))
        n, now, before = len(shares), len(shares) / self.time, self.n / self.time
        if n < ROWS_MIN or min(now, before) < EFFECTIVE_MIN:
            return unknown(metric, "model", "too few rows", n=n, n_effective=now)
        away = np.abs(shares.mean(axis=0) - self.parts)
        noise = math.sqrt(2.0 / math.pi * (1.0 / now + 1.0 / before))
        by_chance = noise * float(self.deviations.sum()) / 2.0
        distance = float(away.sum()) / 2.0
        moved = np.argsort(-away, kind="stable")[:_TOP]
        return judged(
            metric,
            "model",
            distance - by_chance,
            Bound(warning=limits.importance),
            n=n,
            n_effective=now,
            detail={
                "moved": [self.names[i] for i in moved.tolist()],
                "distance": distance,
                "by_chance": by_chance,
                "n_ref": self.n,
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfidenceReference:
    """How sure the policy was of its decisions."""

    distribution: Distribution

    @classmethod
    def of(cls, confidences: Floats) -> Self:
        """Freeze the confidence (n,) of each decision in time order."""
        return cls(distribution=Distribution.of(_series(confidences)))

    def check(self, confidences: Floats, limits: DriftLimits | None = None) -> DriftCheck:
        """Hold a window's confidences against the reference: PSI over frozen bins, and its p-value.

        >>> rng = np.random.default_rng(1)
        >>> reference = ConfidenceReference.of(rng.beta(8, 2, size=5000))
        >>> reference.check(rng.beta(8, 2, size=500)).verdict.value
        'PASS'
        >>> reference.check(rng.beta(2, 2, size=500)).detail["level"]
        'critical'
        """
        known = ordered(_series(confidences))
        metric, limits = DriftMetric.CONFIDENCE, limits or DriftLimits()
        return compared_psi(metric, "policy", self.distribution, known, limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionReference:
    """How good predictions were: the mean of a score of which more is better, and its deviation.

    A score is of one prediction: 1 for a hit and 0 for a miss, or what it earned. `n` scores were
    worth `n` / `time` independent ones.
    """

    n: int
    mean: float
    deviation: float
    time: float

    def __post_init__(self) -> None:
        """Refuse what no scores make."""
        rules = {
            "n": self.n >= 0,
            "mean": math.isfinite(self.mean),
            "deviation": 0.0 <= self.deviation < math.inf,
            "time": 1.0 <= self.time < math.inf,
        }
        for name, holds in rules.items():
            if not holds:
                rule = "must describe scores"
                raise InvalidInput(field=name, rule=rule, found=getattr(self, name))

    @classmethod
    def of(cls, scores: Floats) -> Self:
        """Freeze the scores (n,) of predictions in time order; what is not finite does not count.

        >>> PredictionReference.of(np.array([1.0, 0.0, 1.0, 0.0])).mean
        0.5
        """
        known = _known(scores)
        n, mean, deviation = len(known), *_mean_and_deviation(known)
        return cls(n=n, mean=mean, deviation=deviation, time=autocorrelation_time(known))

    def check(self, scores: Floats, limits: DriftLimits | None = None) -> DriftCheck:
        """Hold a window's scores against the reference.

        The value is how far their mean fell, in deviations of the reference; the p-value that of
        Welch's one-sided test (`scipy.stats.ttest_ind_from_stats`) with effective rows.

        >>> reference = PredictionReference.of(np.tile([1.0, 1.0, 0.0], 200))
        >>> check = reference.check(np.tile([1.0, 0.0, 0.0], 100))
        >>> check.verdict.value, round(check.value, 2)
        ('FAIL', 0.71)
        """
        metric, limits = DriftMetric.PREDICTION, limits or DriftLimits()
        known = _known(scores)
        n, now, before = len(known), len(known) / self.time, self.n / self.time
        if self.deviation == 0.0:
            return unknown(metric, "policy", "the reference is constant", n=n, n_effective=now)
        if n < ROWS_MIN or min(now, before) < EFFECTIVE_MIN:
            return unknown(metric, "policy", "too few scores", n=n, n_effective=now)
        mean, deviation = _mean_and_deviation(known)
        found = ttest_ind_from_stats(
            mean,
            deviation,
            math.floor(now),
            self.mean,
            self.deviation,
            math.floor(before),
            equal_var=False,
            alternative="less",
        )
        return judged(
            metric,
            "policy",
            (self.mean - mean) / self.deviation,
            Bound(warning=limits.prediction, significance=limits.significance),
            n=n,
            n_effective=now,
            p_value=float(found.pvalue),
            detail={"mean": mean, "reference": self.mean, "n_ref": self.n},
        )


def _shares(importances: Floats, size: int) -> Floats:
    """Return the rows that are importances, each as parts of one."""
    values = np.asarray(importances, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != size:
        rule = f"must be rows of {size} numbers"
        raise InvalidInput(field="importance", rule=rule, found=values.shape)
    largest = values.max(axis=1, initial=0.0)
    known = np.isfinite(values).all(axis=1) & (values >= 0.0).all(axis=1) & (largest > 0.0)
    scaled = values[known] / largest[known, None]
    shares: Floats = scaled / scaled.sum(axis=1, keepdims=True)
    return shares


def _series(values: Floats) -> Floats:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1:
        raise InvalidInput(field="values", rule="must be one series", found=series.shape)
    return series


def _known(scores: Floats) -> Floats:
    series = _series(scores)
    return series[np.isfinite(series) & (np.abs(series) < 1e150)]


def _mean_and_deviation(known: Floats) -> tuple[float, float]:
    if len(known) < 2 or known.min() == known.max():
        return (float(known[0]) if len(known) else 0.0), 0.0
    return float(known.mean()), float(known.std(ddof=1))
