"""Importances, confidences and scores of a policy, held against those it had."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from learners.drift.behaviour import ConfidenceReference, ImportanceReference, PredictionReference

NAMES = ("rsi", "adx", "atr")
ROWS = np.random.default_rng(7).dirichlet([2.0, 1.0, 1.0], size=4000)
IMPORTANCE = ImportanceReference.of(ROWS, NAMES)


def test_importance_that_moved_is_counted_once() -> None:
    check = IMPORTANCE.check(np.tile([1.0, 1.0, 2.0], (1000, 1)))
    # 0.50 0.25 0.25 became 0.25 0.25 0.50: a quarter of all moved.
    assert check.detail["distance"] == pytest.approx(0.25, abs=0.01)
    assert check.value == pytest.approx(check.detail["distance"] - check.detail["by_chance"])
    assert check.drifted
    assert set(check.detail["moved"][:2]) == {"rsi", "atr"}
    assert (check.n, check.n_effective) == (1000, 1000 / IMPORTANCE.time)


def test_importance_of_another_size_is_the_same() -> None:
    check = IMPORTANCE.check(1e300 * ROWS)
    assert check.detail["distance"] == pytest.approx(0.0, abs=1e-12)
    assert check.verdict is Verdict.PASS


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_where_nothing_changed_the_value_is_about_zero_at_any_length(memory: float) -> None:
    """What rows vary by is taken off, also where each resembles the one before."""
    rng = np.random.default_rng(11)

    def attention(count: int) -> np.ndarray:
        drawn = rng.normal(size=(count, 3))
        for row in range(1, count):
            drawn[row] = memory * drawn[row - 1] + np.sqrt(1 - memory**2) * drawn[row]
        return np.exp(drawn)

    reference = ImportanceReference.of(attention(20_000), NAMES)
    for count in (500, 2_000):
        found = [reference.check(attention(count)) for _ in range(200)]
        values = [check.value for check in found if check.value is not None]
        assert len(values) == 200
        distance = np.mean([check.detail["distance"] for check in found])
        assert abs(np.mean(values)) < 0.35 * distance, "a mean of 200 such windows"
        assert not any(check.drifted for check in found)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [1.0, math.nan, 1.0]])
def test_importance_of_nothing_is_inconclusive(values: list[float]) -> None:
    nothing = np.tile(values, (1000, 1))
    assert IMPORTANCE.check(nothing).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(InvalidInput, match="importance"):
        ImportanceReference.of(nothing, NAMES)


def test_importance_of_few_rows_is_inconclusive() -> None:
    assert IMPORTANCE.check(np.tile([1.0, 1.0, 2.0], (10, 1))).verdict is Verdict.INCONCLUSIVE
    few = ImportanceReference.of(ROWS[:10], NAMES)
    assert few.check(ROWS).verdict is Verdict.INCONCLUSIVE


def test_importance_of_other_features_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be rows of 3 numbers"):
        IMPORTANCE.check(np.ones((5, 4)))
    with pytest.raises(InvalidInput, match="parts of one"):
        replace(IMPORTANCE, parts=np.array([0.5, 0.5, 0.5]))
    with pytest.raises(InvalidInput, match=r"^deviations"):
        replace(IMPORTANCE, deviations=np.array([0.5, -0.5, 0.5]))


def test_policy_that_has_become_unsure_has_drifted() -> None:
    rng = np.random.default_rng(1)
    reference = ConfidenceReference.of(rng.beta(8, 2, size=5000))
    assert reference.check(rng.beta(8, 2, size=500)).verdict is Verdict.PASS
    assert reference.check(rng.beta(5, 5, size=500)).detail["level"] == "critical"
    assert reference.check(np.ones(500)).drifted


@pytest.mark.parametrize("values", [[], [0.5] * 10, [math.nan] * 100])
def test_confidence_of_too_few_decisions_is_inconclusive(values: list[float]) -> None:
    reference = ConfidenceReference.of(np.linspace(0.0, 1.0, 500))
    assert reference.check(np.array(values)).verdict is Verdict.INCONCLUSIVE


def test_confidence_has_one_column() -> None:
    with pytest.raises(InvalidInput, match="one series"):
        ConfidenceReference.of(np.zeros((10, 2)))


def test_scores_that_fell_are_told_with_welchs_probability() -> None:
    rng = np.random.default_rng(1)
    before, now = rng.normal(0.0, 1.0, size=2000), rng.normal(-0.4, 2.0, size=300)
    check = PredictionReference.of(before).check(now)
    expected = ttest_ind(now, before, equal_var=False, alternative="less")
    assert check.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert check.value == pytest.approx((before.mean() - now.mean()) / before.std(ddof=1))
    assert check.drifted


def test_scores_that_rose_have_not_decayed() -> None:
    rng = np.random.default_rng(1)
    reference = PredictionReference.of(rng.normal(size=2000))
    check = reference.check(rng.normal(size=300) + 2.0)
    assert (check.value or 0.0) < -1.5
    assert check.verdict is Verdict.PASS


def test_a_fall_by_chance_is_no_decay() -> None:
    rng = np.random.default_rng(2)
    reference = PredictionReference.of(rng.normal(size=2000))
    check = reference.check(np.array([-2.0, 1.4] * 15))
    assert 0.2 < (check.value or 0.0) < 0.3
    assert check.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        ([1.0] * 100, [1.0, 0.0] * 50, "the reference is constant"),
        ([], [1.0, 0.0] * 50, "the reference is constant"),
        ([1.0, 0.0] * 50, [], "too few scores"),
        ([1.0, 0.0] * 50, [math.nan] * 100, "too few scores"),
        ([1.0, 0.0] * 9, [1.0, 0.0] * 50, "too few scores"),
    ],
)
def test_too_few_scores_are_inconclusive(
    before: list[float], now: list[float], reason: str
) -> None:
    check = PredictionReference.of(np.array(before)).check(np.array(now))
    assert (check.verdict, check.detail["reason"]) == (Verdict.INCONCLUSIVE, reason)


def test_scores_without_spread_are_compared() -> None:
    rng = np.random.default_rng(1)
    reference = PredictionReference.of(rng.normal(size=500))
    assert reference.check(np.full(100, -1.0)).drifted


def test_what_no_scores_make_is_refused() -> None:
    for change in ({"n": -1}, {"mean": math.nan}, {"deviation": -1.0}, {"time": 0.5}):
        lawful = {"n": 3, "mean": 0.0, "deviation": 1.0, "time": 1.0}
        with pytest.raises(InvalidInput):
            PredictionReference(**(lawful | change))  # type: ignore[arg-type]
