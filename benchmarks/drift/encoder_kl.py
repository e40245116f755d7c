"""How often the encoder's calibrated KL is flagged where nothing changed, and where it did.

Embeddings are AR(1) in each of eight directions; the reference is as long as ten windows and as
twenty. Beside it stands the bare rule, a Gaussian KL above 0.30, on the same rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.drift._series import autoregressive, shifted, widened
from learners.drift.encoder import EncoderReference

SEED = 20261124
WINDOW, WIDTH = 2_000, 8
BARE_LIMIT = 0.30
TRUE_KL = 0.5
RUNS = 3 if QUICK else 400
REFERENCES = (10 * WINDOW,) if QUICK else (10 * WINDOW, 20 * WINDOW)

Floats = NDArray[np.float64]


class Flags(NamedTuple):
    """Whether ours and the bare rule flag the same rows."""

    ours: bool
    bare: bool


def flags(reference: EncoderReference, rows: Floats) -> Flags:
    """Ask both rules."""
    check = reference.check(rows)
    return Flags(ours=check.drifted, bare=reference.raw_kl(rows) > BARE_LIMIT)


def measure(rho: float, length: int) -> dict[str, list[float]]:
    """Return how often ours and the bare rule flag the same, a shifted and a widened process."""
    rng = np.random.default_rng([SEED, round(1000 * rho), length])
    found: dict[str, list[Flags]] = {"same": [], "shifted": [], "widened": []}
    raws, medians, p99s = [], [], []
    for _ in range(RUNS):
        reference = EncoderReference.of(autoregressive(rng, length, WIDTH, rho=rho))
        rows = autoregressive(rng, WINDOW, WIDTH, rho=rho)
        found["same"].append(flags(reference, rows))
        found["shifted"].append(flags(reference, shifted(rows, kl=TRUE_KL)))
        found["widened"].append(flags(reference, widened(rows, kl=TRUE_KL)))
        raws.append(reference.raw_kl(rows))
        median, p99 = reference.null(WINDOW)
        medians.append(median)
        p99s.append(p99)
    progress(
        f"AR(1) {rho}, reference of {length}: raw KL of the same {np.mean(raws):.3f} in the mean, "
        f"null median {np.mean(medians):.3f}, p99 {np.mean(p99s):.3f}"
    )
    return {name: np.mean(each, axis=0).tolist() for name, each in found.items()}


def main() -> None:
    """Print the claims."""
    progress(f"{RUNS} references, windows of {WINDOW} rows, seed {SEED}")
    for rho in (0.9, 0.98):
        for length in REFERENCES:
            found = measure(rho, length)
            name = f"drift.encoder_kl.rho_{rho}.reference_of_{length}"
            for what, (ours, bare) in found.items():
                progress(f"{name}: {what} flagged {ours:.4f}, by the bare rule {bare:.4f}")
            ours, bare = found["same"]
            claim(
                f"{name}.false_alarms",
                ours=f"{ours:.4f}",
                yardstick=f"{bare:.4f}",
                ratio=ours / 0.05,
                side=Target.AT_MOST,
                target=1.0,
            )
            # Where rows are worth a hundredth, half a nat is told two times in three, no more.
            bar = 0.9 if rho == 0.9 else 0.6
            for what in ("shifted", "widened"):
                ours, bare = found[what]
                claim(
                    f"{name}.{what}_by_{TRUE_KL}",
                    ours=f"{ours:.4f}",
                    yardstick=f"{bare:.4f}",
                    ratio=ours / bar,
                    side=Target.AT_LEAST,
                    target=1.0,
                )


if __name__ == "__main__":
    main()
