"""Whatever the rows are: every check is made, finite or INCONCLUSIVE, and only their set counts."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from bandit.core.drift import DriftCheck
from bandit.core.model import Verdict
from learners.drift.distribution import Distribution, ordered
from learners.drift.encoder import BLOCK_MIN, BLOCKS_WHOLE, EncoderReference
from learners.drift.features import FeatureReference
from learners.drift.reference_file import DriftReference

Floats = NDArray[np.float64]
ANYTHING = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 5e-324, 1.7e308, -1.7e308])
FEW = st.integers(-3, 3).map(float)
NAMES = ("rsi", "adx")


def rows(values: st.SearchStrategy[float], *, n_max: int) -> st.SearchStrategy[Floats]:
    sizes = st.integers(0, n_max).map(lambda n: (n, len(NAMES)))
    return arrays(np.float64, sizes, elements=values)


def require_told(check: DriftCheck) -> None:
    if check.verdict is Verdict.INCONCLUSIVE:
        assert check.value is None
        assert check.detail["reason"]
    else:
        assert check.value is not None
        assert math.isfinite(check.value)


@given(reference=rows(ANYTHING | FEW, n_max=80), window=rows(ANYTHING | FEW, n_max=60))
@example(reference=np.array([[0.0, 0.0], [0.0, 5e-324]]), window=np.zeros((30, 2)))
@settings(max_examples=150, deadline=None)
def test_every_check_of_any_rows_is_made(reference: Floats, window: Floats) -> None:
    frozen = FeatureReference.of(reference, NAMES)
    checks = frozen.check(window)
    assert len(checks) == 4 * len(NAMES) + 1
    for check in checks:
        require_told(check)
    files = DriftReference(features=frozen).to_files()
    read = DriftReference.from_files(files).features
    assert read is not None
    assert read.check(window) == checks


@given(
    reference=st.lists(FEW | st.floats(-1e6, 1e6), min_size=2, max_size=200),
    window=st.lists(FEW | st.floats(-1e6, 1e6), min_size=1, max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_distance_is_scipys_whatever_ties_there_are(
    reference: list[float], window: list[float]
) -> None:
    frozen = Distribution.of(np.array(reference))
    found = frozen.ks(ordered(np.array(window))).value
    # Also where the reference is autocorrelated, and the grid decides.
    expected = float(ks_2samp(window, reference, method="asymp").statistic)
    assert math.isclose(found, expected, abs_tol=1e-12)


@given(
    window=st.lists(st.floats(-5, 5), min_size=30, max_size=60),
    factor=st.sampled_from([-3.0, 0.25, 1e12]),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=80, deadline=None)
def test_ks_knows_neither_unit_nor_order(window: list[float], factor: float, order: object) -> None:
    reference = np.random.default_rng(1).normal(size=500)
    plain = Distribution.of(reference).ks(ordered(np.array(window)))
    order.shuffle(window)  # type: ignore[attr-defined]
    scaled = Distribution.of(factor * reference).ks(ordered(factor * np.array(window)))
    assert math.isclose(plain.value, scaled.value, abs_tol=1e-12)


@given(
    window=arrays(np.float64, st.integers(0, 120).map(lambda n: (n, 3)), elements=ANYTHING | FEW)
)
@settings(max_examples=150, deadline=None)
def test_every_check_of_any_embeddings_is_made(window: Floats) -> None:
    require_told(ENCODER.check(window))


ENCODER = EncoderReference.of(np.random.default_rng(1).normal(size=(BLOCKS_WHOLE * BLOCK_MIN, 3)))
