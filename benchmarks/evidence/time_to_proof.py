"""How many opportunities it takes until a better arm is proven: the median over simulated runs.

The champion has a profit factor of 1.3, four challengers share one level of 5 %, and trades cluster
and swing as real ones do. A run that was never proven counts as one that takes for ever.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bandit.core.simulation import REAL, HypotheticalArm
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._paths import Comparison, first_time, paths

RUNS = 20 if QUICK else 400
OPPORTUNITIES = 20_000
SEED = 730_101
FAMILY = 4
ALPHA = 0.05
BETTER = HypotheticalArm(profit_factor=1.7)
ROWS: list[tuple[str, float, dict[str, Any]]] = [
    ("quarter_traffic", 6_500, {"share": 0.25}),
    ("half_traffic", 6_500, {"share": 0.5}),
    ("paper", 1_500, {"common": 0.5}),
]


def main() -> None:
    """Print the claims."""
    for number, (name, allowed, routed) in enumerate(ROWS):
        comparison = Comparison(
            setting=REAL, challenger=BETTER, opportunities=OPPORTUNITIES, **routed
        )
        took = np.concatenate(
            [
                first_time(found[:, :, 0, 0] >= math.log(FAMILY / ALPHA))
                for found in paths(comparison, runs=RUNS, seed=SEED + number)
            ]
        )
        low, middle, high = np.quantile(took, (0.1, 0.5, 0.9), method="nearest").tolist()
        progress(f"{name}: 10 % within {low:.0f}, 90 % within {high:.0f}, {RUNS} runs")
        claim(
            f"evidence.time_to_proof.{name}",
            ours=f"{middle:.0f}",
            yardstick=f"{allowed:.0f}",
            ratio=middle / allowed,
            side=Target.AT_MOST,
            target=1.0,
        )


if __name__ == "__main__":
    main()
