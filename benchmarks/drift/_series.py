"""Series of which the truth is known: autocorrelated rows that never change, and ones that do."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.signal import lfilter

Floats = NDArray[np.float64]


def autoregressive(rng: np.random.Generator, n: int, width: int, *, rho: float) -> Floats:
    """Rows (n, width) of independent AR(1) series with mean 0 and variance 1, from their middle."""
    before = math.ceil(20.0 / (1.0 - rho))
    noise = rng.normal(size=(before + n, width)) * math.sqrt(1.0 - rho * rho)
    rows: Floats = lfilter([1.0], [1.0, -rho], noise, axis=0)[before:]
    return rows


def shifted(rows: Floats, *, kl: float) -> Floats:
    """Move the mean of unit Gaussian rows along the diagonal, as far as `kl` nats."""
    width = rows.shape[1]
    return rows + math.sqrt(2.0 * kl / width)


def widened(rows: Floats, *, kl: float) -> Floats:
    """Widen unit Gaussian rows in all directions alike, by `kl` nats."""
    width = rows.shape[1]
    variance = brentq(lambda s: width * (s - 1.0 - math.log(s)) / 2.0 - kl, 1.0, 50.0)
    return rows * math.sqrt(float(variance))
