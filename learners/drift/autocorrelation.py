"""How many independent rows a series is worth."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

Floats = NDArray[np.float64]

ROWS_MAX: Final = 2**17
"""Newest rows that the time is measured on: more cost memory and change nothing."""

_WINDOW: Final = 5.0  # Sokal's: sum lags up to so many times the time found from them
_ERRORS: Final = 2.0  # a time this few standard errors above 1 is chance


def autocorrelation_time(values: Floats) -> float:
    """Return τ = 1 + 2 Σ r(k) of a series in time order, 1 or more: n rows are worth n / τ.

    The sum ends at the first lag that is 5 τ or more, as later lags add noise alone. What two
    standard errors of independent rows explain is 1, so that these stay what they are. The values
    have to be finite; 1 for a constant and for fewer than four.

    Source: A. Sokal, "Monte Carlo Methods in Statistical Mechanics" (1997), section 3.

    >>> autocorrelation_time(np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0]))
    1.0
    >>> steps = np.random.default_rng(1).normal(size=20_000)
    >>> slow = np.convolve(steps, np.ones(10), mode="valid")  # r(k) = 1 - k / 10, so τ = 10
    >>> round(autocorrelation_time(slow))
    10
    """
    rows = values[-ROWS_MAX:]
    n = len(rows)
    if n < 4:
        return 1.0
    largest = float(np.abs(rows).max())
    if rows.min() == rows.max():
        return 1.0
    away = rows / largest
    away -= away.mean()
    size = next_fast_len(2 * n, real=True)
    power = np.abs(rfft(away / np.abs(away).max(), size)) ** 2
    covariances = irfft(power, size)[: n // 2]
    times = 2.0 * np.cumsum(covariances / covariances[0]) - 1.0
    enough = np.arange(len(times)) >= _WINDOW * times
    # A series that wanders all along never has enough; its largest time is the cautious one.
    window = int(np.argmax(enough)) if enough.any() else int(np.argmax(times))
    time = float(times[window])
    error = 2.0 * math.sqrt(max(window, 1) / n)  # of the sum, for independent rows
    return time if time - _ERRORS * error > 1.0 else 1.0
