"""Thompson's rule on returns: an arm's share is the probability that it is the best one.

The mean of an arm's results, in units, has a normal-inverse-gamma posterior (Murphy 2007,
"Conjugate Bayesian analysis of the Gaussian distribution", section 6). It is sampled from a
generator that is passed in, so that a night can be derived again from the seed it stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicyName

DRAWS: Final = 1000
PRIOR_TRADES: Final = 25.0
"""How many trades of mean zero the prior is worth."""

PRIOR_SPREAD: Final = 2.0
"""The variance the prior expects: the mean |result| is one unit, its square about two."""

_PRIOR_SHAPE: Final = 2.0


class ResultKind(StrEnum):
    """What an arm's results are: earned by its trades, or told of what it would have earned."""

    LIVE = "live"
    PAPER = "on paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums over an arm's results of one kind, in units; discounted ones count less than one each.

    >>> Moments(n=2, total=1.0, squares=5.0).mean
    0.5
    """

    n: float
    total: float
    squares: float
    kind: ResultKind = ResultKind.LIVE

    def __post_init__(self) -> None:
        """Refuse sums that no results can have."""
        if not 0.0 <= self.n < math.inf:
            raise InvalidInput(field="n", rule="must be finite, at least 0", found=self.n)
        if not math.isfinite(self.total):
            raise InvalidInput(field="total", rule="must be finite", found=self.total)
        least = self.total * self.total / self.n if self.n else 0.0
        if not least * (1.0 - 1e-9) <= self.squares < math.inf:
            rule = "must be at least total² / n and finite"
            raise InvalidInput(field="squares", rule=rule, found=self.squares)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Moments:
        """Return the sums that a night stored; one of an older release counted live results.

        >>> Moments.from_json({"n": 2, "total": 1.0, "squares": 5.0}).kind
        <ResultKind.LIVE: 'live'>
        """
        kind = ResultKind(stored.get("kind", ResultKind.LIVE))
        return cls(**{**stored, "kind": kind})

    @property
    def mean(self) -> float:
        """Mean result; 0 without any."""
        return self.total / self.n if self.n else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of the results about their mean; 0 without any."""
        if not self.n:
            return 0.0
        return math.sqrt(max(0.0, self.squares / self.n - self.mean * self.mean))


def drawn_means(moments: Moments, *, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw what an arm's mean result may be, `draws` times."""
    n, mean = moments.n, moments.mean
    weight = PRIOR_TRADES + n
    centre = moments.total / weight
    shape = _PRIOR_SHAPE + n / 2.0
    spread = (
        PRIOR_SPREAD
        + 0.5 * max(0.0, moments.squares - n * mean * mean)
        + PRIOR_TRADES * n * mean * mean / (2.0 * weight)
    )
    scale = math.sqrt(spread / (shape * weight))
    return centre + scale * rng.standard_t(2.0 * shape, draws)


def best_shares(
    arms: Mapping[PolicyName, Moments], *, rng: np.random.Generator, draws: int = DRAWS
) -> dict[PolicyName, float]:
    """Return how likely each arm is the best: shares that sum to one, arms in their order.

    >>> good, bad = Moments(n=500, total=150.0, squares=900.0), Moments(n=500, total=-50.0,
    ...                                                               squares=900.0)
    >>> shares = best_shares({PolicyName("old"): bad, PolicyName("new"): good},
    ...                      rng=np.random.default_rng(1))
    >>> shares["new"] > 0.95, round(sum(shares.values()), 12)
    (True, 1.0)
    """
    sampled = np.stack([drawn_means(m, draws=draws, rng=rng) for m in arms.values()])
    wins = np.bincount(sampled.argmax(axis=0), minlength=len(arms))
    return {policy: int(won) / draws for policy, won in zip(arms, wins, strict=True)}
