"""The KL of embeddings is the Gaussian one, held against what the reference says of itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import norm

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from learners.drift.encoder import BLOCK_MIN, BLOCKS_WHOLE, EncoderReference
from learners.drift.judging import DriftLimits

Floats = NDArray[np.float64]


def normal(n: int, width: int = 4, *, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, width))


def autoregressive(n: int, width: int, rho: float, *, seed: int) -> Floats:
    noise = normal(n, width, seed=seed) * math.sqrt(1.0 - rho * rho)
    return lfilter([1.0], [1.0, -rho], noise, axis=0)


def test_kl_of_one_dimension_is_the_integral() -> None:
    rows = normal(4000, 1) * 3.0 + 5.0
    window = normal(500, 1, seed=2) * 2.0 + 6.0
    reference = EncoderReference.of(rows)
    m, s = float(window.mean()), float(window.std())
    mean, deviation = float(rows.mean()), float(rows.std())
    x = np.linspace(m - 12 * s, m + 12 * s, 200_001)
    away = norm.logpdf(x, m, s) - norm.logpdf(x, mean, deviation)
    expected = float(np.trapezoid(norm.pdf(x, m, s) * away, x))
    assert reference.raw_kl(window) == pytest.approx(expected, rel=1e-9)


def test_kl_of_all_directions_is_the_formula_and_knows_no_axes() -> None:
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(4, 4))
    rows, window = normal(4000) @ mix, normal(300, seed=2) @ mix * 1.2 + 0.1
    mean, covariance = rows.mean(axis=0), np.cov(rows.T, bias=True)
    m, c = window.mean(axis=0), np.cov(window.T, bias=True)
    inverse = np.linalg.inv(covariance)
    away = m - mean
    logs = np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(c)[1]
    expected = 0.5 * (np.trace(inverse @ c) + away @ inverse @ away - 4 + logs)
    assert EncoderReference.of(rows).raw_kl(window) == pytest.approx(expected, rel=1e-9)
    turned = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert EncoderReference.of(rows @ turned).raw_kl(window @ turned) == pytest.approx(expected)


def test_reference_is_white_in_its_own_directions() -> None:
    rows = normal(2000, 20) * np.arange(1.0, 21.0)
    reference = EncoderReference.of(rows)
    white = (rows - reference.mean) @ reference.projection
    assert white.shape == (2000, 8)
    assert np.cov(white.T, bias=True) == pytest.approx(np.eye(8), abs=1e-9)
    squares = np.sort(np.linalg.eigvalsh(np.cov(rows.T, bias=True)))[::-1]
    assert reference.explained == pytest.approx(squares[:8].sum() / squares.sum())


def test_null_falls_with_the_rows_as_theory_says() -> None:
    reference = EncoderReference.of(normal(20_000, 8))
    for n in (100, 300, 2000):
        # d (d + 3) / 4 n for Gaussian rows that know nothing of each other.
        assert reference.null(n)[0] == pytest.approx(8 * 11 / (4 * n), rel=0.25)
    assert reference.null(10**6) == reference.null(2000)


def test_autocorrelated_rows_of_the_same_process_pass_where_the_bare_rule_fails() -> None:
    reference = EncoderReference.of(autoregressive(20_000, 8, 0.98, seed=1))
    check = reference.check(autoregressive(2000, 8, 0.98, seed=2))
    assert check.detail["raw"] > 0.30
    assert check.verdict is Verdict.PASS
    assert check.value == check.detail["raw"] - check.detail["null_median"]
    # 2000 (1 - rho) / (1 + rho) = 20.2
    assert check.n_effective == pytest.approx(20.2, rel=0.2)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_half_a_nat_is_told(rho: float) -> None:
    reference = EncoderReference.of(autoregressive(20_000, 8, rho, seed=1))
    window = autoregressive(2000, 8, rho, seed=2) + math.sqrt(1.0 / 8.0)
    check = reference.check(window)
    assert check.drifted
    assert check.value == pytest.approx(0.5, abs=0.25)


def test_limit_is_a_setting_and_never_below_the_null() -> None:
    reference = EncoderReference.of(normal(2000))
    window = normal(150, seed=2)
    median, p99 = reference.null(150)
    assert reference.check(window, DriftLimits(encoder_kl=1e-6)).limit == p99 - median
    assert reference.check(window, DriftLimits(encoder_kl=7.0)).limit == 7.0


def test_encoder_that_is_stuck_drifts_far_and_finitely() -> None:
    check = EncoderReference.of(normal(2000)).check(np.zeros((200, 4)))
    assert check.drifted
    assert 10.0 < (check.value or 0.0) < 100.0


@pytest.mark.parametrize("far", [1e9, 1e308])
def test_absurd_embeddings_drift_and_stay_finite(far: float) -> None:
    assert EncoderReference.of(normal(2000)).check(np.full((200, 4), far)).drifted


def test_rows_that_are_not_whole_do_not_count() -> None:
    reference = EncoderReference.of(normal(2000))
    window = normal(200, seed=2)
    spoilt = np.concatenate([window, np.full((50, 4), np.nan)])
    check = reference.check(spoilt)
    assert (check.n, check.detail["missing"]) == (200, 50)
    assert check.value == reference.check(window).value


@pytest.mark.parametrize("n", [0, 1, 99])
def test_window_shorter_than_any_calibrated_is_inconclusive(n: int) -> None:
    check = EncoderReference.of(normal(4000)).check(normal(n))
    assert (check.verdict, check.value) == (Verdict.INCONCLUSIVE, None)
    assert check.detail["reason"].startswith("fewer than 100 complete rows")


def test_directions_without_variance_are_left_out() -> None:
    rows = normal(2000)
    rows[:, 3] = rows[:, 0] + rows[:, 1]
    assert EncoderReference.of(rows).projection.shape == (4, 3)


def test_same_rows_give_the_same_reference() -> None:
    first, second = (EncoderReference.of(normal(1000, 12)) for _ in range(2))
    assert first.projection.tobytes() == second.projection.tobytes()
    assert first.p99s.tobytes() == second.p99s.tobytes()


@pytest.mark.parametrize(
    "rows",
    [
        normal(BLOCKS_WHOLE * BLOCK_MIN - 1),
        np.zeros((1000, 4)),
        np.full((1000, 4), np.nan),
        np.zeros((1000, 0)),
        np.zeros(1000),
        normal(1000) * 1e200,
    ],
)
def test_embeddings_that_make_no_reference_are_refused(rows: Floats) -> None:
    with pytest.raises(InvalidInput, match="embeddings"):
        EncoderReference.of(rows)


def test_rows_of_another_width_are_refused() -> None:
    reference = EncoderReference.of(normal(1000))
    with pytest.raises(InvalidInput, match="must be rows of 4 columns"):
        reference.check(normal(1000, 5))


@pytest.mark.parametrize("dimensions", [0, 9])
def test_dimensions_out_of_bounds_are_refused(dimensions: int) -> None:
    with pytest.raises(InvalidInput, match="dimensions"):
        EncoderReference.of(normal(1000), dimensions=dimensions)
