"""Whether it matters when outcomes become known, and in which order: it must not.

The challenger's winners close ten times faster than its losers, the champion's losers faster than
its winners, and both arms are the same. Who reads what has closed so far reads mostly winners of
the one and losers of the other. The service counts a day's decisions once their attribution window
has closed. Both are held against the same decisions known at once, on the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bandit.core import evidence
from bandit.core.evidence import Floats, Tally
from bandit.core.simulation import REAL, HypotheticalArm
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._paths import DAY, Comparison, Scored, scored

RUNS = 40 if QUICK else 2000
OPPORTUNITIES = 2_000 if QUICK else 20_000
SEED = 730_601
ALPHA = 0.05
WINDOW = 15
"""Days until a day's decisions count: of the slowest trades about one in seven is still open."""
FAST, SLOW = 15.0, 150.0
"""Mean opportunities until a trade closes."""
SHARE = 0.1
BATCHES = 50

Integers = NDArray[np.int64]


def closing(found: Scored, rng: np.random.Generator) -> Integers:
    """Return the night by which each decision's outcome is known, counted from the first day."""
    quick = found.won == found.chosen
    waited = rng.exponential(np.where(quick, FAST, SLOW))
    decided = np.arange(found.won.shape[1])
    return np.asarray((decided + waited) // DAY, dtype=np.int64)


def ever_proven(scores: Floats, counted: Integers) -> NDArray[np.bool_]:
    """Say of each run whether it was ever proven, where decisions count from these nights on."""
    nights = np.arange(scores.shape[1] // DAY)
    found = []
    for one, when in zip(scores, counted, strict=True):
        order = np.argsort(when, kind="stable")
        steps = evidence.log_factors(one[order])[:, 0, 0]
        wealth = np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)])
        known = np.searchsorted(when[order], nights, side="right")
        reached = evidence.log_e_values(wealth[known]) >= math.log(1.0 / ALPHA)
        found.append(bool(reached.any()))
    return np.array(found)


def rejections() -> Iterator[dict[str, NDArray[np.bool_]]]:
    """Yield, some runs at a time, who was proven in each way of counting."""
    comparison = Comparison(
        setting=REAL,
        challenger=HypotheticalArm(profit_factor=1.3),
        share=SHARE,
        opportunities=OPPORTUNITIES,
    )
    rng = np.random.default_rng(SEED + 1)
    for found in scored(comparison, runs=RUNS, seed=SEED):
        day = np.broadcast_to(np.arange(OPPORTUNITIES) // DAY, found.won.shape)
        mature, known = day + WINDOW + 1, closing(found, rng)
        yield {
            "at_once": ever_proven(found.scores, mature),
            "matured": ever_proven(found.scores, np.maximum(mature, known)),
            "closing_order": ever_proven(found.scores, known),
        }


def disorder() -> int:
    """Count the sums that differ after a permutation, in batches, with corrections between."""
    rng = np.random.default_rng(SEED + 2)
    scores = rng.normal(size=(5000, 2))
    chosen = rng.random(5000) < SHARE
    expected, found = Tally.of(scores, chosen=chosen), Tally()
    for some in np.array_split(rng.permutation(5000), BATCHES):
        wrong = Tally.of(rng.normal(size=(len(some), 2)), chosen=chosen[some])
        found = found + wrong
        found = found - wrong + Tally.of(scores[some], chosen=chosen[some])
    pairs = zip((*expected.scores, *expected.wealth), (*found.scores, *found.wealth), strict=True)
    return sum(ours != theirs for ours, theirs in pairs)


def main() -> None:
    """Print all claims."""
    parts = list(rejections())
    share = {way: float(np.concatenate([p[way] for p in parts]).mean()) for way in parts[0]}
    error = math.sqrt(max(share["at_once"], 1.0 / RUNS) / RUNS)
    progress(f"proven of {RUNS} identical challengers in {OPPORTUNITIES} opportunities: {share}")
    progress(f"standard error {error:.3f}; closing order is what the service does not go by")
    claim(
        "evidence.delays.matured",
        ours=f"{share['matured']:.4f}",
        yardstick=f"{share['at_once']:.4f}",
        ratio=abs(share["matured"] - share["at_once"]) / 0.01,
        side=Target.AT_MOST,
        target=1.0,
    )
    differing = disorder()
    claim(
        "evidence.delays.disorder",
        ours=str(differing),
        yardstick="0",
        ratio=float(differing),
        side=Target.AT_MOST,
        target=0.0,
    )


if __name__ == "__main__":
    main()
