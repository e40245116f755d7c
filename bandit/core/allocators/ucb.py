"""`ucb`: everything to the arm that may be the best, given how little is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bandit.core.allocators.posterior import PRIOR_SPREAD, PRIOR_TRADES, Moments
from bandit.core.allocators.strategy import (
    DayResults,
    all_to_the_best,
    require_champion,
    require_within,
    weighed,
)
from bandit.core.model import PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class Ucb:
    """Upper confidence bounds scaled by the deviation of an arm's results.

        index = mean + width * sigma * sqrt(2 ln(1 + N) / n)

    over the n trades of the arm and the N of all arms: the bound for sigma-sub-Gaussian rewards
    (Lattimore and Szepesvári 2020, "Bandit Algorithms", section 7.1, with delta = 1 / (1 + N)).
    Scaling by the range of the results instead, as UCB1 does, would explore for ever: a range has
    no bound here. Sigma is estimated together with `PRIOR_TRADES` of the prior's, so that three
    alike results are no certainty.
    """

    name: ClassVar[str] = "ucb"
    width: float = 0.7

    def __post_init__(self) -> None:
        """Refuse a width that never or always explores."""
        require_within("width", self.width, 0.01, 10.0)

    def weigh(self, days: DayResults, *, second_moment: float) -> Moments:
        """Count every day in full."""
        return weighed(days, lambda _: 1.0, second_moment=second_moment)

    def shares(
        self,
        arms: Mapping[PolicyName, Moments],
        *,
        champion: PolicyName,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is drawn here
    ) -> dict[PolicyName, float]:
        """Return everything for the highest index; arms without a trade come before all others.

        >>> known = Moments(n=400, total=80.0, squares=800.0)
        >>> arms = {PolicyName("old"): known, PolicyName("new"): Moments(n=0, total=0, squares=0)}
        >>> Ucb().shares(arms, champion=PolicyName("old"), rng=np.random.default_rng(1))
        {'old': 0.0, 'new': 1.0}
        """
        require_champion(arms, champion)
        surprise = 2.0 * math.log1p(math.fsum(moments.n for moments in arms.values()))
        return all_to_the_best({p: self._index(moments, surprise) for p, moments in arms.items()})

    def _index(self, moments: Moments, surprise: float) -> float:
        if not moments.n:
            return math.inf
        variance = (PRIOR_TRADES * PRIOR_SPREAD + moments.n * moments.deviation**2) / (
            PRIOR_TRADES + moments.n
        )
        return moments.mean + self.width * math.sqrt(variance) * math.sqrt(surprise / moments.n)
