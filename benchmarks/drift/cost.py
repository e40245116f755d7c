"""What an hourly check of fifty features costs against a million reference rows.

Beside it, in the same round: `scipy.stats.ks_2samp` on the raw rows, as whoever keeps no reference
has to do it, and Evidently's PSI where that package can be imported.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from statistics import median
from time import process_time

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from benchmarks.claims import QUICK, Target, claim, progress
from learners.drift.features import FeatureReference

SEED = 20261125
FEATURES = 50
REFERENCE = 20_000 if QUICK else 1_000_000
SMALLER = REFERENCE // 10
WINDOWS = (1_000,) if QUICK else (10_000, 100_000)
ROUNDS = 2 if QUICK else 9
BESIDE = {10_000: 10.0, 100_000: 5.0}  # the larger a window, the more of both is sorting it
YARDSTICK_FEATURES = 2  # a yardstick takes seconds a feature and scales with their number
SECONDS_MAX = 0.5

Floats = NDArray[np.float64]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the processor time that a piece of work takes."""
    start = process_time()
    work()
    return process_time() - start


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most memory that a piece of work holds beyond what was there before."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def kept_bytes(reference: FeatureReference) -> int:
    """Return the bytes of a reference's numbers."""
    arrays = [a for d in reference.distributions for a in (d.grid, d.cumulative, d.edges, d.counts)]
    return sum(array.nbytes for array in arrays) + reference.correlation.nbytes


def evidently_psi() -> Callable[[Floats, Floats], object] | None:
    """Return Evidently's PSI of two columns, None where the package is not there."""
    try:
        import pandas as pd
        from evidently.legacy.calculations.stattests.psi import psi_stat_test
        from evidently.legacy.core import ColumnType
    except ImportError:
        return None

    def psi(reference: Floats, window: Floats) -> object:
        series = pd.Series(reference), pd.Series(window)
        return psi_stat_test.func(*series, ColumnType.Numerical, 0.1)

    return psi


def beside(n: int, whose: str, ours: list[float], theirs: list[float]) -> None:
    """Claim how many times as much a yardstick takes for all features and `n` new rows."""
    claim(
        f"drift.cost.{n}_rows.beside_{whose}",
        ours=f"{median(ours):.3f}s",
        yardstick=f"{median(theirs):.3f}s",
        ratio=median(t / o for t, o in zip(theirs, ours, strict=True)),
        side=Target.AT_LEAST,
        target=BESIDE.get(n, 1.0),
    )


def measure(reference: FeatureReference, rows: Floats, window: Floats) -> None:
    """Claim what one check costs, and how much more the yardsticks take."""
    seconds: dict[str, list[float]] = {"ours": [], "scipy": [], "evidently": []}
    psi, columns = evidently_psi(), range(YARDSTICK_FEATURES)
    scale = FEATURES / YARDSTICK_FEATURES
    reference.check(window)
    for _ in range(ROUNDS):
        seconds["ours"].append(cpu_seconds(lambda: reference.check(window)))
        scipy = cpu_seconds(lambda: [ks_2samp(rows[:, i], window[:, i]) for i in columns])
        seconds["scipy"].append(scale * scipy)
        if psi is not None:
            found = cpu_seconds(lambda: [psi(rows[:, i], window[:, i]) for i in columns])
            seconds["evidently"].append(scale * found)
    n = len(window)
    claim(
        f"drift.cost.{n}_rows",
        ours=f"{median(seconds['ours']):.3f}s",
        yardstick=f"{SECONDS_MAX:.1f}s",
        ratio=median(seconds["ours"]) / SECONDS_MAX,
        side=Target.AT_MOST,
        target=1.0,
    )
    beside(n, "scipy_ks", seconds["ours"], seconds["scipy"])
    if psi is None:
        progress("evidently is not installed here: scipy alone stands beside")
    else:
        beside(n, "evidently_psi", seconds["ours"], seconds["evidently"])


def main() -> None:
    """Print the claims."""
    rng = np.random.default_rng(SEED)
    names = [f"feature_{i}" for i in range(FEATURES)]
    rows = rng.normal(size=(REFERENCE, FEATURES))
    smaller = FeatureReference.of(rows[:SMALLER], names)
    built = process_time()
    reference = FeatureReference.of(rows, names)
    progress(f"frozen {REFERENCE} rows of {FEATURES} features in {process_time() - built:.1f} s")
    for n in WINDOWS:
        measure(reference, rows, rng.normal(size=(n, FEATURES)))
    window = rng.normal(size=(WINDOWS[0], FEATURES))
    peaks = [peak_bytes(partial(each.check, window)) for each in (reference, smaller)]
    kept = [kept_bytes(each) for each in (reference, smaller)]
    for name, (ours, other) in {"kept": kept, "peak": peaks}.items():
        claim(
            f"drift.cost.memory_{name}_beside_a_tenth_of_the_rows",
            ours=f"{ours / 2**20:.1f}MiB",
            yardstick=f"{other / 2**20:.1f}MiB",
            ratio=ours / other,
            side=Target.AT_MOST,
            target=1.25,
        )


if __name__ == "__main__":
    main()
