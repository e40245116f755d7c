"""Policies, experiments, arms and allocations: the values every decision is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import NewType
from uuid import UUID

from bandit.core.errors import InvalidAllocation, InvalidInput
from bandit.core.sizing import Sizing

PolicyName = NewType("PolicyName", str)
PolicySha = NewType("PolicySha", str)
UnitId = NewType("UnitId", str)
Ppm = NewType("Ppm", int)

WHOLE_PPM = 1_000_000
"""An allocation is counted in parts per million; the parts of one version sum to this."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far a reporter's clock may run ahead of ours before its times are refused."""

AMOUNT_LIMIT = Decimal(10) ** 16
AMOUNT_STEP = Decimal("0.00000001")
RETURN_LIMIT = Decimal(1000)
RETURN_STEP = Decimal("0.000000000001")

NAME_LENGTH_MAX = 63

NIGHT_HOUR = 2
"""The UTC hour at which nightly work begins, as in the source documents."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_SHA = re.compile(r"[0-9a-f]{8,64}")
_UNIT = re.compile(r"[!-~]{1,128}")
_INSTRUMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,31}")
_CURRENCY = re.compile(r"[A-Z0-9]{2,10}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class PolicyKind(StrEnum):
    """Who made a policy."""

    PRODUCTION = "production"
    REINFORCEMENT = "reinforcement"
    TABNET = "tabnet"
    ENSEMBLE = "ensemble"
    EXTERNAL = "external"


class ArmRole(StrEnum):
    """A policy's part in one experiment."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"


class ArmStatus(StrEnum):
    """Whether an arm may carry traffic."""

    ACTIVE = "active"
    THROTTLED = "throttled"
    HALTED = "halted"
    RETIRED = "retired"


class ArmMode(StrEnum):
    """What an arm's decisions do: trade, be scored, or trade on paper."""

    LIVE = "live"
    SHADOW = "shadow"
    PAPER = "paper"


class Profile(StrEnum):
    """How much a rule is trusted: to the letter, with a safety ladder, or only written down."""

    SEED_EXACT = "seed_exact"
    GUARDED = "guarded"
    OBSERVE = "observe"


class Strategy(StrEnum):
    """The allocator that proposes an experiment's next weights."""

    RAMP = "ramp"
    THOMPSON = "thompson"
    DISCOUNTED_THOMPSON = "discounted_thompson"
    SLIDING_WINDOW_THOMPSON = "sliding_window_thompson"
    UCB = "ucb"
    EPSILON_GREEDY = "epsilon_greedy"
    FIXED = "fixed"


class Promoter(StrEnum):
    """Who makes an eligible challenger the champion; a person always may."""

    PERSON = "person"
    NIGHT = "night"


class Rung(StrEnum):
    """How much has been shown for a challenger."""

    UNPROVEN = "unproven"
    PROVEN = "proven"
    ELIGIBLE = "eligible"


class DecisionKind(StrEnum):
    """What was decided about an experiment."""

    HOLD = "HOLD"
    RESCALE = "RESCALE"
    ENTER = "ENTER"
    THROTTLE = "THROTTLE"
    HALT = "HALT"
    RESUME = "RESUME"
    RETIRE = "RETIRE"
    PROMOTE = "PROMOTE"
    ROLL_BACK = "ROLL_BACK"


