"""What a bot gets and what it reports: small values, checked before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal
from enum import StrEnum
from typing import Literal, NewType, TypedDict

from liveops.client.errors import InvalidInput, Problem

AssignmentId = NewType("AssignmentId", str)
"""The service's id of a decision, or of one that the client took alone: `fallback:UNIT`."""

FALLBACK_PREFIX = "fallback:"
AMOUNT_LIMIT = Decimal(10) ** 16
AMOUNT_STEP = Decimal("0.00000001")
RATIO_LIMIT = 1000

# A bot may have set its own, narrower context.
_WIDE = Context(prec=64)


class Reason(StrEnum):
    """Why the client decided alone."""

    NO_ANSWER = "no_answer"
    SERVER_FAULT = "server_fault"
    BREAKER_OPEN = "breaker_open"


Side = Literal["long", "short"]
"""Which way a trade bets."""


class Kind(StrEnum):
    """What a spooled row reports."""

    FALLBACK = "fallback"
    OUTCOME = "outcome"
    MARK = "mark"
    PAPER = "paper"


class Options(TypedDict, total=False):
    """What may differ from bot to bot.

    `deadline_seconds`: how long a decision may take, where a call does not say. `fallback_minutes`:
    how long the champion stands in after the last contact. `failures_max`
    requests in a row without an answer open the circuit for `recovery_seconds`. `spool_max` rows
    may wait for the service. Once the monitor is silent, a decision keeps `watch_throttle` of its
    size. `now`, `monotonic` and `jitter` are read for time and chance.
    """

    deadline_seconds: float
    fallback_minutes: float
    failures_max: int
    recovery_seconds: float
    spool_max: int
    watch_throttle: float
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    jitter: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """Limits of positions: sizes are fractions of equity, the last two of the entry price.

    `max_open_positions` counts the account; None where any number may be open.
    """

    base_position_size: float
    max_position_size: float
    max_leverage: float
    max_open_positions: int | None
    stop_loss_pct: float
    take_profit_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which policy decides a unit; `is_fallback` when the client chose the champion alone.

    `is_opening` says that it may open a position, as one about an open position does not;
    `is_unwatched` that `size_multiplier` was made smaller here, as the monitor is silent.
    `sizing` are its limits, None for an experiment without any; a fallback's are the last known.
    """

    id: AssignmentId
    experiment: str
    unit_id: str
    policy: str
    policy_sha: str
    role: str
    propensity: float
    mode: str
    size_multiplier: float
    confidence_bump: float
    decided_at: datetime
    expires_at: datetime
    sizing: Sizing | None = None
    is_fallback: bool = False
    is_opening: bool = True
    is_unwatched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the assigned arm's stored policy does, after regime filter and guards.

    `position` is the signed share of the nominal size to go to and `size` how far that is from
    what is held; `choice` is what the policy wanted, and how sure it was. `reasons` are the checks.
    """

    move: str
    position: float
    size: float
    choice: str
    confidence: float
    reasons: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """Which policy decides a unit, and its action; where there is none, the bot decides."""

    assignment: Assignment
    action: Action | None
    no_action_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """Who decides when nobody else can, as the service said in `epoch`."""

    policy: str
    policy_sha: str
    epoch: int
    decision_seconds_valid: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A decision the client took alone; it has an id of the service once that knows of it."""

    unit_id: str
    instrument: str
    policy: str
    policy_sha: str
    size_multiplier: float
    confidence_bump: float
    decided_at: datetime
    expires_at: datetime
    reason: Reason
    assignment_id: AssignmentId | None = None
    problem: Problem | None = None

    def assignment(self, experiment: str, sizing: Sizing | None) -> Assignment:
        """Return the decision as the bot gets it."""
        return Assignment(
            id=AssignmentId(FALLBACK_PREFIX + self.unit_id),
            experiment=experiment,
            unit_id=self.unit_id,
            policy=self.policy,
            policy_sha=self.policy_sha,
            role="champion",
            propensity=1.0,
            mode="live",
            size_multiplier=self.size_multiplier,
            confidence_bump=self.confidence_bump,
            decided_at=self.decided_at,
            expires_at=self.expires_at,
            is_fallback=True,
            sizing=sizing,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A spooled row that the service will never take, and why; kept until it is forgotten."""

    id: int
    kind: Kind
    body: str
    problem: Problem
    refused_at: datetime


def fallback_unit(assignment: AssignmentId) -> str | None:
    """Return the unit of a decision that the client took alone, else None.

    >>> fallback_unit(AssignmentId("fallback:u-1"))
    'u-1'
    """
    if not assignment.startswith(FALLBACK_PREFIX):
        return None
    return assignment.removeprefix(FALLBACK_PREFIX)


