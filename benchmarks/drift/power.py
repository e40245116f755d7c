"""Whether a small shift is told among fifty features, and whether one absurd value hides it."""

from __future__ import annotations

import numpy as np

from bandit.core.drift import DriftMetric
from benchmarks.claims import QUICK, Target, claim, progress
from learners.drift.distribution import Distribution, ordered
from learners.drift.features import FeatureReference

SEED = 20261123
FEATURES, REFERENCE, ROWS = 50, 20_000, 1_000
SHIFT = 0.3
RUNS = 5 if QUICK else 400
ABSURD = 1e9


def main() -> None:
    """Print the claims."""
    rng = np.random.default_rng(SEED)
    names = [f"feature_{i}" for i in range(FEATURES)]
    told = {metric: np.zeros(2, dtype=int) for metric in (DriftMetric.KS, DriftMetric.PSI)}
    significant = 0
    for _ in range(RUNS):
        reference = FeatureReference.of(rng.normal(size=(REFERENCE, FEATURES)), names)
        window = rng.normal(size=(ROWS, FEATURES))
        window[:, 0] += SHIFT
        for check in reference.check(window):
            if check.metric in told:
                told[check.metric][int(check.subject != names[0])] += check.drifted
                is_psi = check.metric is DriftMetric.PSI and check.subject == names[0]
                significant += is_psi and check.detail["p_adjusted"] <= 0.05
    for metric, (right, wrong) in told.items():
        progress(f"{metric}: the shifted one in {right} of {RUNS}, others {wrong} times in all")
    progress(f"psi: significant in {significant} of {RUNS}, and under its practical limit of 0.2")
    right, wrong = told[DriftMetric.KS].tolist()
    rate("drift.power.ks_shift_of_0.3", right / RUNS, yardstick=0.9, side=Target.AT_LEAST)
    rate(
        "drift.power.psi_p_value_shift_of_0.3",
        significant / RUNS,
        yardstick=0.9,
        side=Target.AT_LEAST,
    )
    false = (wrong + told[DriftMetric.PSI][1]) / (RUNS * (FEATURES - 1))
    rate("drift.power.others_told_too", false, yardstick=0.05, side=Target.AT_MOST)
    outlier(rng)


def outlier(rng: np.random.Generator) -> None:
    """Claim how much of PSI one absurd value takes away, and of the same over fresh bins."""
    reference = rng.normal(size=REFERENCE)
    frozen = Distribution.of(reference)
    window = rng.normal(size=ROWS) + SHIFT
    spoilt = window.copy()
    spoilt[0] = ABSURD
    before, after = (frozen.psi(ordered(rows)).value for rows in (window, spoilt))
    fresh = [equal_width_psi(reference, rows) for rows in (window, spoilt)]
    progress(f"psi {before:.4f}, with one value of {ABSURD:g} {after:.4f}")
    progress(f"over ten bins of equal width from both: {fresh[0]:.4f}, then {fresh[1]:.6f}")
    claim(
        "drift.power.psi_with_an_outlier",
        ours=f"{abs(after / before - 1):.4f}",
        yardstick=f"{abs(fresh[1] / fresh[0] - 1):.4f}",
        ratio=abs(after / before - 1) / 0.05,
        side=Target.AT_MOST,
        target=1.0,
    )


def equal_width_psi(reference: np.ndarray, window: np.ndarray) -> float:
    """PSI as it is often computed: bins of equal width over whatever has come."""
    edges = np.histogram_bin_edges(np.concatenate([reference, window]), 10)
    parts = [np.histogram(rows, edges)[0] / len(rows) + 1e-4 for rows in (window, reference)]
    return float(((parts[0] - parts[1]) * np.log(parts[0] / parts[1])).sum())


def rate(name: str, found: float, *, yardstick: float, side: Target) -> None:
    """Claim that a rate is on the right side of its bar."""
    claim(
        name,
        ours=f"{found:.4f}",
        yardstick=f"{yardstick:.2f}",
        ratio=found / yardstick,
        side=side,
        target=1.0,
    )


if __name__ == "__main__":
    main()
