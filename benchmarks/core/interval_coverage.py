"""How often the 95 % interval of the profit factor holds the true value, on seeded samples."""

from __future__ import annotations

import numpy as np

from bandit.core.profit_factor import profit_factor_interval
from benchmarks.claims import QUICK, Target, claim, progress

SEED = 20260301
PROMISED = 0.95
# Returns in units of their scale: Student-t with four degrees of freedom, a little above 0.
FREEDOM, DRIFT = 4, 0.12


def main() -> None:
    """Print a claim for each length of a trade log."""
    rng = np.random.default_rng(SEED)
    truth = _true_profit_factor(rng, 1_000_000 if QUICK else 20_000_000)
    progress(f"true profit factor {truth:.3f}, seed {SEED}")
    for trades in (30, 150, 600):
        samples = 200 if QUICK else 4000
        held, judged = _held(rng, trades, samples, truth)
        progress(f"{trades} trades: {samples - judged} of {samples} samples have no interval")
        claim(
            f"core.interval.{trades}_trades",
            ours=f"{held / judged:.3f}",
            yardstick=f"{PROMISED}",
            ratio=held / judged / PROMISED,
            side=Target.AT_LEAST,
            target=0.97,
        )


def _returns(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return rng.standard_t(FREEDOM, count) + DRIFT


def _true_profit_factor(rng: np.random.Generator, count: int) -> float:
    returns = _returns(rng, count)
    return float(returns[returns > 0].sum() / -returns[returns < 0].sum())


def _held(rng: np.random.Generator, trades: int, samples: int, truth: float) -> tuple[int, int]:
    """Return in how many samples the interval held the truth, and in how many there was one."""
    found = [profit_factor_interval(_returns(rng, trades).tolist()) for _ in range(samples)]
    judged = [interval for interval in found if interval is not None]
    return sum(interval.low <= truth <= interval.high for interval in judged), len(judged)


if __name__ == "__main__":
    main()
