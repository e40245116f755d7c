"""How often the best of a search passes: among policies of pure noise, and with one real edge."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.learners._searches import best_of, noise

SEED = 20260315
BELIEVED = 0.95
DAYS, FREEDOM = 500, 4.0
SEARCHES = 100 if QUICK else 4000
# The mean of the planted policy in standard errors of a mean: what can be told from noise at all.
EDGES = (4.0, 5.0, 6.0, 7.0)


def main() -> None:
    """Print a claim for each size of a search."""
    progress(f"{SEARCHES} searches of {DAYS} days each, Student-t({FREEDOM:g}), seed {SEED}")
    for policies in (2, 5, 10, 50, 200):
        alone, deflated = _passes(policies)
        error = math.sqrt(deflated * (1 - deflated) / SEARCHES)
        progress(f"{policies} policies: alone {alone:.4f}, deflated {deflated:.4f} ± {error:.4f}")
        claim(
            f"learners.deflation.noise.{policies}_policies",
            ours=f"{deflated:.4f}",
            yardstick=f"{1 - BELIEVED:.2f}",
            ratio=deflated / (1 - BELIEVED),
            side=Target.AT_MOST,
            target=1.0,
        )
        if policies == 50:
            claim(
                "learners.deflation.undeflated.50_policies",
                ours=f"{alone:.4f}",
                yardstick=f"{1 - BELIEVED:.2f}",
                ratio=alone / (1 - BELIEVED),
                side=Target.AT_LEAST,
                target=10.0,
            )
    for edge in EDGES:
        found = _found(edge)
        progress(f"an edge of {edge:g} standard errors among 50 passes in {found:.4f}")
    claim(
        "learners.deflation.planted.50_policies",
        ours=f"{found:.4f}",
        yardstick="0.95",
        ratio=found / 0.95,
        side=Target.AT_LEAST,
        target=1.0,
    )


def _passes(policies: int) -> tuple[float, float]:
    """Return how often the best of pure noise passes, alone and deflated."""
    rng = np.random.default_rng([SEED, policies])
    best = [
        best_of(noise(rng, policies=policies, days=DAYS, freedom=FREEDOM)) for _ in range(SEARCHES)
    ]
    alone = sum(found.alone >= BELIEVED for found in best)
    return alone / SEARCHES, sum(found.deflated >= BELIEVED for found in best) / SEARCHES


def _found(edge: float) -> float:
    """Return how often the best of 50 passes of which one has an edge."""
    rng = np.random.default_rng([SEED, 50, int(10 * edge)])
    passed = 0
    for _ in range(SEARCHES // 4):
        returns = noise(rng, policies=50, days=DAYS, freedom=FREEDOM)
        returns[0] += edge * 0.01 * math.sqrt(FREEDOM / (FREEDOM - 2) / DAYS)
        passed += best_of(returns).deflated >= BELIEVED
    return passed / (SEARCHES // 4)


if __name__ == "__main__":
    main()
