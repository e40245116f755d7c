"""Each kind of drift of features is told, and what cannot be told says why."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import betabinom, false_discovery_control, ks_2samp

from bandit.core.drift import DriftCheck, DriftMetric
from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from learners.drift.features import PAIR, FeatureReference
from learners.drift.judging import DriftLimits

Floats = NDArray[np.float64]
NAMES = ("rsi", "adx", "atr")
PSI, KS = DriftMetric.PSI, DriftMetric.KS
MISSING, RANGE, CORRELATION = DriftMetric.MISSING, DriftMetric.OUT_OF_RANGE, DriftMetric.CORRELATION


def rows(n: int, *, seed: int = 1) -> Floats:
    """Three features, of which the first two have a correlation of 0.8."""
    found = np.random.default_rng(seed).normal(size=(n, 3))
    found[:, 1] = 0.8 * found[:, 0] + 0.6 * found[:, 1]
    return found


REFERENCE = FeatureReference.of(rows(20_000), NAMES)


def checked(
    window: Floats, reference: FeatureReference = REFERENCE, limits: DriftLimits | None = None
) -> dict[tuple[DriftMetric, str], DriftCheck]:
    return {(c.metric, c.subject): c for c in reference.check(window, limits)}


def drifted(window: Floats) -> set[tuple[DriftMetric, str]]:
    return {key for key, check in checked(window).items() if check.drifted}


def test_same_market_has_not_drifted() -> None:
    found = checked(rows(1000, seed=2))
    assert len(found) == 4 * 3 + 1
    assert {check.verdict for check in found.values()} == {Verdict.PASS}


def test_shift_is_told_of_its_feature_alone() -> None:
    window = rows(1000, seed=2)
    window[:, 2] += 1.0
    assert drifted(window) == {(PSI, "atr"), (KS, "atr")}
    # PSI of a shift by one deviation is 1 for a normal distribution, in ten bins a little less.
    psi = checked(window)[PSI, "atr"]
    assert psi.value == pytest.approx(0.95, abs=0.1)
    assert psi.detail["level"] == "critical"


def test_small_shift_is_told_by_ks_before_psi() -> None:
    window = rows(5000, seed=2)
    window[:, 2] += 0.3
    assert drifted(window) == {(KS, "atr")}
    psi = checked(window)[PSI, "atr"]
    assert psi.detail["p_adjusted"] < 1e-9
    assert (psi.value or 0) < 0.2


def test_significant_is_not_relevant() -> None:
    window = rows(100_000, seed=2) + 0.03
    found = checked(window)
    assert {found[KS, name].verdict for name in NAMES} == {Verdict.PASS}
    assert max(found[KS, name].detail["p_adjusted"] for name in NAMES) < 0.001


def test_relevant_is_not_significant_in_a_few_rows() -> None:
    found = checked(rows(40, seed=5))
    assert (found[PSI, "atr"].value or 0) > 0.2
    assert found[PSI, "atr"].verdict is Verdict.PASS


def test_p_values_are_corrected_for_the_number_of_features() -> None:
    window = rows(300, seed=3) + 0.1
    found = checked(window)
    raw = [found[KS, name].p_value or 0.0 for name in NAMES]
    adjusted = [found[KS, name].detail["p_adjusted"] for name in NAMES]
    assert adjusted == pytest.approx(false_discovery_control(raw).tolist())
    whole = rows(20_000)
    expected = [ks_2samp(window[:, i], whole[:, i], method="asymp").pvalue for i in range(3)]
    assert raw == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("missing", "level"), [(0, "none"), (50, "none"), (51, "warning"), (101, "critical")]
)
def test_missing_values_warn_above_a_twentieth(missing: int, level: str) -> None:
    window = rows(1000, seed=2)
    window[:missing, 0] = np.nan
    check = checked(window)[MISSING, "rsi"]
    assert (check.value, check.detail["level"]) == (missing / 1000, level)


def test_infinite_values_are_missing() -> None:
    window = rows(100, seed=2)
    window[:20, 0], window[20:30, 0] = np.inf, -np.inf
    assert checked(window)[MISSING, "rsi"].value == 0.3


def test_values_beyond_the_reference_are_counted() -> None:
    window = rows(1000, seed=2)
    window[:15, 2], window[15:20, 2] = 99.0, -99.0
    check = checked(window)[RANGE, "atr"]
    assert (check.value, check.detail["above"], check.detail["below"]) == (0.02, 15, 5)
    assert check.drifted


def test_small_reference_is_left_by_chance() -> None:
    reference = FeatureReference.of(rows(100), NAMES)
    # 2 % of the next values lie beyond 100 in the mean, and up to 5 % are no surprise.
    for seed, name in ((2, "atr"), (2, "adx"), (3, "rsi")):
        check = checked(rows(1000, seed=seed), reference)[RANGE, name]
        beyond = check.detail["above"] + check.detail["below"]
        assert check.verdict is Verdict.PASS
        assert check.p_value == pytest.approx(betabinom.sf(beyond - 1, 1000, 2, 99))
    assert (checked(rows(1000, seed=2), reference)[RANGE, "atr"].value or 0.0) > 0.01


def test_correlation_that_breaks_is_told_with_its_pair() -> None:
    window = rows(1000, seed=2)
    window[:, 1] = np.random.default_rng(9).normal(size=1000)
    assert drifted(window) == {(CORRELATION, PAIR)}
    check = checked(window)[CORRELATION, PAIR]
    assert check.detail["pair"] == ["rsi", "adx"]
    plain = np.corrcoef(window[:, 0], window[:, 1])[0, 1]
    assert check.detail["correlation"] == pytest.approx(plain, abs=0.03)
    assert check.detail["reference"] == pytest.approx(0.8, abs=0.02)


def test_one_outlier_makes_no_correlation() -> None:
    window = rows(1000, seed=2)
    window[0] = [1e9, -1e9, 1e9]
    assert drifted(window) == set()


def test_one_outlier_hides_no_shift() -> None:
    window = rows(1000, seed=2)
    window[:, 2] += 0.5
    spoilt = window.copy()
    spoilt[0, 2] = 1e300
    before, after = checked(window)[PSI, "atr"].value, checked(spoilt)[PSI, "atr"].value
    assert after == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (np.full(20_000, 3.0), "the reference is constant"),
        (np.full(20_000, np.nan), "the reference has no value"),
    ],
)
def test_feature_without_a_distribution_is_inconclusive(column: Floats, reason: str) -> None:
    whole = rows(20_000)
    whole[:, 0] = column
    found = checked(rows(1000, seed=2), FeatureReference.of(whole, NAMES))
    for metric in (PSI, KS):
        check = found[metric, "rsi"]
        assert (check.verdict, check.detail["reason"]) == (Verdict.INCONCLUSIVE, reason)
    # The others are judged all the same.
    assert found[PSI, "adx"].verdict is Verdict.PASS
    assert (CORRELATION, PAIR) in found


def test_constant_that_changes_leaves_its_range() -> None:
    whole, window = rows(20_000), rows(1000, seed=2)
    whole[:, 0], window[:, 0] = 3.0, 4.0
    check = checked(window, FeatureReference.of(whole, NAMES))[RANGE, "rsi"]
    assert (check.value, check.drifted) == (1.0, True)


def test_feature_that_is_stuck_has_drifted() -> None:
    window = rows(1000, seed=2)
    window[:, 2] = 0.25
    assert {(PSI, "atr"), (KS, "atr")} <= drifted(window)


@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_rows_are_inconclusive(n: int) -> None:
    found = checked(rows(1000)[:n])
    assert {check.verdict for check in found.values()} == {Verdict.INCONCLUSIVE}
    assert all(check.detail["reason"] for check in found.values())


def test_window_without_any_value_is_inconclusive_but_for_what_is_missing() -> None:
    found = checked(np.full((100, 3), np.nan))
    conclusive = {key for key, check in found.items() if check.verdict is not Verdict.INCONCLUSIVE}
    assert conclusive == {(MISSING, name) for name in NAMES}
    assert all(found[key].value == 1.0 for key in conclusive)


def test_slow_feature_in_a_short_window_is_inconclusive() -> None:
    walk = np.cumsum(np.random.default_rng(1).normal(size=(20_000, 1)), axis=0)
    check = checked(walk[:500], FeatureReference.of(walk, ["price"]))[KS, "price"]
    assert check.verdict is Verdict.INCONCLUSIVE
    assert check.detail["reason"] == "worth fewer than 20 independent values"


def test_single_feature_has_no_correlations() -> None:
    reference = FeatureReference.of(rows(1000)[:, :1], ["rsi"])
    found = checked(rows(100)[:, :1], reference)
    assert {metric for metric, _ in found} == {PSI, KS, MISSING, RANGE}


def test_numbers_of_any_size_make_no_nan() -> None:
    whole, window = rows(500), rows(100, seed=2)
    whole[:, 0], window[:, 0] = whole[:, 0] * 4e307, window[:, 0] * 4e307
    whole[:, 1], window[:, 1] = whole[:, 1] * 5e-324, window[:, 1] * 5e-324
    for check in checked(window, FeatureReference.of(whole, NAMES)).values():
        assert check.value is None or math.isfinite(check.value)


@pytest.mark.parametrize(
    "names", [(), ("a", "a", "b"), ("", "b", "c"), (" a", "b", "c"), ("a\n", "b", "c")]
)
def test_names_that_are_none_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="names"):
        FeatureReference.of(rows(100), names)


@pytest.mark.parametrize("shape", [(100,), (100, 2), (0, 4)])
def test_rows_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="must be rows of 3 columns"):
        REFERENCE.check(np.zeros(shape))
    with pytest.raises(InvalidInput, match="must be rows of 3 columns"):
        FeatureReference.of(np.zeros(shape), NAMES)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ks": 0.0}, "ks"),
        ({"encoder_kl": math.nan}, "encoder_kl"),
        ({"psi_critical": 0.1}, "psi_critical"),
        ({"significance": 1.0}, "significance"),
    ],
)
def test_limits_that_are_none_are_refused(change: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        DriftLimits(**change)
    assert refused.value.field == field
