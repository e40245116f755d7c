"""Detectors that may be looked at every night: decay, failures, a skewed draw.

Each may be looked at at any time, as often as one likes. Two are natural logarithms of e-values,
which exceed log(1 / alpha) falsely with a probability of alpha at most; `decay` is a statistic of
its own, which reaches A falsely once in A days at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, logsumexp

from bandit.core.errors import InvalidInput
from bandit.core.evidence import BETS, STEP

_WORSE: Final = (1.5, 2.0, 3.0, 5.0, 10.0)
PRIOR_DRAWS: Final = 100.0

CERTAIN: Final = 1e6
"""The log e-value of what no lawful draw does."""

LEVEL_MAX: Final = 1e9
"""Levels of decay beyond this, a few million years, are told as this."""


def decay(wealth: ArrayLike) -> float:
    """Return how strongly days of bets speak for a change, as a number of days.

    `wealth` are the steps that each day's decisions added to the log-wealth of every bet, oldest
    day first: shape (days, bets). The bets must be expected to lose while nothing has changed. A
    mixture e-detector in the Shiryaev-Roberts form (Shin, Ramdas, Rinaldo 2022, arXiv 2203.03532):
    every day starts one more e-process, R = (R + 1) L, so a change is found as fast after years as
    on the first day. Without one the level takes at least A days on average to reach A, whatever
    the market does; nearly so, for a factor is held at `evidence.FACTOR_MIN`.

    >>> round(decay([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]), 9)
    2.0
    """
    steps = np.asarray(wealth, dtype=np.float64).reshape(-1, len(BETS)) / STEP
    if not steps.size:
        return 0.0
    # What a bet has come to that began on each day: R is their sum.
    begun = np.cumsum(steps[::-1], axis=0)
    most = float(begun.max())  # what no exponential of may overflow
    level = most + math.log(float(np.exp(begun - most).sum()) / len(BETS))
    return math.exp(min(level, math.log(LEVEL_MAX)))


def exceedance(failures: int, n: int, *, limit: float) -> float:
    """Return the log e-value of "more than `limit` of all requests fail".

    A mixture of likelihood ratios against rates above the limit: none of them is expected to grow
    at or below it. Late answers are failures too: "p99 > 200 ms" is `failures` = answers later
    than that and `limit` = 0.01.

    >>> exceedance(0, 1000, limit=0.01) < 0 < exceedance(40, 1000, limit=0.01)
    True

    Raises `InvalidInput` for counts that cannot be and for a limit outside 0 .. 0.5.
    """
    if not 0 <= failures <= n:
        rule = f"must lie between 0 and n = {n}"
        raise InvalidInput(field="failures", rule=rule, found=failures)
    if not 0.0 < limit <= 0.5:
        raise InvalidInput(field="limit", rule="must be above 0 and at most 0.5", found=limit)
    # A rate k times the limit in odds, not in itself, stays a rate.
    odds = np.array(_WORSE) * limit / (1.0 - limit)
    worse = odds / (1.0 + odds)
    ratios = (
        failures * np.log(worse / limit)
        + (n - failures) * np.log1p(-worse)
        - (n - failures) * math.log1p(-limit)
    )
    return float(logsumexp(ratios)) - math.log(len(_WORSE))


def ratio_mismatch(versions: Sequence[tuple[Mapping[str, float], Mapping[str, int]]]) -> float:
    """Return the log e-value of "arms are not drawn as their shares say".

    Each version of an allocation gives its shares, which sum to one, and the units each arm got
    under it. Dirichlet-multinomial against multinomial (Lindon and Malek 2022, arXiv 2011.03567,
    equation 6), the product over versions; the prior is worth `PRIOR_DRAWS` draws at the shares.

    >>> even = {"a": 0.5, "b": 0.5}
    >>> ratio_mismatch([(even, {"a": 500, "b": 500})]) < 0
    True
    >>> ratio_mismatch([(even, {"a": 620, "b": 380})]) > math.log(20)
    True

    A unit of an arm that had no share settles it: `CERTAIN`. Raises `InvalidInput` for shares that
    do not sum to one.
    """
    return math.fsum(_mismatch(shares, units) for shares, units in versions)


def _mismatch(shares: Mapping[str, float], units: Mapping[str, int]) -> float:
    arms = [arm for arm, share in shares.items() if share > 0.0]
    share = np.array([shares[arm] for arm in arms])
    if not math.isclose(share.sum(), 1.0, abs_tol=1e-9):
        raise InvalidInput(field="shares", rule="must sum to 1", found=float(share.sum()))
    if any(n and arm not in arms for arm, n in units.items()):
        return CERTAIN
    n = np.array([units.get(arm, 0) for arm in arms], dtype=np.float64)
    prior = PRIOR_DRAWS * share
    gained = gammaln(prior + n) - gammaln(prior) - n * np.log(share)
    return float(gained.sum() + gammaln(PRIOR_DRAWS) - gammaln(PRIOR_DRAWS + n.sum()))
