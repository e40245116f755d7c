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

    Settings of the others are none of its concern: an experiment stores them all.

    >>> strategy("sliding_window_thompson", {"window_days": 30, "epsilon": 0.2})
    SlidingWindowThompson(window_days=30)

    Raises `UnknownName`, and `InvalidInput` for a setting that no strategy has or out of range.
    """
    if name not in STRATEGIES:
        raise UnknownName(kind="strategy", name=name, known=tuple(STRATEGIES))
    known = {kind: [field.name for field in fields(kind)] for kind in STRATEGIES.values()}
    of_any = sorted({setting for own in known.values() for setting in own})
    for setting in settings:
        if setting not in of_any:
            rule = f"must be one of {', '.join(of_any)}"
            raise InvalidInput(field="settings", rule=rule, found=setting)
    kind = STRATEGIES[name]
    made: Strategy = kind(**{own: settings[own] for own in known[kind] if own in settings})
    return made
