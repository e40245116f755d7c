"""Sharpe ratios after a search: by hand, beside skfolio, and for what has no value."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from skfolio import measures

from bandit.core.errors import InvalidInput
from bandit.core.multiplicity import (
    ReturnMoments,
    Search,
    deflated_sharpe,
    expected_max_sharpe,
    probabilistic_sharpe,
    sharpe_interval,
    track_record_min,
)

# Mean 0.005, deviation 0.015 · √(100/99); no skew, kurtosis 1: the standard error is 1 / √99.
COIN = [0.02, -0.01] * 50


def series(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Returns of many lengths, scales, drifts and shapes."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-5, 1)
    tails = rng.standard_t(rng.uniform(3, 30), size=int(rng.integers(3, 800)))
    return scale * (np.where(tails > 1, 2.5 * tails, tails) + rng.normal(0, 0.5))


def test_probabilistic_ratio_by_hand() -> None:
    moments = ReturnMoments.of(COIN)
    # 0.005 / (0.015 √(100/99)) · √99 = 0.1 · √99 · √99 / 3 = 3.3
    assert probabilistic_sharpe(moments) == pytest.approx(NormalDist().cdf(3.3), abs=1e-14)
    # The benchmark of 0.1 takes 0.1 · √99 of that.
    expected = NormalDist().cdf(3.3 - 0.1 * math.sqrt(99))
    assert probabilistic_sharpe(moments, benchmark=0.1) == pytest.approx(expected, abs=1e-14)


def test_skew_and_tails_widen_the_error_by_hand() -> None:
    # Mean 1, m2 3, m3 6, m4 21: skew 2/√3, kurtosis 7/3; deviation 2, so a ratio of 1/2.
    moments = ReturnMoments.of([0.0, 0.0, 0.0, 4.0])
    shape = 1 - 2 / math.sqrt(3) / 2 + (7 / 3 - 1) / 4 / 4
    assert moments.sharpe_error == pytest.approx(math.sqrt(shape / 3), rel=1e-14)


def test_expected_maximum_is_near_that_of_normal_draws() -> None:
    # The formula is an approximation: within 3 % of the simulated mean from ten trials on.
    rng = np.random.default_rng(20260301)
    for n_trials in (10, 50, 500):
        simulated = rng.normal(size=(20_000, n_trials)).max(axis=1).mean()
        assert expected_max_sharpe(n_trials, 1.0) == pytest.approx(simulated, rel=0.03)


@pytest.mark.parametrize("seed", range(200))
def test_agrees_with_skfolio(seed: int) -> None:
    returns = series(seed)
    rng = np.random.default_rng(1000 + seed)
    annual = rng.normal(0.3, 1.0, size=int(rng.integers(1, 300)))
    per_period = annual / math.sqrt(365)
    moments, search = ReturnMoments.of(returns.tolist()), Search.of(annual.tolist())
    benchmark = float(rng.normal(0, 0.05))
    for ours, theirs in (
        (
            probabilistic_sharpe(moments, benchmark=benchmark),
            measures.probabilistic_sharpe_ratio(returns, benchmark_sharpe_ratio=benchmark),
        ),
        (
            deflated_sharpe(moments, search, periods_per_year=365),
            measures.deflated_sharpe_ratio(returns, per_period),
        ),
        (
            expected_max_sharpe(len(annual), 0.7),
            measures.expected_max_sharpe_ratio(len(annual), 0.7),
        ),
    ):
        assert ours is not None
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)


def test_every_trial_counts_also_one_without_a_ratio() -> None:
    # skfolio drops what is NaN; a trial that failed was looked at all the same.
    moments = ReturnMoments.of(COIN)
    tried = [-1.0, 0.0, 1.0]
    few, more = Search.of(tried), Search.of([*tried, None, None, None])
    assert (few.n_trials, more.n_trials, more.n_measured) == (3, 6, 3)
    assert few.annual_deviation == more.annual_deviation == 1.0
    deflated = [deflated_sharpe(moments, s, periods_per_year=365) for s in (few, more)]
    assert deflated[0] is not None
    assert deflated[1] is not None
    assert deflated[1] < deflated[0]


def test_shortest_track_record_is_where_the_probability_reaches_the_confidence() -> None:
    moments = ReturnMoments.of(series(3).tolist())
    sharpe = moments.sharpe
    assert sharpe is not None
    benchmark = sharpe - 0.02
    needed = track_record_min(moments, benchmark=benchmark, confidence=0.9)
    assert needed is not None
    error = moments.sharpe_error
    assert error is not None
    error_then = error * math.sqrt((moments.n - 1) / (needed - 1))
    assert NormalDist().cdf(0.02 / error_then) == pytest.approx(0.9, abs=1e-12)
    assert track_record_min(moments, benchmark=sharpe) is None


@pytest.mark.parametrize(
    "returns",
    [[], [0.01], [0.01, 0.02], [0.0] * 100, [0.1] * 100, [1e16] * 9, [5e-324, 0.0, 0.0]],
)
def test_what_has_no_value_is_none(returns: list[float]) -> None:
    moments = ReturnMoments.of(returns)
    assert moments.n == len(returns)
    assert probabilistic_sharpe(moments) is None
    assert sharpe_interval(moments) is None
    assert track_record_min(moments) is None
    assert deflated_sharpe(moments, Search.of([1.0]), periods_per_year=365) is None


def test_search_whose_spread_nobody_knows_deflates_to_nothing() -> None:
    moments = ReturnMoments.of(COIN)
    for search in (Search.of([]), Search.of([2.0, None]), Search.of([None] * 9)):
        assert search.annual_benchmark() is None
        assert deflated_sharpe(moments, search, periods_per_year=365) is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e17])
def test_numbers_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(InvalidInput, match="return: must be finite"):
        ReturnMoments.of([0.01, wrong])
    with pytest.raises(InvalidInput, match="sharpe_deviation"):
        expected_max_sharpe(3, -wrong)
    with pytest.raises(InvalidInput, match="periods_per_year"):
        deflated_sharpe(ReturnMoments.of(COIN), Search.of([1.0]), periods_per_year=-wrong)
    with pytest.raises(InvalidInput, match="n_trials"):
        expected_max_sharpe(0, 1.0)
