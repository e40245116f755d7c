"""The strategies by the names that settings, commands and decisions call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from bandit.core.allocators.discounted_thompson import DiscountedThompson
from bandit.core.allocators.epsilon_greedy import EpsilonGreedy
from bandit.core.allocators.fixed import Fixed
from bandit.core.allocators.sliding_window_thompson import SlidingWindowThompson
from bandit.core.allocators.strategy import Strategy
from bandit.core.allocators.thompson import Thompson
from bandit.core.allocators.ucb import Ucb
from bandit.core.errors import InvalidInput, UnknownName

STRATEGIES: Final[Mapping[str, type[Any]]] = {
    kind.name: kind
    for kind in (Thompson, DiscountedThompson, SlidingWindowThompson, Ucb, EpsilonGreedy, Fixed)
}


def strategy(name: str, settings: Mapping[str, float]) -> Strategy:
    """Make the strategy of this name; what `settings` lacks has its default.

    >>> strategy("sliding_window_thompson", {"window_days": 30})
    SlidingWindowThompson(window_days=30)

    Raises `UnknownName`, and `InvalidInput` for a setting it does not have or that is out of range.
    """
    if name not in STRATEGIES:
        raise UnknownName(kind="strategy", name=name, known=tuple(STRATEGIES))
    kind = STRATEGIES[name]
    known = [field.name for field in fields(kind)]
    for setting in settings:
        if setting not in known:
            rule = f"{name} has the settings: {', '.join(known) or 'none'}"
            raise InvalidInput(field="settings", rule=rule, found=setting)
    made: Strategy = kind(**settings)
    return made
