"""Sizing limits: how large a position may be, with what leverage, and how many at once (SPEC F13).

They belong to an experiment from its opening on. Every assignment carries them, and what is told of
a position that is about to open is held against them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from bandit.core.errors import InvalidInput

TOLD_MAX: Final = 1000.0
"""More equity or leverage than this is a mistake of whoever tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What a bot is told with every assignment; sizes are fractions of equity.

    `stop_loss_pct` and `take_profit_pct` are fractions of the entry price. The names are those of
    the source documents. `max_open_positions` is None where any number may be open.
    """

    base_position_size: float
    max_position_size: float
    max_leverage: float
    max_open_positions: int | None
    stop_loss_pct: float
    take_profit_pct: float

    @property
    def position_max(self) -> float:
        """The largest position as a share of the nominal size; 1 where that is within the limit.

        >>> SizingRule(max_position_size=0.05).sizing(0.1).position_max
        0.5
        """
        return min(1.0, self.max_position_size / self.base_position_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizingRule:
    """Limits of an experiment, checked; None for a limit means that there is none.

    `max_position_size` and `symbol_share_max` are fractions of equity: of one position, and of all
    that is open in one instrument of the account. `max_open_positions` counts the whole account.
    `stop_loss` and `take_profit` are fractions of the entry price; they are told, not enforced.

    >>> SizingRule(max_leverage=0)
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: max_leverage: must be above 0 and at most 100, found 0
    """

    max_leverage: float = 2.0
    max_position_size: float = 0.05
    max_open_positions: int | None = 2
    stop_loss: float = 0.02
    take_profit: float = 0.03
    symbol_share_max: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that nothing, or anything, would keep."""
        _require("max_leverage", self.max_leverage, most=100)
        _require("max_position_size", self.max_position_size, most=1)
        _require("take_profit", self.take_profit, most=10)
        if not 0 < self.stop_loss < 1:
            rule = "must be above 0 and below 1"
            raise InvalidInput(field="stop_loss", rule=rule, found=self.stop_loss)
        if self.max_open_positions is not None and self.max_open_positions < 1:
            found = self.max_open_positions
            raise InvalidInput(field="max_open_positions", rule="must be >= 1", found=found)
        if self.symbol_share_max is not None:
            _require("symbol_share_max", self.symbol_share_max, most=1)

    def sizing(self, base_position_size: float) -> Sizing:
        """Return what a bot of an experiment with this nominal size is told.

        >>> SizingRule().sizing(0.01).max_open_positions
        2
        """
        return Sizing(
            base_position_size=base_position_size,
            max_position_size=self.max_position_size,
            max_leverage=self.max_leverage,
            max_open_positions=self.max_open_positions,
            stop_loss_pct=self.stop_loss,
            take_profit_pct=self.take_profit,
        )

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> SizingRule | None:
        """Return the rule that was stored; None for an experiment that was opened without one.

        >>> SizingRule.from_json({"max_open_positions": None}).max_open_positions is None
        True
        """
        return None if stored is None else cls(**stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A question whether a decision may be acted on, and what is about to be opened if it may.

    `position_size` is the position as a fraction of equity, `leverage` how many times its margin;
    None where the bot does not tell.

    >>> Claim(assignment=UUID(int=1), leverage=float("nan"))
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: leverage: must be above 0 and at most 1000, found nan
    """

    assignment: UUID
    position_size: float | None = None
    leverage: float | None = None

    def __post_init__(self) -> None:
        """Refuse a size or leverage that nothing can have."""
        for name in ("position_size", "leverage"):
            value = getattr(self, name)
            if value is not None:
                _require(name, value, most=TOLD_MAX)


def _require(name: str, value: float, *, most: float) -> None:
    if not (math.isfinite(value) and 0 < value <= most):
        rule = f"must be above 0 and at most {most:g}"
        raise InvalidInput(field=name, rule=rule, found=value)
