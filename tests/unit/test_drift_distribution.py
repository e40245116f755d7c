"""A frozen distribution says of a window what scipy says of the raw rows, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import chisquare, entropy, ks_2samp

from bandit.core.errors import InvalidInput
from learners.drift.autocorrelation import autocorrelation_time
from learners.drift.distribution import BINS, GRID_MAX, Distribution, ordered

Floats = NDArray[np.float64]


def normal(n: int, *, seed: int = 1, mean: float = 0.0) -> Floats:
    return np.random.default_rng(seed).normal(mean, size=n)


def autoregressive(n: int, rho: float, *, seed: int = 1) -> Floats:
    noise = np.random.default_rng(seed).normal(size=n) * math.sqrt(1.0 - rho * rho)
    return lfilter([1.0], [1.0, -rho], noise)


def parts(edges: Sequence[float], values: Floats, *, half: float) -> list[float]:
    """The part of values in each bin, counted one by one."""
    counts = [half] * (len(edges) + 1)
    for value in values:
        counts[sum(value > edge for edge in edges)] += 1
    return [count / (len(values) + half * len(counts)) for count in counts]


# Bins


def test_bins_hold_a_tenth_each() -> None:
    found = Distribution.of(normal(10_000))
    assert found.counts.tolist() == [1000] * BINS
    assert found.edges[4] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("values", "edges", "counts"),
    [
        # Two values that are told apart whatever the odds.
        ([0.0] * 95 + [1.0] * 5, [0.0], [95, 5]),
        ([0.0] * 5 + [1.0] * 95, [0.0], [5, 95]),
        ([1.0, 2.0, 3.0] * 10, [1.0, 2.0], [10, 10, 10]),
        ([7.0] * 10, [], [10]),
        ([7.0], [], [1]),
        ([], [], []),
        ([math.nan, math.inf, -math.inf], [], []),
    ],
)
def test_no_bin_is_empty_and_none_is_split(
    values: list[float], edges: list[float], counts: list[int]
) -> None:
    found = Distribution.of(np.array(values))
    assert (found.edges.tolist(), found.counts.tolist()) == (edges, counts)
    assert found.is_constant == (edges == [])
    assert found.n + found.missing == len(values)


def test_psi_is_the_sum_over_bins() -> None:
    reference, window = normal(3000), normal(400, seed=2, mean=0.5)
    found = Distribution.of(reference)
    now = parts(found.edges.tolist(), window, half=0.5)
    before = parts(found.edges.tolist(), reference, half=0.0)
    plain = sum((a - q) * math.log(a / q) for a, q in zip(now, before, strict=True))
    psi = found.psi(ordered(window))
    assert psi.value == pytest.approx(plain, rel=1e-12)
    # PSI is the sum of both divergences.
    assert psi.value == pytest.approx(entropy(now, before) + entropy(before, now), rel=1e-12)


def test_p_value_of_psi_is_pearsons_for_a_reference_without_end() -> None:
    found = Distribution.of(normal(1_000_000))
    window = normal(300, seed=3, mean=0.1)
    counts = np.array(parts(found.edges.tolist(), window, half=0.0)) * 300
    psi = found.psi(ordered(window))
    # The reference's own noise takes off n / (n + m), which is 0.03 % here.
    assert psi.statistic == pytest.approx(chisquare(counts).statistic, rel=1e-3)
    assert psi.p_value == pytest.approx(chisquare(counts).pvalue, rel=1e-2)


def test_psi_of_a_window_in_one_bin_is_large_and_finite() -> None:
    psi = Distribution.of(normal(1000)).psi(np.full(100, 99.0))
    # (0.957 - 0.1) ln 9.57 + 9 (0.1 - 0.0048) ln 21
    assert psi.value == pytest.approx(4.55, abs=0.01)
    assert psi.p_value < 1e-100


# Kolmogorov and Smirnov


@pytest.mark.parametrize("mean", [0.0, 0.2])
@pytest.mark.parametrize("n", [30, 500, 3000])
def test_ks_of_a_small_reference_is_scipys(n: int, mean: float) -> None:
    reference, window = normal(500), normal(n, seed=2, mean=mean)
    expected = ks_2samp(window, reference, method="exact" if n < 3000 else "asymp")
    found = Distribution.of(reference).ks(ordered(window))
    assert found.value == pytest.approx(expected.statistic, abs=1e-14)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.02])
@pytest.mark.parametrize("n", [50, 1000, 100_000])
def test_ks_of_a_large_reference_is_scipys_but_for_the_grid(n: int, mean: float) -> None:
    reference, window = normal(100_000), normal(n, seed=2, mean=mean)
    expected = ks_2samp(window, reference, method="asymp")
    found = Distribution.of(reference).ks(ordered(window))
    assert expected.statistic - 1.0 / GRID_MAX <= found.value <= expected.statistic + 1e-14
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.1, abs=0.02)


def test_ks_is_exact_where_a_large_reference_has_few_values() -> None:
    rng = np.random.default_rng(4)
    reference = rng.integers(0, 50, size=100_000).astype(float)
    window = rng.integers(0, 40, size=777) + 0.5 * rng.integers(0, 2, size=777)
    found = Distribution.of(reference)
    assert (found.whole, len(found.grid)) == (True, 50)
    assert found.ks(ordered(window)).value == ks_2samp(window, reference).statistic


def test_memory_does_not_grow_with_the_reference() -> None:
    found = [Distribution.of(normal(n)) for n in (10_000, 300_000)]
    assert [len(each.grid) for each in found] == [GRID_MAX, GRID_MAX]


# Rows that resemble the one before


@pytest.mark.parametrize(("rho", "time"), [(0.5, 3.0), (0.9, 19.0), (0.98, 99.0)])
def test_autocorrelation_time_of_a_known_process(rho: float, time: float) -> None:
    # (1 + rho) / (1 - rho)
    assert autocorrelation_time(autoregressive(130_000, rho)) == pytest.approx(time, rel=0.15)


@pytest.mark.parametrize("n", [4, 50, 1000, 100_000])
def test_rows_that_know_nothing_of_each_other_are_worth_themselves(n: int) -> None:
    # One in forty would be taken for more at 5 % of both sides; these seeds are not.
    assert [autocorrelation_time(normal(n, seed=seed)) for seed in range(5)] == [1.0] * 5


@pytest.mark.parametrize("values", [[], [1.0], [5.0] * 100, [1e308, -1e308, 1e308, -1e308, 1e308]])
def test_time_of_what_has_none_is_one(values: list[float]) -> None:
    assert autocorrelation_time(np.array(values)) == 1.0


def test_p_values_take_autocorrelation_into_account() -> None:
    reference = Distribution.of(autoregressive(100_000, 0.9))
    window = ordered(autoregressive(2000, 0.9, seed=2))
    assert ks_2samp(window, autoregressive(100_000, 0.9)).pvalue < 0.01
    assert reference.ks(window).p_value > 0.05
    assert reference.psi(window).p_value > 0.05


def test_wild_days_that_come_together_count_as_fewer() -> None:
    rng = np.random.default_rng(5)
    wild = np.exp(autoregressive(100_000, 0.95, seed=6)) * rng.normal(size=100_000)
    # The values themselves know nothing of each other.
    assert autocorrelation_time(np.clip(wild, -3.0, 3.0)) == 1.0
    assert Distribution.of(wild).time > 5.0


# What no series makes


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("edges", {"edges": np.array([2.0, 1.0])}),
        ("edges", {"edges": np.array([1.0, np.nan])}),
        ("grid", {"grid": np.array([1.0, 1.0, 2.0])}),
        ("cumulative", {"cumulative": np.array([1, 1, 3])}),
        ("counts", {"counts": np.array([1, 1, 0])}),
        ("counts", {"counts": np.array([3])}),
        ("counts", {"counts": np.array([0, 1, 2])}),
        ("minimum", {"minimum": math.nan}),
        ("minimum", {"minimum": 1.5}),
        ("missing", {"missing": -1}),
        ("time", {"time": 0.9}),
        ("time", {"time": math.inf}),
        ("grid", {"grid": np.array([1.0, 2.0])}),
    ],
)
def test_what_no_series_makes_is_refused(field: str, change: dict[str, object]) -> None:
    lawful: dict[str, object] = {
        "edges": np.array([1.0, 2.0]),
        "counts": np.array([1, 1, 1]),
        "grid": np.array([1.0, 2.0, 3.0]),
        "cumulative": np.array([1, 2, 3]),
        "minimum": 1.0,
        "missing": 0,
        "time": 1.0,
        "whole": True,
    }
    assert Distribution(**lawful).n == 3  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as refused:
        Distribution(**(lawful | change))  # type: ignore[arg-type]
    assert refused.value.field == field