class Verdict(StrEnum):
    """A limit respected, broken, or not decidable from what is known."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


def checked_name(value: str, *, field: str = "name") -> str:
    """Return `value` when it is a lawful policy or experiment name.

    >>> checked_name("reinforcement_20250707_154526_eee02a74")
    'reinforcement_20250707_154526_eee02a74'

    Raises `InvalidInput` otherwise.
    """
    if _NAME.fullmatch(value) is None:
        rule = "must match ^[a-z0-9][a-z0-9_.-]{0,62}$"
        raise InvalidInput(field=field, rule=rule, found=repr(value))
    return value


def checked_sha(value: str, *, field: str = "sha") -> PolicySha:
    """Return `value` as a content hash: 8 to 64 lower-case hexadecimal digits."""
    if _SHA.fullmatch(value) is None:
        rule = "must be 8 to 64 lower-case hexadecimal digits"
        raise InvalidInput(field=field, rule=rule, found=repr(value))
    return PolicySha(value)


def checked_unit(value: str, *, field: str = "unit_id") -> UnitId:
    """Return `value` as the key of one opportunity: 1 to 128 visible ASCII characters."""
    if _UNIT.fullmatch(value) is None:
        rule = "must be 1 to 128 visible ASCII characters"
        raise InvalidInput(field=field, rule=rule, found=repr(value))
    return UnitId(value)


def checked_instrument(value: str, *, field: str = "instrument") -> str:
    """Return `value` as an instrument such as `BTCUSDT` or `BTC/USD:PERP`."""
    if _INSTRUMENT.fullmatch(value) is None:
        rule = "must be 1 to 32 of A-Z a-z 0-9 _ . / : - and start with a letter or digit"
        raise InvalidInput(field=field, rule=rule, found=repr(value))
    return value


def checked_instant(value: datetime, *, field: str) -> datetime:
    """Return `value` in UTC when it is aware and inside 2000 to 2100.

    >>> checked_instant(datetime(2026, 1, 1), field="now")
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: now: must carry a UTC offset, found 2026-01-01T00:00:00
    """
    if value.tzinfo is not UTC and value.utcoffset() is None:
        raise InvalidInput(field=field, rule="must carry a UTC offset", found=value.isoformat())
    if not EARLIEST <= value < LATEST:
        rule = "must lie in 2000-01-01 to 2100-01-01 UTC"
        raise InvalidInput(field=field, rule=rule, found=value.isoformat())
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def require_past(value: datetime, *, field: str, now: datetime) -> None:
    """Raise `InvalidInput` for a time that lies in the future, by more than two clocks differ.

    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> require_past(noon, field="closed_at", now=noon - CLOCK_TOLERANCE)
    """
    if value > now + CLOCK_TOLERANCE:
        rule = f"must not lie more than 5 minutes after now {now.isoformat()}"
        raise InvalidInput(field=field, rule=rule, found=value.isoformat())


def checked_amount(value: Decimal, *, field: str) -> Decimal:
    """Return money exact to eight decimals; nothing is rounded silently.

    >>> checked_amount(Decimal("12.340"), field="pnl")
    Decimal('12.34000000')
    """
    return _checked_decimal(value, field=field, step=AMOUNT_STEP, limit=AMOUNT_LIMIT)


def checked_return(value: Decimal, *, field: str) -> Decimal:
    """Return a ratio of the position's notional, rounded to twelve decimals.

    >>> checked_return(Decimal("-0.0012"), field="return")
    Decimal('-0.001200000000')
    """
    if value.is_finite() and -RETURN_LIMIT < value < RETURN_LIMIT:
        # Half up, as the database rounds: a tie must not change its sign there.
        value = value.quantize(RETURN_STEP, rounding=ROUND_HALF_UP)
    return _checked_decimal(value, field=field, step=RETURN_STEP, limit=RETURN_LIMIT)


def _checked_decimal(value: Decimal, *, field: str, step: Decimal, limit: Decimal) -> Decimal:
    if not value.is_finite():
        raise InvalidInput(field=field, rule="must be a finite number", found=value)
    # Not abs(): it rounds to the context, and overflows on 1E+1000000.
    if not -limit < value < limit:
        raise InvalidInput(field=field, rule=f"must be smaller than {limit:f}", found=value)
    exact = value.quantize(step)
    if exact != value:
        rule = f"must have at most {-int(step.as_tuple().exponent)} decimals"
        raise InvalidInput(field=field, rule=rule, found=value)
    return exact + 0  # -0 and 0 are one amount


def checked_text(value: str, *, field: str, length_max: int) -> str:
    """Return `value` stripped when it says something and the ledger can hold it.

    >>> checked_text(" drill ", field="reason", length_max=1000)
    'drill'
    """
    text = value.strip()
    storable = "\0" not in text and not _SURROGATE.search(text)
    if not storable or not 1 <= len(text) <= length_max:
        rule = f"must be 1 to {length_max} characters, none of them NUL or half a surrogate pair"
        raise InvalidInput(field=field, rule=rule, found=ascii(value))
    return text


def checked_document(value: object, *, field: str) -> object:
    """Return `value` when it is JSON that the ledger can hold: no NaN, Infinity or NUL.

    >>> checked_document({"spread": float("nan")}, field="context")
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: context: must be JSON without NaN or Infinity, found dict
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        rule = "must be JSON without NaN or Infinity"
        raise InvalidInput(field=field, rule=rule, found=type(value).__name__) from error
    if _NUL_ESCAPE.search(text) or _SURROGATE.search(text):
        rule = "must not contain NUL or half a surrogate pair"
        raise InvalidInput(field=field, rule=rule, found=type(value).__name__)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A trading policy: immutable, named by its content hash."""

    name: PolicyName
    kind: PolicyKind
    sha: PolicySha
    data_cutoff: datetime | None = None
    parent: PolicyName | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a name, hash, time or metadata outside its domain."""
        checked_name(self.name)
        checked_sha(self.sha)
        if self.data_cutoff is not None:
            checked_instant(self.data_cutoff, field="data_cutoff")
        checked_document(dict(self.metadata), field="metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One version of an experiment's weights, in parts per million that sum to a million.

    >>> a = Allocation(version=1, champion=PolicyName("old"),
    ...                ppm={PolicyName("old"): Ppm(900_000), PolicyName("new"): Ppm(100_000)})
    >>> a.propensity(PolicyName("new"))
    0.1
    """

    version: int
    champion: PolicyName
    ppm: Mapping[PolicyName, Ppm]

    def __post_init__(self) -> None:
        """Refuse parts that are negative, too large, or do not make a whole."""
        whole(self.ppm)
        if self.champion not in self.ppm:
            raise InvalidAllocation(f"the champion {self.champion!r} has no part", limit="champion")

    def propensity(self, policy: PolicyName) -> float:
        """Probability with which a new unit is routed to `policy`."""
        return self.ppm[policy] / WHOLE_PPM


def whole(ppm: Mapping[PolicyName, Ppm]) -> None:
    """Raise `InvalidAllocation` unless every part is in bounds and they sum to a million."""
    for policy, part in ppm.items():
        if not 0 <= part <= WHOLE_PPM:
            message = f"the part of {policy!r} must lie in 0..{WHOLE_PPM} ppm, was {part}"
            raise InvalidAllocation(message, limit="bounds")
    total = sum(ppm.values())
    if total != WHOLE_PPM:
        raise InvalidAllocation(f"parts must sum to {WHOLE_PPM} ppm, were {total}", limit="sum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One champion and its challengers on one order flow.

    `capital` is the money behind the order flow in `currency`; `equity_fraction` is the nominal
    share of it one trade risks, the size at which the profit factor and drawdown rules are read.
    Experiments of one `account` share its kill switch and its loss limits; without a name, the
    account is the one of the currency.
    """

    name: str
    champion: PolicyName
    capital: Decimal
    currency: str
    equity_fraction: float
    profile: Profile = Profile.GUARDED
    strategy: Strategy = Strategy.RAMP
    decision_seconds_valid: float = 2.0
    account: str | None = None

    def __post_init__(self) -> None:
        """Refuse a value outside its domain."""
        checked_name(self.name, field="experiment")
        checked_amount(self.capital, field="capital")
        if self.capital <= 0:
            raise InvalidInput(field="capital", rule="must be positive", found=self.capital)
        if _CURRENCY.fullmatch(self.currency) is None:
            rule = "must be 2 to 10 of A-Z 0-9"
            raise InvalidInput(field="currency", rule=rule, found=repr(self.currency))
        checked_name(self.account_name, field="account")
        if not 0 < self.equity_fraction <= 1:
            rule = "must be above 0 and at most 1"
            raise InvalidInput(field="equity_fraction", rule=rule, found=self.equity_fraction)
        if not 0.001 <= self.decision_seconds_valid <= 86_400:
            rule = "must lie in 0.001..86400 seconds"
            found = self.decision_seconds_valid
            raise InvalidInput(field="decision_seconds_valid", rule=rule, found=found)

    @property
    def account_name(self) -> str:
        """The account that the experiment belongs to."""
        return self.currency.lower() if self.account is None else self.account


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One opportunity and the arm that decides it, for ever.

    `sizing` are the limits of its experiment; None where that has none.
    """

    id: UUID
    experiment: str
    unit_id: UnitId
    instrument: str
    policy: PolicyName
    policy_sha: PolicySha
    role: ArmRole
    mode: ArmMode
    propensity: float
    sticky: bool
    allocation_version: int
    epoch: int
    size_multiplier: float
    confidence_bump: float
    decided_at: datetime
    expires_at: datetime
    sizing: Sizing | None
