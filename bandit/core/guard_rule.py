"""States of the performance guard, and its rule: when a scope trades smaller, pauses, recovers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, assert_never

from bandit.core.errors import InvalidInput

WINDOW_MAX: Final = 200
"""The longest window: every trade costs as many steps as it is long."""


class GuardState(StrEnum):
    """How much a scope may risk."""

    NORMAL = "NORMAL"
    REDUCED = "REDUCED"
    PAUSED = "PAUSED"

    @property
    def severity(self) -> int:
        """How strict it is, from 0.

        >>> [state.severity for state in GuardState]
        [0, 1, 2]
        """
        return _SEVERITY[self]


_SEVERITY: Final = {state: place for place, state in enumerate(GuardState)}


class GuardEffect(NamedTuple):
    """What a state does to a decision: its share of the size, and what its confidence must more."""

    size_multiplier: float
    confidence_bump: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRule:
    """When a scope trades smaller, pauses, and recovers; ratios are fractions.

    `window` trades are looked back on. Fewer than `recovery_trades` of them tell no win rate, and
    as many must have come in since a state was entered before it may end.

    >>> GuardRule(drawdown_reduced=0.2)
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: drawdown_reduced: must be at most drawdown_paused, found 0.2
    """

    enabled: bool = True
    window: int = 10
    win_rate_reduced: float = 0.40
    win_rate_paused: float = 0.30
    drawdown_reduced: float = 0.05
    drawdown_paused: float = 0.10
    losing_streak_reduced: int = 5
    losing_streak_paused: int = 10
    recovery_win_rate: float = 0.45
    recovery_drawdown: float = 0.05
    recovery_trades: int = 5
    size_multiplier: float = 0.5
    confidence_bump: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a rule that can pause for ever, or that pauses before it reduces."""
        _require(self, "window", 1, WINDOW_MAX)
        for name in ("win_rate_reduced", "win_rate_paused", "drawdown_reduced", "drawdown_paused"):
            _require(self, name, 0, 1)
        for name in ("recovery_win_rate", "size_multiplier", "confidence_bump"):
            _require(self, name, 0, 1)
        _require(self, "losing_streak_reduced", 1, 1_000_000)
        _require(self, "recovery_trades", 1, WINDOW_MAX)
        if not self.recovery_drawdown > 0:
            found = self.recovery_drawdown
            raise InvalidInput(field="recovery_drawdown", rule="must be above 0", found=found)
        for less, more in _RISING:
            if getattr(self, less) > getattr(self, more):
                rule = f"must be at most {more}"
                raise InvalidInput(field=less, rule=rule, found=getattr(self, less))

    def effect(self, state: GuardState) -> GuardEffect:
        """Return what a state does to decisions; PAUSED asks for no less than REDUCED.

        >>> GuardRule().effect(GuardState.REDUCED)
        GuardEffect(size_multiplier=0.5, confidence_bump=0.1)
        """
        match state:
            case GuardState.NORMAL:
                return GuardEffect(1.0, 0.0)
            case GuardState.REDUCED:
                return GuardEffect(self.size_multiplier, self.confidence_bump)
            case GuardState.PAUSED:
                return GuardEffect(0.0, self.confidence_bump)
            case _:
                assert_never(state)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> GuardRule:
        """Return the rule whose fields were stored; those that came later have their defaults.

        >>> GuardRule.from_json({"window": 20}).window
        20
        """
        return cls(**stored)


_RISING: Final = (
    ("win_rate_paused", "win_rate_reduced"),
    ("win_rate_reduced", "recovery_win_rate"),
    ("recovery_drawdown", "drawdown_reduced"),
    ("drawdown_reduced", "drawdown_paused"),
    ("losing_streak_reduced", "losing_streak_paused"),
    ("recovery_trades", "window"),
)


def _require(rule: GuardRule, name: str, least: float, most: float) -> None:
    value = getattr(rule, name)
    if not least <= value <= most:
        raise InvalidInput(field=name, rule=f"must lie in {least}..{most}", found=value)