def outcome_fields(
    *,
    pnl: Decimal,
    return_ratio: Decimal | float,
    opened_at: datetime,
    closed_at: datetime,
    amounts: Mapping[str, Decimal | None],
    ratios: Mapping[str, Decimal | float | None],
) -> dict[str, object]:
    """Return what the service is told of a closed trade, all of it checked.

    What can be known to be refused is refused here, where the bot still stands at its trade.
    """
    earned = ratio(return_ratio, field="return")
    fields: dict[str, object] = {
        "pnl": amount(pnl, field="pnl"),
        "return": earned,
        **_times(opened_at, closed_at),
    }
    if (pnl > 0 and earned < 0) or (pnl < 0 and earned > 0):
        raise InvalidInput(field="return", rule=f"must have the sign of pnl {pnl:f}", found=earned)
    fields |= {n: amount(v, field=n) for n, v in amounts.items() if v is not None}
    fields |= {n: ratio(v, field=n) for n, v in ratios.items() if v is not None}
    return fields


def paper_fields(
    policy: str,
    *,
    opened_at: datetime,
    closed_at: datetime,
    earned: Mapping[str, object],
) -> dict[str, object]:
    """Return what the service is told of a trade that a policy would have made."""
    return {"policy": policy, **earned, **_times(opened_at, closed_at)}


def fill_fields(
    *,
    side: Side,
    entry_price: Decimal,
    exit_price: Decimal,
    size: Decimal,
    fee_bps: Decimal | float,
    slippage_bps: Decimal | float,
) -> dict[str, object]:
    """Return a proposal and its prices, from which the service works out what it earned."""
    return {
        "paper": {
            "side": side,
            "entry_price": amount(entry_price, field="entry_price"),
            "exit_price": amount(exit_price, field="exit_price"),
            "size": amount(size, field="size"),
            "fee_bps": ratio(fee_bps, field="fee_bps"),
            "slippage_bps": ratio(slippage_bps, field="slippage_bps"),
        }
    }


def _times(opened_at: datetime, closed_at: datetime) -> dict[str, str]:
    opened, closed = aware(opened_at, field="opened_at"), aware(closed_at, field="closed_at")
    if closed < opened:
        rule = f"must not be before opened_at {opened.isoformat()}"
        raise InvalidInput(field="closed_at", rule=rule, found=closed.isoformat())
    return {"opened_at": opened.isoformat(), "closed_at": closed.isoformat()}


def amount(value: Decimal, *, field: str) -> str:
    """Return money as the service reads it, exact.

    >>> amount(Decimal("12.340"), field="pnl")
    '12.34000000'
    >>> amount(12.34, field="pnl")
    Traceback (most recent call last):
    TypeError: pnl: must be a Decimal, found float
    """
    if not isinstance(value, Decimal):
        raise TypeError(f"{field}: must be a Decimal, found {type(value).__name__}")
    if not value.is_finite():
        raise InvalidInput(field=field, rule="must be a finite number", found=value)
    if not -AMOUNT_LIMIT < value < AMOUNT_LIMIT:
        raise InvalidInput(field=field, rule=f"must be smaller than {AMOUNT_LIMIT:f}", found=value)
    exact = value.quantize(AMOUNT_STEP, context=_WIDE)
    if exact != value:
        raise InvalidInput(field=field, rule="must have at most 8 decimals", found=value)
    return f"{exact:f}"


def ratio(value: Decimal | float, *, field: str) -> float:
    """Return a ratio as the service reads it."""
    number = _finite(value, field=field)
    if not -RATIO_LIMIT < number < RATIO_LIMIT:
        rule = f"must be a finite number smaller than {RATIO_LIMIT}"
        raise InvalidInput(field=field, rule=rule, found=value)
    return number


def features_told(features: Mapping[str, Decimal | float]) -> dict[str, float]:
    """Return a row of features as the service reads it, every number of it checked.

    >>> features_told({"rsi": float("nan")})
    Traceback (most recent call last):
    liveops.client.errors.InvalidInput: features.rsi: must be a finite number, found nan
    """
    return {name: _finite(value, field=f"features.{name}") for name, value in features.items()}


def history_told(history: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the features of the bars before as the service reads them, every number checked.

    >>> history_told({"rsi": [48.0, float("inf")]})
    Traceback (most recent call last):
    liveops.client.errors.InvalidInput: history.rsi: must be a finite number, found inf
    """
    return {
        name: [_finite(value, field=f"history.{name}") for value in column]
        for name, column in history.items()
    }


def holding_told(
    held: Decimal | float,
    unrealised_return: Decimal | float | None,
    holding_share: Decimal | float | None,
) -> dict[str, float]:
    """Return what a bot holds as the service reads it; of nothing held, nothing is told."""
    told = {"held": held, "unrealised_return": unrealised_return, "holding_share": holding_share}
    return {
        name: _finite(value, field=name)
        for name, value in told.items()
        if value is not None and (name != "held" or value != 0)
    }


def _finite(value: Decimal | float, *, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Decimal | float | int):
        raise TypeError(f"{field}: must be a number, found {type(value).__name__}")
    if not math.isfinite(value):
        raise InvalidInput(field=field, rule="must be a finite number", found=value)
    return float(value)


def aware(moment: datetime, *, field: str) -> datetime:
    """Return the moment, which must have an offset."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{field}: must be a datetime, found {type(moment).__name__}")
    if moment.utcoffset() is None:
        raise InvalidInput(field=field, rule="must be aware", found=moment.isoformat())
    return moment


def expiry(decided_at: datetime, champion: Champion) -> datetime:
    """Return when a decision for the champion ends to be valid."""
    return decided_at + timedelta(seconds=champion.decision_seconds_valid)
