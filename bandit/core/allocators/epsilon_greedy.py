"""`epsilon_greedy`: almost everything to the best so far, a little to everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.strategy import (
    DayResults,
    all_to_the_best,
    believed_mean,
    require_champion,
    require_within,
    weighed,
)
from bandit.core.model import PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonGreedy:
    """A part `epsilon` is shared alike, the rest goes to the arm with the highest mean result.

    Sutton and Barto 2018, section 2.2. The mean is that after the prior, so that a lucky first
    week does not take everything; arms that nobody knows of all have a mean of zero.
    """

    name: ClassVar[str] = "epsilon_greedy"
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        require_within("epsilon", self.epsilon, 0.0, 1.0)

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
        """Return the equal parts of `epsilon`, with the rest added for the best.

        >>> arms = {PolicyName("old"): Moments(n=400, total=80.0, squares=800.0),
        ...         PolicyName("new"): Moments(n=50, total=-10.0, squares=100.0)}
        >>> EpsilonGreedy(epsilon=0.25).shares(arms, champion=PolicyName("old"),
        ...                                    rng=np.random.default_rng(1))
        {'old': 0.875, 'new': 0.125}
        """
        require_champion(arms, champion)
        best = all_to_the_best({p: believed_mean(moments) for p, moments in arms.items()})
        alike = self.epsilon / len(arms)
        return {policy: alike + (1.0 - self.epsilon) * share for policy, share in best.items()}
