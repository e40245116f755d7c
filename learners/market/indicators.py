"""Indicators with a finite memory: a value depends on its last bars alone, bit for bit.

Every sum over bars runs in one fixed order, from the newest bar back, whatever the length of the
series. So the value of a bar is the same number whether it is computed on years of history or on
the few bars before it. The first bars of a series, whose memory is not full, are NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WILDER_PERIODS = 10  # what is left out of Wilder's endless average weighs less than exp(-10)


def lagged(values: Floats, bars: int) -> Floats:
    """Return the values of `bars` bars ago; NaN where there is none.

    >>> lagged(np.array([1.0, 2.0, 3.0]), 1).tolist()
    [nan, 1.0, 2.0]
    """
    before = np.full(len(values), np.nan)
    before[bars:] = values[: max(len(values) - bars, 0)]
    return before


def moving_average(values: Floats, bars: int) -> Floats:
    """Return the mean of the last `bars` values.

    >>> moving_average(np.array([1.0, 2.0, 6.0]), 2).tolist()
    [nan, 1.5, 4.0]
    """
    return _weighted(values, np.ones(bars)) / bars


def realised_volatility(returns: Floats, bars: int) -> Floats:
    """Return the root of the mean squared return of the last `bars` bars, not annualised.

    The mean return is taken as zero, as is usual for short bars: it is far smaller than the moves.

    >>> realised_volatility(np.array([3.0, -4.0]), 2).round(3).tolist()
    [nan, 3.536]
    """
    squared: Floats = np.sqrt(moving_average(returns * returns, bars))
    return squared


def wilder_memory(period: int) -> int:
    """Return how many values Wilder's average of a period reads here."""
    return WILDER_PERIODS * period


def wilder_average(values: Floats, period: int) -> Floats:
    """Return Wilder's average cut off after `wilder_memory(period)` values.

    Wilder (New Concepts in Technical Trading Systems, 1978) adds a `1 / period` of each new value
    to the rest of the old average, so a value of k bars ago weighs (1 - 1/period)^k. These weights
    are kept and brought to a sum of one; the endless tail, under exp(-10) of the whole, is not.

    >>> wilder_average(np.full(20, 7.0), 2).round(12).tolist()[18:]
    [nan, 7.0]
    """
    weights = (1.0 - 1.0 / period) ** np.arange(wilder_memory(period))
    return _weighted(values, weights / weights.sum())


def directional_movement(high: Floats, low: Floats, period: int) -> tuple[Floats, Floats]:
    """Return Wilder's ADX (0 to 100) and the direction (-1 falling, to 1 rising) of each bar.

    Wilder 1978, chapter on the directional movement system: a bar's +DM is how far its high
    exceeds the last one, its -DM how far its low falls short of it, only the larger of the two
    counts, and never below zero. The direction is (+DI - -DI) / (+DI + -DI), in which the true
    range that divides both cancels; ADX is 100 times the Wilder average of its size. A market
    without movement has direction zero. The memory is `2 * wilder_memory(period)` bars.
    """
    up, down = high - lagged(high, 1), lagged(low, 1) - low
    plus = wilder_average(np.maximum(up, 0.0) * (up > down), period)
    minus = wilder_average(np.maximum(down, 0.0) * (down > up), period)
    direction = quotient(plus - minus, plus + minus, otherwise=0.0)
    return 100.0 * wilder_average(np.abs(direction), period), direction


def average_true_range(high: Floats, low: Floats, close: Floats, period: int) -> Floats:
    """Return Wilder's ATR in quote currency: how far prices move within a bar, gaps included.

    Wilder 1978; the true range is the bar's own, stretched to the close before where that lies
    outside. The memory is `wilder_memory(period) + 1` bars.

    >>> high, low = np.full(30, 11.0), np.full(30, 10.0)
    >>> average_true_range(high, low, np.full(30, 10.5), 2).round(12).tolist()[19:21]
    [nan, 1.0]
    """
    before = lagged(close, 1)
    return wilder_average(np.maximum(high, before) - np.minimum(low, before), period)


def relative_strength(close: Floats, period: int) -> Floats:
    """Return Wilder's RSI, 0 to 100: the part of rises in the average of all moves.

    Wilder 1978; 100 - 100 / (1 + rises / falls), written so that a market without falls needs no
    exception. A market without moves stands at 50. The memory is `wilder_memory(period) + 1` bars.
    """
    moves = close - lagged(close, 1)
    rises = wilder_average(np.maximum(moves, 0.0), period)
    falls = wilder_average(np.maximum(-moves, 0.0), period)
    return 100.0 * quotient(rises, rises + falls, otherwise=0.5)


def quotient(part: Floats, whole: Floats, *, otherwise: float) -> Floats:
    """Return `part / whole`, and `otherwise` where the whole is zero.

    >>> quotient(np.array([1.0, 0.0]), np.array([4.0, 0.0]), otherwise=9.0).tolist()
    [0.25, 9.0]
    """
    quotients = np.full(len(part), otherwise)
    np.divide(part, whole, out=quotients, where=whole != 0)
    return quotients


def _weighted(values: Floats, weights: Floats) -> Floats:
    """Sum the last values, the newest by the first weight, in the same order for every bar."""
    bars = len(values) - len(weights) + 1
    sums = np.full(len(values), np.nan)
    if bars < 1:
        return sums
    total = np.zeros(bars)
    for lag, weight in enumerate(weights):
        newest = len(values) - lag
        total += weight * values[newest - bars : newest]
    sums[-bars:] = total
    return sums
