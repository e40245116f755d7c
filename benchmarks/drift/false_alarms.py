"""How often PSI and KS call two samples of one distribution different, at a level of 5 %.

Reference and window are new in each repetition. A rate is right within one point of 5 % where rows
know nothing of each other, and at most 5 % where each resembles the one before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.drift._series import autoregressive
from learners.drift.distribution import Distribution, ordered

SEED = 20261122
LEVEL, POINT = 0.05, 0.01
REFERENCE = 10_000 if QUICK else 100_000
WINDOWS = (50, 200, 1_000, 10_000) if QUICK else (50, 200, 1_000, 10_000, 100_000)
REPETITIONS = 40 if QUICK else 5_000
WINDOW = 2_000  # rows that are autocorrelated

Floats = NDArray[np.float64]


def independent(n: int) -> Iterable[tuple[Floats, Floats]]:
    """Yield references and windows of one normal distribution."""
    rng = np.random.default_rng([SEED, n])
    for _ in range(REPETITIONS):
        yield rng.normal(size=REFERENCE), rng.normal(size=n)


def autocorrelated(rho: float) -> Iterable[tuple[Floats, Floats]]:
    """Yield references and windows of one AR(1) process."""
    rng = np.random.default_rng([SEED, round(1000 * rho)])
    for _ in range(REPETITIONS // 5):
        reference, window = (autoregressive(rng, n, 1, rho=rho)[:, 0] for n in (REFERENCE, WINDOW))
        yield reference, window


def clustered() -> Iterable[tuple[Floats, Floats]]:
    """Yield returns without memory, of which wild ones follow wild ones."""
    rng = np.random.default_rng([SEED, 1])
    for _ in range(REPETITIONS // 5):
        reference, window = (
            np.exp(autoregressive(rng, n, 1, rho=0.95)[:, 0]) * rng.normal(size=n)
            for n in (REFERENCE, WINDOW)
        )
        yield reference, window


def alarms(pairs: Iterable[tuple[Floats, Floats]]) -> dict[str, float]:
    """Return how often each test is at the level; `naive` takes the rows for independent."""
    names = ("ks", "psi", "naive_ks", "naive_psi")
    p_values = []
    for values, window in pairs:
        reference, rows = Distribution.of(values), ordered(window)
        ours = [found.p_value for found in (reference.ks(rows), reference.psi(rows))]
        naive = ours
        if reference.time > 1.0:
            plain = replace(reference, time=1.0)
            naive = [found.p_value for found in (plain.ks(rows), plain.psi(rows))]
        p_values.append([*ours, *naive])
    rates = (np.array(p_values) <= LEVEL).mean(axis=0).tolist()
    return dict(zip(names, rates, strict=True))


def main() -> None:
    """Print the claims."""
    progress(f"{REPETITIONS} references of {REFERENCE} rows for each window, seed {SEED}")
    for n in WINDOWS:
        found = alarms(independent(n))
        for test in ("ks", "psi"):
            claim(
                f"drift.false_alarms.{test}.{n}_rows",
                ours=f"{found[test]:.4f}",
                yardstick=f"{LEVEL:.2f}±{POINT:.2f}",
                ratio=abs(found[test] - LEVEL) / POINT,
                side=Target.AT_MOST,
                target=1.0,
            )
    processes = {f"autocorrelated_{rho}": autocorrelated(rho) for rho in (0.9, 0.98)}
    for name, pairs in {**processes, "clustered": clustered()}.items():
        found = alarms(pairs)
        for test in ("ks", "psi"):
            naive = found[f"naive_{test}"]
            progress(f"{name}: {test} {found[test]:.4f}, taken as independent {naive:.4f}")
            claim(
                f"drift.false_alarms.{test}.{name}",
                ours=f"{found[test]:.4f}",
                yardstick=f"{naive:.4f}",
                ratio=found[test] / LEVEL,
                side=Target.AT_MOST,
                target=1.0,
            )


if __name__ == "__main__":
    main()
