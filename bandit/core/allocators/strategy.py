"""What a strategy is: which of an arm's history it counts, and what shares follow from that.

A strategy knows neither caps nor floors, nor what an arm holds tonight: its shares are what it
would like, and the limits are imposed on them by others. A strategy is a file beside this one and
its line in `registry.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bandit.core.allocators.posterior import PRIOR_TRADES, Moments
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicyName

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LARGEST: Final = 1e100
"""No result is this many units; beyond it, squares would overflow."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DayResults:
    """An arm's trades by the UTC day on which they closed, a column of each number.

    `total` in units, the champion's mean |result|.

    >>> DayResults.of([(0, 0, 1.0)])
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: total: must be what n results can add up to, found [1.0]
    """

    days_ago: Integers
    n: Integers
    total: Floats

    @classmethod
    def of(cls, days: Iterable[tuple[int, int, float]]) -> DayResults:
        """Take days one by one: how many ago, how many trades, what they came to.

        Days come in any order, and may come in parts.
        """
        days_ago, n, total = list(zip(*days, strict=True)) or ((), (), ())
        return cls(
            days_ago=np.array(days_ago, dtype=np.int64),
            n=np.array(n, dtype=np.int64),
            total=np.array(total, dtype=np.float64),
        )

    def __post_init__(self) -> None:
        """Refuse what no day can have brought."""
        for name in ("days_ago", "n"):
            found = getattr(self, name)
            wrong = (found < 0) | (found > 10**12)
            if wrong.any():
                rule = "must lie in 0..10^12"
                raise InvalidInput(field=name, rule=rule, found=found[wrong].tolist())
        wrong = ~(np.abs(self.total) <= LARGEST * self.n)  # written so that NaN fails too
        if wrong.any():
            rule = "must be what n results can add up to"
            raise InvalidInput(field="total", rule=rule, found=self.total[wrong].tolist())


class Strategy(Protocol):
    """A rule that shares traffic by results.

    Frozen: its fields are its settings, checked when it is made.
    """

    name: ClassVar[str]

    def weigh(self, days: DayResults, *, second_moment: float) -> Moments:
        """Return what counts of an arm's history, and how much.

        Linear in the days. `second_moment` is the mean squared result of a trade, in units, over
        the arm's whole life: days do not keep their squares.
        """
        ...

    def shares(
        self, arms: Mapping[PolicyName, Moments], *, champion: PolicyName, rng: np.random.Generator
    ) -> dict[PolicyName, float]:
        """Return a share for every arm, in their order: each in 0..1, together one.

        The same generator state gives the same shares. Raises `InvalidInput` where the champion
        is not among the arms.
        """
        ...


def weighed(days: DayResults, weight: Callable[[int], float], *, second_moment: float) -> Moments:
    """Sum the days up, each weighed by how many days ago it was; their order does not matter.

    Squares are never less than the totals demand: a window may be wilder than the life it is of.

    >>> days = DayResults.of([(0, 4, 2.0), (9, 4, -6.0)])
    >>> found = weighed(days, lambda days_ago: 1.0 if days_ago < 5 else 0.5, second_moment=2.0)
    >>> found.n, found.total, found.squares
    (6.0, -1.0, 12.0)
    """
    if not 0.0 <= second_moment <= LARGEST:
        rule = "must be at least 0 and finite"
        raise InvalidInput(field="second_moment", rule=rule, found=second_moment)
    weights = np.array([weight(ago) for ago in days.days_ago.tolist()])
    n, total = (math.fsum((weights * each).tolist()) for each in (days.n, days.total))
    least = total * total / n if n else 0.0
    return Moments(n=n, total=total if n else 0.0, squares=max(n * second_moment, least))


def believed_mean(moments: Moments) -> float:
    """Return the mean result after the prior: that of few trades is not far from zero.

    >>> believed_mean(Moments(n=25, total=10.0, squares=50.0))
    0.2
    """
    return moments.total / (moments.n + PRIOR_TRADES)


def all_to_the_best(scores: Mapping[PolicyName, float]) -> dict[PolicyName, float]:
    """Share everything among the arms with the highest score, alike.

    >>> all_to_the_best({PolicyName("a"): 0.1, PolicyName("b"): 0.3, PolicyName("c"): 0.3})
    {'a': 0.0, 'b': 0.5, 'c': 0.5}
    """
    best = max(scores.values())
    found = sum(score == best for score in scores.values())
    return {policy: 1.0 / found if score == best else 0.0 for policy, score in scores.items()}


def require_champion(arms: Mapping[PolicyName, Moments], champion: PolicyName) -> None:
    """Raise `InvalidInput` where the champion is not among the arms."""
    if champion not in arms:
        rule = f"must be one of the arms: {', '.join(arms)}"
        raise InvalidInput(field="champion", rule=rule, found=champion)


def require_within(name: str, value: float, low: float, high: float) -> None:
    """Raise `InvalidInput` where a setting lies outside of `low`..`high`."""
    if not low <= value <= high:
        raise InvalidInput(field=name, rule=f"must lie in {low:g}..{high:g}", found=value)
