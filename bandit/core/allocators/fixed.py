"""`fixed`: shares that no result moves, a clean A/B test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.strategy import (
    DayResults,
    require_champion,
    require_within,
    weighed,
)
from bandit.core.model import PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Every challenger gets `challenger_share`, or an equal share of all where that is less.

    So the champion never gets less than a challenger. 0.5 splits one challenger and the champion
    evenly, which tells them apart soonest; the default, the tenth that a challenger starts with,
    risks least while it does.
    """

    name: ClassVar[str] = "fixed"
    challenger_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no share of a challenger."""
        require_within("challenger_share", self.challenger_share, 0.001, 0.5)

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
        """Return the same shares whatever the arms earned.

        >>> nothing = Moments(n=0, total=0.0, squares=0.0)
        >>> arms = {PolicyName("old"): nothing, PolicyName("new"): nothing}
        >>> Fixed(challenger_share=0.25).shares(arms, champion=PolicyName("old"),
        ...                                     rng=np.random.default_rng(1))
        {'old': 0.75, 'new': 0.25}
        """
        require_champion(arms, champion)
        share = min(self.challenger_share, 1.0 / len(arms))
        left = 1.0 - share * (len(arms) - 1)
        return {policy: left if policy == champion else share for policy in arms}
