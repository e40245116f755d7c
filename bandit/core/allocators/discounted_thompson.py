"""`discounted_thompson`: Thompson shares that forget slowly, for markets that change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bandit.core.allocators.posterior import Moments, best_shares
from bandit.core.allocators.strategy import DayResults, require_champion, require_within, weighed
from bandit.core.model import PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscountedThompson:
    """Probability matching on results that halve in weight every `half_life_days`.

    Raj and Kalyani 2017 (arXiv 1707.09727), here for the mean of returns. A shorter
    half-life follows changes faster and pays for it where nothing changes: what is forgotten is
    explored again.
    """

    name: ClassVar[str] = "discounted_thompson"
    half_life_days: float = 140.0

    def __post_init__(self) -> None:
        """Refuse a half-life under a day or over ten years."""
        require_within("half_life_days", self.half_life_days, 1.0, 3650.0)

    def weigh(self, days: DayResults, *, second_moment: float) -> Moments:
        """Count a day half as much for every half-life since.

        >>> spring = DayResults.of([(140, 10, 5.0)])
        >>> halved = Moments(n=5.0, total=2.5, squares=10.0)
        >>> DiscountedThompson().weigh(spring, second_moment=2.0) == halved
        True
        """
        return weighed(
            days, lambda ago: 0.5 ** (ago / self.half_life_days), second_moment=second_moment
        )

    def shares(
        self, arms: Mapping[PolicyName, Moments], *, champion: PolicyName, rng: np.random.Generator
    ) -> dict[PolicyName, float]:
        """Return how likely each arm is the best, by what is remembered."""
        require_champion(arms, champion)
        return best_shares(arms, rng=rng)
