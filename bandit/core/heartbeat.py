"""Heartbeats: what a bot says of itself, and what is kept of them (SPEC F8)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from bandit.core.errors import InvalidInput
from bandit.core.model import (
    EARLIEST,
    checked_amount,
    checked_instant,
    checked_instrument,
    checked_name,
    checked_text,
    require_past,
)

SYMBOLS_MAX: Final = 64
BREAKERS_MAX: Final = 32
POSITIONS_MAX: Final = 256
COUNT_MAX: Final = 10**9
"""Largest count a heartbeat may tell: errors since the start, open positions."""

CANDLE_SECONDS_MAX: Final = 31 * 86_400
HEARTBEAT_SECONDS_MAX: Final = 120.0
"""For how long a bot may say nothing."""

POINTS: Final = 60
"""Into how many parts the error window is divided: what is kept does not grow with the beats."""

_BREAKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")


class BreakerState(StrEnum):
    """How a circuit breaker of the bot stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a bot says of itself at `sent_at`, by its own clock.

    `candles` holds, for each symbol, when its newest closed candle closed; `candle_seconds` how
    long a candle is, so that the next one is not missed before it is due. `api_errors_total` counts
    since `started_at` and never falls.

    >>> at = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> Heartbeat(bot="alpha", sent_at=at, started_at=at, running=True, api_connected=True,
    ...           api_errors_total=-1, open_positions=0)
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: api_errors_total: must lie in 0..1000000000, found -1
    """

    bot: str
    sent_at: datetime
    started_at: datetime
    running: bool
    api_connected: bool
    api_errors_total: int
    open_positions: int
    positions: tuple[UUID, ...] | None = None
    candles: Mapping[str, datetime] = field(default_factory=dict)
    candle_seconds: int = 0
    account: str | None = None
    equity: Decimal | None = None
    breakers: Mapping[str, BreakerState] = field(default_factory=dict)
    model_version: str | None = None
    model_trained_at: datetime | None = None
    last_trade_at: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what no bot can be, naming the field and its rule."""
        checked_name(self.bot, field="bot")
        if self.account is not None:
            checked_name(self.account, field="account")
        if self.equity is not None:
            checked_amount(self.equity, field="equity")
        if self.model_version is not None:
            checked_text(self.model_version, field="model.version", length_max=64)
        for name, moment in self.times().items():
            checked_instant(moment, field=name)
        _check_count(self.api_errors_total, field="api_errors_total")
        _check_count(self.open_positions, field="open_positions")
        _check_count(self.candle_seconds, field="candle_seconds", most=CANDLE_SECONDS_MAX)
        if self.positions is not None:
            self._check_positions(self.positions)
        _check_size(self.candles, field="candles", most=SYMBOLS_MAX)
        _check_size(self.breakers, field="breakers", most=BREAKERS_MAX)
        for symbol in self.candles:
            checked_instrument(symbol, field="candles")
        for breaker in self.breakers:
            if _BREAKER.fullmatch(breaker) is None:
                rule = "must name each by 1 to 64 of A-Z a-z 0-9 _ . : -"
                raise InvalidInput(field="breakers", rule=rule, found=repr(breaker))
        if self.started_at > self.sent_at:
            rule, found = "must not be after sent_at", self.started_at.isoformat()
            raise InvalidInput(field="started_at", rule=rule, found=found)

    def _check_positions(self, positions: tuple[UUID, ...]) -> None:
        _check_size(positions, field="positions", most=POSITIONS_MAX)
        if len(set(positions)) < len(positions):
            twice = next(key for key in positions if positions.count(key) > 1)
            raise InvalidInput(field="positions", rule="must name each once", found=twice)
        if len(positions) > self.open_positions:
            rule = f"must not be more than open_positions, {self.open_positions}"
            raise InvalidInput(field="positions", rule=rule, found=len(positions))
        if self.account is None:
            rule = "must be told beside positions: they are held against its ledger"
            raise InvalidInput(field="account", rule=rule, found="nothing")

    def times(self) -> dict[str, datetime]:
        """Return every time that is told, by the name of its field."""
        told = {
            "sent_at": self.sent_at,
            "started_at": self.started_at,
            "model.trained_at": self.model_trained_at,
            "last_trade_at": self.last_trade_at,
            **{f"candles.{symbol}": moment for symbol, moment in self.candles.items()},
        }
        return {name: moment for name, moment in told.items() if moment is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPoint:
    """How many API errors a bot had told by `at`, all its runs together."""

    at: datetime
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BotRecord:
    """What is known of a bot: its newest heartbeat, when that was heard, and its errors.

    `heard_at` is by the service's clock: what is judged by it needs no clock of the bot.
    """

    newest: Heartbeat
    heard_at: datetime
    first_heard_at: datetime
    errors: tuple[ErrorPoint, ...]

    def errors_within(self, window: timedelta, *, now: datetime) -> int:
        """Return how many API errors were told in the `window` up to `now`.

        An error counts from the heartbeat that told it. Of a bot that had run for longer than the
        window before it was first heard, the errors before that are not known and do not count.
        """
        before = self.errors[0].total
        for point in self.errors:
            if point.at <= now - window:
                before = point.total
        return self.errors[-1].total - before


def check_past(beat: Heartbeat, *, now: datetime) -> None:
    """Raise `InvalidInput` for a time that lies in the future by more than two clocks differ."""
    for name, moment in beat.times().items():
        require_past(moment, field=name, now=now)


def heard(
    held: BotRecord | None, beat: Heartbeat, *, now: datetime, window: timedelta
) -> BotRecord:
    """Return what is known of a bot after `beat`; one that is no later changes nothing.

    But where `now` lies so long before the bot was heard that the clock must have been set back,
    the next one counts whatever it says of the time: else nobody would hear of the bot until the
    clock has caught up.

    Errors add up over the runs of a bot: another `started_at`, or a count that fell, is a new run,
    whose count began at 0.

    >>> noon = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> def beat(minute, total, started=noon):
    ...     at = noon + timedelta(minutes=minute)
    ...     return Heartbeat(bot="alpha", sent_at=at, started_at=started, running=True,
    ...                      api_connected=True, api_errors_total=total, open_positions=0)
    >>> known, window = None, timedelta(minutes=10)
    >>> restarted = noon + timedelta(minutes=2)
    >>> for told in (beat(1, 3), beat(1, 3), beat(3, 2, restarted), beat(2, 9)):
    ...     known = heard(known, told, now=told.sent_at, window=window)
    >>> known.errors_within(window, now=restarted)
    5
    """
    if held is None:
        return BotRecord(
            newest=beat,
            heard_at=now,
            first_heard_at=now,
            errors=_first(beat, now=now, window=window),
        )
    if held.heard_at - now > timedelta(seconds=HEARTBEAT_SECONDS_MAX):
        held = _set_back(held, now=now)
    elif beat.sent_at <= held.newest.sent_at:
        return held
    # The clocks of two replicas differ: what was heard later must not seem earlier.
    heard_at = max(now, held.heard_at)
    point = ErrorPoint(at=heard_at, total=held.errors[-1].total + _more(held.newest, beat))
    return BotRecord(
        newest=beat,
        heard_at=heard_at,
        first_heard_at=held.first_heard_at,
        errors=_with(held.errors, point, window=window),
    )


def _first(beat: Heartbeat, *, now: datetime, window: timedelta) -> tuple[ErrorPoint, ...]:
    if beat.started_at <= now - window:
        return (ErrorPoint(at=now, total=0),)
    began = ErrorPoint(at=min(beat.started_at, now), total=0)
    return (began, ErrorPoint(at=now, total=beat.api_errors_total))


def _set_back(held: BotRecord, *, now: datetime) -> BotRecord:
    return replace(
        held,
        heard_at=now,
        first_heard_at=min(held.first_heard_at, now),
        errors=tuple(replace(point, at=min(point.at, now)) for point in held.errors),
    )


def _more(before: Heartbeat, after: Heartbeat) -> int:
    same_run = before.started_at == after.started_at
    more = after.api_errors_total - before.api_errors_total
    return more if same_run and more >= 0 else after.api_errors_total


def _with(
    held: tuple[ErrorPoint, ...], point: ErrorPoint, *, window: timedelta
) -> tuple[ErrorPoint, ...]:
    # Of each step the newest: it says what was told by the step's end.
    step = max(window / POINTS, timedelta(microseconds=1))
    by_step = {(known.at - EARLIEST) // step: known for known in (*held[1:], point)}
    # The first is what the others are counted from, so it stays where it is.
    kept = [held[0], *by_step.values()]
    while len(kept) > 1 and kept[1].at <= point.at - window:
        kept.pop(0)
    return tuple(kept)


def _check_count(count: int, *, field: str, most: int = COUNT_MAX) -> None:
    if not 0 <= count <= most:
        raise InvalidInput(field=field, rule=f"must lie in 0..{most}", found=count)


def _check_size(told: Collection[object], *, field: str, most: int) -> None:
    if len(told) > most:
        raise InvalidInput(field=field, rule=f"must have at most {most}", found=len(told))
