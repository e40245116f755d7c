"""Does every agent find an edge that is there, and does none live on one that is not?

Fresh synthetic markets, one a seed: in some the first feature tells the next return, in the others
nothing does. Agents train on the first part and are measured on the rest, after costs.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.learners._curves import curve
from benchmarks.learners._planted import market_of, mean_return, planted
from learners.network import Algorithm
from learners.training_plan import TrainingPlan

SEED = 51_200_000
SEEDS = 1 if QUICK else 20
BARS, TRAINED = 12_000, 9_000
STEPS = 4_096 if QUICK else 60_000
EDGE = 0.0012
SIGMAS = 2.0


def earned(algorithm: Algorithm, *, edge: float, seed: int) -> float:
    """Return what a trained agent earns in an episode of bars that it has not seen."""
    candles, features = planted(bars=BARS, edge=edge, seed=seed)
    score = partial(mean_return, candles=candles, features=features, bars=range(TRAINED, BARS))
    plan = TrainingPlan(algorithm=algorithm, seed=seed % 2**32, total_steps=STEPS)
    market = market_of(candles, features, range(TRAINED))
    return curve(plan, market, score, points=1).scores[-1]


def main() -> None:
    """Train every agent in every market and print the claims."""
    for algorithm in Algorithm:
        with_edge, noise = (
            np.array([earned(algorithm, edge=edge, seed=SEED + i) for i in range(SEEDS)])
            for edge in (EDGE, 0.0)
        )
        for name, found in (("edge", with_edge), ("noise", noise)):
            progress(f"{algorithm.value} {name}: {np.round(100 * found, 2).tolist()} % an episode")
        share = float(np.mean(with_edge > 0.0))
        claim(
            f"learners.planted_edge.found.{algorithm.value}",
            ours=f"{share:.2f}",
            yardstick="1",
            ratio=share,
            side=Target.AT_LEAST,
            target=1.0,
        )
        error = float(np.std(noise, ddof=1)) / math.sqrt(SEEDS) if SEEDS > 1 else math.inf
        claim(
            f"learners.planted_edge.noise.{algorithm.value}",
            ours=f"{100 * noise.mean():.2f}%",
            yardstick="0%",
            ratio=float(noise.mean()) / error,
            side=Target.AT_MOST,
            target=SIGMAS,
        )


if __name__ == "__main__":
    main()
