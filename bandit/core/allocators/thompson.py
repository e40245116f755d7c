"""`thompson`: an arm's share is the probability that it is the best, on all it ever earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bandit.core.allocators.posterior import Moments, best_shares
from bandit.core.allocators.strategy import DayResults, require_champion, weighed
from bandit.core.model import PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class Thompson:
    """Probability matching on the whole history (Thompson 1933), for arms that do not change.

    Arms of which nothing is known share alike, up to the error of the draws.
    """

    name: ClassVar[str] = "thompson"

    def weigh(self, days: DayResults, *, second_moment: float) -> Moments:
        """Count every day in full."""
        return weighed(days, lambda _: 1.0, second_moment=second_moment)

    def shares(
        self, arms: Mapping[PolicyName, Moments], *, champion: PolicyName, rng: np.random.Generator
    ) -> dict[PolicyName, float]:
        """Return how likely each arm is the best."""
        require_champion(arms, champion)
        return best_shares(arms, rng=rng)
