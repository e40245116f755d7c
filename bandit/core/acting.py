"""From what a policy wants to what is done: confidence, market regime, guards (SPEC B7, F5, F7).

Positions are signed shares of the nominal size: 1 is fully long, -0.5 half of it short. Opening,
adding and the opening half of a turn are *new exposure*, and only that is ever blocked or made
smaller. Closing and reducing always go through: a rule that keeps a policy in a position it wants
to leave raises the risk that it is there to bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from bandit.core.sizing import Sizing
from bandit.core.verdicts import Reason, above, at_least, at_most, known


class Move(StrEnum):
    """What happens to the position."""

    STAY = "stay"
    OPEN = "open"
    ADD = "add"
    REDUCE = "reduce"
    CLOSE = "close"
    TURN = "turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a policy wants: its action by name, the position of that action, how sure it is."""

    name: str
    position: float
    confidence: float

    def __post_init__(self) -> None:
        """Refuse what is no position or no probability; NaN is neither."""
        _require_share("position", self.position, least=-1.0)
        _require_share("confidence", self.confidence, least=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """The market now: ADX (0 to 100), direction of the trend, volatility over its usual level.

    `trend` is 1 where prices rise, -1 where they fall. A number is None, or not finite, while too
    few bars are there to know it.
    """

    adx: float | None
    trend: int
    volatility: float | None

    def __post_init__(self) -> None:
        """Refuse a direction that is none."""
        if self.trend not in (-1, 0, 1):
            raise InvalidInput(field="trend", rule="must be -1, 0 or 1", found=self.trend)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingRules:
    """From which confidence on a policy acts, and in which markets it may.

    Where it does not filter by regime, it may in every market, known or not, at its full size; the
    other three say nothing then.
    """

    confidence_min: float = 0.65
    filters_regime: bool = True
    adx_min: float = 25.0
    volatility_max: float = 2.0
    allow_ranging: bool = False

    def __post_init__(self) -> None:
        """Refuse limits that every or no value would meet by accident."""
        _require_share("confidence_min", self.confidence_min, least=0.0)
        if not 0 <= self.adx_min <= 100:
            raise InvalidInput(field="adx_min", rule="must be in [0, 100]", found=self.adx_min)
        if not (self.volatility_max > 0 and math.isfinite(self.volatility_max)):
            raise InvalidInput(
                field="volatility_max", rule="must be positive", found=self.volatility_max
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done: the position goes to `position`, by `size` (a share of the nominal size).

    `choice` is what the policy wanted; `reasons` has every check of new exposure, and is empty
    where none was wanted.
    """

    move: Move
    position: float
    size: float
    choice: Choice
    reasons: tuple[Reason, ...]


HIGH_VOLATILITY_SIZE = 0.5


def acted(
    choice: Choice,
    *,
    held: float,
    regime: Regime,
    rules: ActingRules,
    size_multiplier: float = 1.0,
    confidence_bump: float = 0.0,
    sizing: Sizing | None = None,
) -> Action:
    """Decide what is done of a choice while `held` is the position.

    `size_multiplier` and `confidence_bump` are those of the assignment, the guards' share, and
    `sizing` are its limits: a position over the largest one is opened as large as may be.

    >>> rising = Regime(adx=31.0, trend=1, volatility=2.5)
    >>> long = Choice(name="long", position=1.0, confidence=0.8)
    >>> action = acted(long, held=0.0, regime=rising, rules=ActingRules())
    >>> action.move.value, action.position  # volatile: half the size
    ('open', 0.5)
    >>> action = acted(long, held=-1.0, regime=Regime(adx=12.0, trend=1, volatility=1.0),
    ...                rules=ActingRules())
    >>> action.move.value, action.position  # ranging: out of the short, not into the long
    ('close', 0.0)
    """
    _require_share("held", held, least=-1.0)
    _require_share("size_multiplier", size_multiplier, least=0.0)
    _require_share("confidence_bump", confidence_bump, least=0.0)
    wanted = choice.position
    is_same_side = wanted * held > 0
    kept = held if is_same_side else 0.0
    if abs(wanted) <= abs(kept):
        return _action(choice, held=held, position=wanted, reasons=())
    threshold = rules.confidence_min + confidence_bump
    entry = (
        at_least("confidence", choice.confidence, threshold),
        *_entry_reasons(wanted, regime, rules),
    )
    volatility = _volatility_reasons(regime, rules)
    reasons = (*entry, *volatility)
    is_open = all(reason.verdict is Verdict.PASS for reason in entry)
    if not is_open or any(reason.verdict is Verdict.INCONCLUSIVE for reason in volatility):
        return _action(choice, held=held, position=kept, reasons=reasons)
    share = size_multiplier
    if any(reason.verdict is Verdict.FAIL for reason in volatility):
        share *= HIGH_VOLATILITY_SIZE
    size, capped = _capped(abs(wanted) * share, sizing)
    # What is held already is no new exposure: a smaller share does not sell it.
    position = math.copysign(max(abs(kept), size), wanted)
    return _action(choice, held=held, position=position, reasons=(*reasons, *capped))


def _entry_reasons(wanted: float, regime: Regime, rules: ActingRules) -> tuple[Reason, ...]:
    if not rules.filters_regime:
        return ()
    trending = at_least("adx", regime.adx, rules.adx_min)
    is_ranging = trending.verdict is Verdict.FAIL
    if is_ranging and rules.allow_ranging:
        return (
            Reason(
                check="adx",
                value=trending.value,
                limit=trending.limit,
                verdict=Verdict.PASS,
                note="ranging, which is allowed",
            ),
        )
    if is_ranging:
        return (trending,)
    direction = above("trend", math.copysign(1.0, wanted) * regime.trend, 0.0)
    return (trending, direction)


def _volatility_reasons(regime: Regime, rules: ActingRules) -> tuple[Reason, ...]:
    if not rules.filters_regime:
        return ()
    volatility = at_most("volatility", regime.volatility, rules.volatility_max)
    if volatility.verdict is Verdict.FAIL:
        volatility = replace(volatility, note=f"size times {HIGH_VOLATILITY_SIZE:g}")
    return (volatility,)


def _capped(size: float, sizing: Sizing | None) -> tuple[float, tuple[Reason, ...]]:
    if sizing is None:
        return size, ()
    most = sizing.max_position_size
    found = at_most("position_size", size * sizing.base_position_size, most)
    if found.verdict is Verdict.FAIL:
        found = replace(found, note=f"capped at {most:g} of equity")
    return min(size, sizing.position_max), (found,)


def _action(choice: Choice, *, held: float, position: float, reasons: tuple[Reason, ...]) -> Action:
    position += 0.0  # -0 and 0 are one position
    return Action(
        move=_move(held, position),
        position=position,
        size=abs(position - held),
        choice=choice,
        reasons=reasons,
    )


def _move(held: float, position: float) -> Move:
    if position == held:
        return Move.STAY
    if position == 0:
        return Move.CLOSE
    if held == 0:
        return Move.OPEN
    if position * held < 0:
        return Move.TURN
    return Move.ADD if abs(position) > abs(held) else Move.REDUCE


def _require_share(field: str, value: float, *, least: float) -> None:
    if known(value) is None or not least <= value <= 1:
        raise InvalidInput(field=field, rule=f"must be in [{least:g}, 1]", found=value)
