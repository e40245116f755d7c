"""What a sweep may change of a challenger, within which bounds; and what no sweep may ever change.

The bounds are those of the source documents where these name any: risk per trade, stop, take-profit
and the period of the RSI.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bandit.core.errors import InvalidInput


class Scale(StrEnum):
    """How the values between the bounds are spread: whole numbers, evenly, or by magnitude."""

    WHOLE = "whole"
    LINEAR = "linear"
    LOGARITHMIC = "logarithmic"


UNTUNABLE: Final = frozenset(
    {
        *("capital", "total_capital", "equity", "equity_fraction"),
        *("max_daily_loss", "daily_loss", "daily_loss_limit"),
        *("max_drawdown", "max_drawdown_limit", "drawdown", "drawdown_limit"),
    }
)
"""Names of what a person sets: the capital, and the limits of daily loss (3 %) and drawdown (15 %).

A sweep that could loosen what stops it would find out that it earns more without.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """One number that a sweep may choose, from `lower` to `upper`, both among them.

    `default` is what the first trial of every sweep takes. Raises `InvalidInput` for bounds that do
    not rise or do not hold the default, and for a limit of risk under whatever name.

    >>> try:
    ...     Tunable(name="max_daily_loss", scale=Scale.LINEAR, lower=0.03, upper=0.1, default=0.03,
    ...             unit="fraction", meaning="How much may be lost in a day.")
    ... except InvalidInput as error:
    ...     print(error.rule)
    must not be the capital or a limit of losses: no sweep may change those
    """

    name: str
    scale: Scale
    lower: float
    upper: float
    default: float
    unit: str
    meaning: str

    def __post_init__(self) -> None:
        """Refuse limits of risk, and bounds that say nothing."""
        require_tunable(self.name)
        if not -math.inf < self.lower < self.upper < math.inf:
            found = f"{self.lower:g} to {self.upper:g}"
            raise InvalidInput(field=self.name, rule="must have rising bounds", found=found)
        if self.scale is Scale.LOGARITHMIC and self.lower <= 0:
            rule = "must be above 0 to be spread by magnitude"
            raise InvalidInput(field=self.name, rule=rule, found=self.lower)
        self.checked(self.default)

    def checked(self, value: object) -> float | int:
        """Return a value within the bounds, whole where it has to be; else raise `InvalidInput`."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        kind = "whole number" if self.scale is Scale.WHOLE else "number"
        rule = f"must be a {kind} from {self.lower:g} to {self.upper:g} ({self.unit})"
        if not is_number or not self.lower <= value <= self.upper:  # type: ignore[operator]
            raise InvalidInput(field=self.name, rule=rule, found=value)
        number = float(value)  # type: ignore[arg-type]  # a number by then
        if self.scale is not Scale.WHOLE:
            return number
        if not number.is_integer():
            raise InvalidInput(field=self.name, rule=rule, found=value)
        return int(number)


def require_tunable(name: str) -> None:
    """Raise `InvalidInput` for what a person sets and no sweep may change."""
    if name.lower() in UNTUNABLE:
        rule = "must not be the capital or a limit of losses: no sweep may change those"
        raise InvalidInput(field="tunable", rule=rule, found=repr(name))


def _whole(name: str, lower: int, upper: int, default: int, unit: str, meaning: str) -> Tunable:
    return Tunable(
        name=name,
        scale=Scale.WHOLE,
        lower=lower,
        upper=upper,
        default=default,
        unit=unit,
        meaning=meaning,
    )


def _linear(
    name: str, lower: float, upper: float, default: float, unit: str, meaning: str
) -> Tunable:
    return Tunable(
        name=name,
        scale=Scale.LINEAR,
        lower=lower,
        upper=upper,
        default=default,
        unit=unit,
        meaning=meaning,
    )


def _magnitude(name: str, lower: float, upper: float, default: float, meaning: str) -> Tunable:
    return Tunable(
        name=name,
        scale=Scale.LOGARITHMIC,
        lower=lower,
        upper=upper,
        default=default,
        unit="number",
        meaning=meaning,
    )


TUNABLES: Final[tuple[Tunable, ...]] = (
    _linear("risk_per_trade", 0.005, 0.02, 0.01, "fraction", "Equity that a stopped trade loses."),
    _linear("stop_atr", 1.0, 4.0, 2.0, "ATR", "How far the stop lies from the entry."),
    _linear("take_profit_r", 1.5, 4.0, 2.0, "R", "Take-profit, in distances of the stop."),
    _whole("holding_bars", 6, 72, 24, "bars", "Longest time that a position is held."),
    _whole("rsi_bars", 5, 30, 14, "bars", "Period of the RSI."),
    _whole("trend_bars_short", 6, 48, 24, "bars", "Window of the shorter moving average."),
    _whole("trend_bars_long", 72, 240, 168, "bars", "Window of the longer moving average."),
    _whole("horizon_bars", 3, 48, 12, "bars", "Holding that a bar's class is judged by."),
    _whole("encoder_bars", 12, 96, 48, "bars", "TimesNet: length of a window."),
    _whole("encoder_frequencies", 1, 4, 3, "periods", "TimesNet: periods a window is folded by."),
    _whole("encoder_width", 4, 32, 16, "channels", "TimesNet: width of its layers."),
    _whole("encoder_layers", 1, 3, 2, "layers", "TimesNet: how many blocks."),
    _whole("encoder_embedding", 2, 16, 8, "numbers", "TimesNet: length of an embedding."),
    _whole("encoder_epochs", 1, 20, 10, "epochs", "TimesNet: passes over the windows."),
    _magnitude("encoder_learning_rate", 1e-4, 1e-2, 1e-3, "TimesNet: learning rate of Adam."),
    _linear("encoder_dropout", 0.0, 0.5, 0.1, "fraction", "TimesNet: what it forgets, learning."),
    _whole("tabnet_width", 4, 32, 8, "units", "TabNet: width of its layers."),
    _whole("tabnet_decisions", 2, 5, 3, "steps", "TabNet: decision steps."),
    _whole("tabnet_epochs", 1, 40, 20, "epochs", "TabNet: passes over the rows."),
    _magnitude("tabnet_learning_rate", 1e-3, 1e-1, 1e-2, "TabNet: learning rate of Adam."),
    _magnitude("tabnet_sparsity", 1e-5, 1e-1, 1e-3, "TabNet: price of looking at many columns."),
)
"""All that a sweep chooses from; whatever is not here stays as the operator set it."""

_BY_NAME: Final = {tunable.name: tunable for tunable in TUNABLES}


def checked_parameters(given: Mapping[str, object]) -> dict[str, float | int]:
    """Return chosen values in the order of `TUNABLES`, each within its bounds.

    Raises `InvalidInput` for a name that is not tunable, one of the limits of risk before all.

    >>> checked_parameters({"rsi_bars": 9.0, "stop_atr": 3})
    {'stop_atr': 3.0, 'rsi_bars': 9}
    """
    for name in given:
        require_tunable(name)
        if name not in _BY_NAME:
            rule = f"must be one of {', '.join(_BY_NAME)}"
            raise InvalidInput(field="tunable", rule=rule, found=repr(name))
    return {t.name: t.checked(given[t.name]) for t in TUNABLES if t.name in given}


def parsed_parameters(texts: Sequence[str]) -> dict[str, float | int]:
    """Return what `NAME=VALUE` texts say; raises `InvalidInput` as `checked_parameters`.

    >>> parsed_parameters(["rsi_bars=9"])
    {'rsi_bars': 9}
    """
    found: dict[str, object] = {}
    for text in texts:
        name, mark, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            mark = ""
        if not mark or name in found:
            rule = "must be NAME=NUMBER, each name once"
            raise InvalidInput(field="tunable", rule=rule, found=text)
        found[name] = number
    return checked_parameters(found)


def defaults() -> dict[str, float | int]:
    """Return every default by name: what the first trial of a sweep takes.

    >>> checked_parameters(defaults()) == defaults()
    True
    """
    return {tunable.name: tunable.checked(tunable.default) for tunable in TUNABLES}
