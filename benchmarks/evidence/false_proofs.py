"""How often an arm that is not better is ever proven, looked at after every trade for years.

Each line is the share of simulated comparisons in which the e-value ever reached 1 / alpha at
alpha = 5 %, beside the share that may. Seeds are those of this script alone: nothing was tuned on
them. The tolerance of a share is its binomial standard error, printed on the way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bandit.core.simulation import HARD, IID, REAL, HypotheticalArm, Setting
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._paths import Comparison, paths

RUNS = 20 if QUICK else 1000
OPPORTUNITIES = 2_000 if QUICK else 20_000
SEED = 730_001
ALPHA = 0.05
IDENTICAL = HypotheticalArm(profit_factor=1.3)
SKEWED = HypotheticalArm(profit_factor=1.3, win_rate=0.77)
ROWS = [
    *(("identical", IDENTICAL, setting, 0.05) for setting in (IID, REAL, HARD)),
    ("skewed", SKEWED, REAL, 0.05),
    ("skewed", SKEWED, HARD, 0.075),
]
WAYS: dict[str, dict[str, Any]] = {
    "fixed": {"share": 0.5},
    "adaptive": {"share": None},
    "paper": {"common": 0.5},
}


def ever_proven(comparison: Comparison, *, seed: int) -> tuple[float, float]:
    """Return the share of runs ever proven on the mean, and on the profit factor."""
    reached = [
        (found[:, :, :, 0].max(axis=1) >= math.log(1.0 / ALPHA))
        for found in paths(comparison, runs=RUNS, seed=seed)
    ]
    mean, factor = np.concatenate(reached).mean(axis=0).tolist()
    return mean, factor


def measure(
    name: str, arm: HypotheticalArm, setting: Setting, allowed: float, *, seed: int
) -> None:
    """Print the claims of one arm in one setting."""
    for way, routed in WAYS.items():
        comparison = Comparison(
            setting=setting, challenger=arm, opportunities=OPPORTUNITIES, **routed
        )
        mean, factor = ever_proven(comparison, seed=seed)
        error = math.sqrt(max(mean, 0.01) * (1.0 - mean) / RUNS)
        progress(
            f"{name} {setting.name} {way}: on the mean {mean:.3f} +- {error:.3f}, "
            f"on the profit factor {factor:.3f}, {RUNS} runs of {OPPORTUNITIES}"
        )
        claim(
            f"evidence.false_proof.{name}.{setting.name}.{way}",
            ours=f"{mean:.3f}",
            yardstick=f"{allowed:.3f}",
            ratio=mean / allowed,
            side=Target.AT_MOST,
            target=1.0,
        )


def main() -> None:
    """Print all claims."""
    for number, (name, arm, setting, allowed) in enumerate(ROWS):
        measure(name, arm, setting, allowed, seed=SEED + number)


if __name__ == "__main__":
    main()
