"""`sliding_window_thompson`: Thompson shares on the last days alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bandit.core.allocators.posterior import Moments, best_shares
from bandit.core.allocators.strategy import DayResults, require_champion, require_within, weighed
from bandit.core.model import PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindowThompson:
    """Probability matching on the results of the last `window_days`, today included.

    Trovò et al. 2020, "Sliding-Window Thompson Sampling for Non-Stationary Settings" (JAIR 68). An
    arm without trades in the window is as unknown as a new one, and is tried again.
    """

    name: ClassVar[str] = "sliding_window_thompson"
    window_days: float = 90.0

    def __post_init__(self) -> None:
        """Refuse a window under a day or over ten years."""
        require_within("window_days", self.window_days, 1.0, 3650.0)

    def weigh(self, days: DayResults, *, second_moment: float) -> Moments:
        """Count the days of the window in full and no other.

        >>> week = DayResults.of([(6, 3, 1.5), (7, 9, 9.0)])
        >>> newest = Moments(n=3.0, total=1.5, squares=6.0)
        >>> SlidingWindowThompson(window_days=7).weigh(week, second_moment=2.0) == newest
        True
        """
        return weighed(days, lambda ago: float(ago < self.window_days), second_moment=second_moment)

    def shares(
        self, arms: Mapping[PolicyName, Moments], *, champion: PolicyName, rng: np.random.Generator
    ) -> dict[PolicyName, float]:
        """Return how likely each arm is the best, by the window."""
        require_champion(arms, champion)
        return best_shares(arms, rng=rng)
