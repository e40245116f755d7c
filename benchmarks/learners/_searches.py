"""Searches among made-up policies: the best of so many, each measured on the same days."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core.multiplicity import (
    ReturnMoments,
    Search,
    deflated_sharpe,
    probabilistic_sharpe,
)

DAYS_PER_YEAR = 365


class Best(NamedTuple):
    """What is believed of the best of a search: alone, and with the luck of all taken off."""

    alone: float
    deflated: float


def noise(
    rng: np.random.Generator, *, policies: int, days: int, freedom: float
) -> NDArray[np.float64]:
    """Return what policies without an edge earn a day, one in a row: Student-t, 0.01 wide."""
    return 0.01 * rng.standard_t(freedom, size=(policies, days))


def best_of(returns: NDArray[np.float64]) -> Best:
    """Keep the policy of the highest Sharpe ratio, and say how far it can be believed."""
    ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    moments = ReturnMoments.of(returns[int(ratios.argmax())].tolist())
    search = Search.of((ratios * DAYS_PER_YEAR**0.5).tolist())
    alone = probabilistic_sharpe(moments)
    deflated = deflated_sharpe(moments, search, periods_per_year=DAYS_PER_YEAR)
    assert alone is not None
    assert deflated is not None
    return Best(alone, deflated)
