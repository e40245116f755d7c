"""Importances, confidences and scores of a policy, held against those it had."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from learners.drift.behaviour import ConfidenceReference, ImportanceReference, PredictionReference

NAMES = ("rsi", "adx", "atr")
IMPORTANCE = ImportanceReference.of(np.array([2.0, 1.0, 1.0]), NAMES)


def test_importance_that_moved_is_counted_once() -> None:
    check = IMPORTANCE.check(np.array([1.0, 1.0, 2.0]))
    # 0.50 0.25 0.25 became 0.25 0.25 0.50: a quarter of all moved.
    assert check.value == pytest.approx(0.25)
    assert check.drifted
    assert check.detail["moved"][:2] == ["rsi", "atr"]


def test_importance_of_another_size_is_the_same() -> None:
    check = IMPORTANCE.check(np.array([2e300, 1e300, 1e300]))
    assert (check.value, check.verdict) == (0.0, Verdict.PASS)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [1.0, math.nan, 1.0]])
def test_importance_of_nothing_is_inconclusive(values: list[float]) -> None:
    assert IMPORTANCE.check(np.array(values)).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(InvalidInput, match="importance"):
        ImportanceReference.of(np.array(values), NAMES)


def test_importance_of_other_features_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be 3 numbers"):
        IMPORTANCE.check(np.ones(4))
    with pytest.raises(InvalidInput, match="parts of one"):
        ImportanceReference(names=NAMES, parts=np.array([0.5, 0.5, 0.5]))


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
