"""What a training environment charges, allows and ends by; a frozen value that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from math import isfinite
from typing import Any

from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import Side
from learners.market.paper_market import Costs, Proposal

_LIMITS = {
    "stop_ratio": (0.0, 1.0),
    "take_profit_ratio": (0.0, 1.0),
    "funding_ratio": (-0.1, 0.1),
    "equity_ratio_min": (0.0, 1.0),
}


class Target(IntEnum):
    """The position an action asks for; its number is the action."""

    FLAT = 0
    LONG = 1
    SHORT = 2

    @property
    def sign(self) -> int:
        """1 where a rising price earns, -1 where a falling one does, 0 where none does."""
        return (0, 1, -1)[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """The rules of an environment; ratios, and bars of the candles it is given.

    Every position is bracketed by `stop_ratio`, `take_profit_ratio` and `holding_bars_max`, as a
    `Proposal`, and puts in `position_ratio` of the capital that the episode started with.
    `funding_ratio` is one funding, paid by longs at 00, 08 and 16 h UTC. An episode is truncated
    after `episode_bars` steps, and terminated once its marked equity is at `equity_ratio_min` of
    that capital or below. Raises `InvalidInput` for a value that no market has.
    """

    costs: Costs
    stop_ratio: float
    take_profit_ratio: float
    holding_bars_max: int
    shorts_allowed: bool
    position_ratio: float
    funding_ratio: float
    episode_bars: int
    equity_ratio_min: float

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = _number(getattr(self, name), field=name)
            if not low < value < high:
                raise InvalidInput(field=name, rule=f"must be in ({low:g}, {high:g})", found=value)
        ratio = _number(self.position_ratio, field="position_ratio")
        if not 0 < ratio <= 1:
            raise InvalidInput(field="position_ratio", rule="must be in (0, 1]", found=ratio)
        for name in ("holding_bars_max", "episode_bars"):
            count = getattr(self, name)
            if type(count) is not int or count < 1:
                raise InvalidInput(field=name, rule="must be an integer, 1 or more", found=count)
        shorts: object = self.shorts_allowed
        if not isinstance(shorts, bool):
            raise InvalidInput(field="shorts_allowed", rule="must be true or false", found=shorts)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Return what an action may ask for; the action is the index."""
        return tuple(Target)[: 3 if self.shorts_allowed else 2]

    def proposal(self, side: Side) -> Proposal:
        """Return what a position of this side is in the words of the paper market."""
        return Proposal(
            side=side,
            stop_ratio=self.stop_ratio,
            take_profit_ratio=self.take_profit_ratio,
            holding_bars_max=self.holding_bars_max,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> EnvironmentSpec:
        """Return the spec that `to_json` gave; raises `InvalidInput` for other fields than its own.

        >>> spec = EnvironmentSpec(
        ...     costs=Costs(fee_ratio=0.0005, slippage_ratio=0.0002), stop_ratio=0.02,
        ...     take_profit_ratio=0.03, holding_bars_max=24, shorts_allowed=True,
        ...     position_ratio=0.5, funding_ratio=0.0001, episode_bars=500, equity_ratio_min=0.5)
        >>> EnvironmentSpec.from_json(spec.to_json()) == spec
        True
        """
        _require_fields(cls, stored, field="environment")
        _require_fields(Costs, stored["costs"], field="environment.costs")
        costs = {name: _number(value, field=name) for name, value in stored["costs"].items()}
        return cls(**{**stored, "costs": Costs(**costs)})


def _number(value: object, *, field: str) -> float:
    if type(value) not in (int, float) or not isfinite(value):  # type: ignore[arg-type]  # either
        raise InvalidInput(field=field, rule="must be a finite number", found=value)
    return value  # type: ignore[return-value]  # int or float


def _require_fields(kind: type[Any], stored: object, *, field: str) -> None:
    names = sorted(made.name for made in fields(kind))
    found = sorted(stored) if isinstance(stored, Mapping) else stored
    if found != names:
        raise InvalidInput(field=field, rule=f"must have exactly {names}", found=found)
