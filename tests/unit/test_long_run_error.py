"""The standard error of a mean whose parts come in runs, or by moving propensities."""

from __future__ import annotations

import numpy as np
import pytest

from bandit.core.ope import standard_error


def test_standard_error_of_independent_scores_is_the_textbook_one() -> None:
    # Mean square of six normal sums: over 400 samples its relative error is sqrt(2 / 6 / 400)
    # = 2.9 %; 12 % is four of them.
    rng = np.random.default_rng(7)
    moving = np.repeat([10.0, 2.0], 500)
    for pace in (np.ones(1000), moving):
        squares = [
            standard_error(rng.standard_normal(1000) * np.sqrt(pace), pace) ** 2 for _ in range(400)
        ]
        assert np.mean(squares) == pytest.approx(pace.mean() / 1000, rel=0.12)


@pytest.mark.no_cover
def test_standard_error_counts_what_comes_in_runs() -> None:
    # Runs of 10 equal scores are worth a tenth of the decisions: sqrt(10) = 3.16 times the error.
    rng = np.random.default_rng(8)
    steady = np.ones(2000)
    ratios = []
    for _ in range(400):
        runs = np.repeat(rng.standard_normal(200), 10)
        ratios.append(standard_error(runs, steady) ** 2 / (10 / 2000))
    assert np.mean(ratios) == pytest.approx(1.0, rel=0.12)


def test_a_constant_shift_of_the_scores_is_no_error() -> None:
    rng = np.random.default_rng(9)
    pace = np.linspace(1.0, 30.0, 500)
    scores = rng.standard_normal(500)
    assert standard_error(scores + 1e3, pace) == pytest.approx(
        standard_error(scores, pace), rel=1e-6
    )
    assert standard_error(np.full(500, 3.0), pace) == pytest.approx(0.0, abs=1e-12)
