"""The nightly rule as the documents print it, by itself: nothing of ours is in it.

A part of 10 % grows by half on every night on which the newest 150 trades have no smaller profit
factor than the champion's and fell by 3 % at most, until it is 60 %. Nothing takes it back.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

START, STEP, CEILING = 0.1, 1.5, 0.6
TRADES_MIN, WINDOW, FALL_MAX_PERCENT = 30, 150, 3.0


class Baseline(StrEnum):
    """What the documents leave open: which of the champion's trades `pf_prod` is of."""

    NEWEST = "its newest 150"
    SAME_TIME = "those since the first of the challenger's newest 150"


def reaches_ceiling(
    results: NDArray[np.float64], *, equity_fraction: float, baseline: Baseline, seed: int
) -> bool:
    """Say whether the challenger, the first of two arms, ever gets 60 % of the traffic.

    `results` are returns of the shape (2, days, opportunities a day), each known the same night.
    """
    arms, days, per_day = results.shape
    goes_to_challenger = np.random.default_rng(seed).random((days, per_day))
    told = results.reshape(arms, -1)
    is_challenger = np.zeros(days * per_day, dtype=bool)
    share = START
    for day in range(days):
        today = slice(day * per_day, (day + 1) * per_day)
        is_challenger[today] = goes_to_challenger[day] < share
        if may_grow(
            told[:, : today.stop],
            is_challenger[: today.stop],
            equity_fraction=equity_fraction,
            baseline=baseline,
        ):
            share = min(CEILING, share * STEP)
    return share >= CEILING


def may_grow(
    told: NDArray[np.float64],
    is_challenger: NDArray[np.bool_],
    *,
    equity_fraction: float,
    baseline: Baseline,
) -> bool:
    """Say whether the challenger's trades so far, and its champion's, let its part grow.

    `told` are returns of the shape (2, opportunities), `is_challenger` who took each of them.
    """
    own, others = np.flatnonzero(is_challenger), np.flatnonzero(~is_challenger)
    newest = own[-WINDOW:]
    if baseline is Baseline.NEWEST:
        others = others[-WINDOW:]
    elif len(newest):
        others = others[others >= newest[0]]
    if min(len(own), len(others)) < TRADES_MIN:
        return False
    mine = told[0, newest]
    is_better = profit_factor(mine) >= profit_factor(told[1, others])
    return is_better and fall_percent(mine * equity_fraction) <= FALL_MAX_PERCENT


def profit_factor(results: NDArray[np.float64]) -> float:
    """Return gains over losses."""
    return float(results[results > 0].sum() / -results[results < 0].sum())


def fall_percent(results: NDArray[np.float64]) -> float:
    """Return how far these, compounded, fell from their highest point."""
    equity = np.cumprod(np.concatenate([[1.0], 1.0 + results]))
    return float((1.0 - equity / np.maximum.accumulate(equity)).max() * 100.0)
