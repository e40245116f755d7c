"""The dead man's switch: what bots do once the monitor of their experiment is silent (SPEC F8, F9).

As an exchange's cancel-after: the watcher goes on renewing, or the watched stops by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from bandit.core.errors import InvalidInput

INTERVAL_SECONDS_MAX: Final = 86_400.0


class WatchLevel(StrEnum):
    """What bots do: trade as told, trade smaller, or open nothing new."""

    WATCHED = "watched"
    THROTTLE = "throttle"
    HALT = "halt"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRule:
    """How many of its intervals a monitor may be silent for; raises `InvalidInput`.

    >>> WatchRule(throttle_intervals=7)
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: halt_intervals: must be 7 or more, found 6
    """

    throttle_intervals: int = 3
    halt_intervals: int = 6

    def __post_init__(self) -> None:
        """Refuse to halt before the first interval is over, or before throttling."""
        _require_least(self.throttle_intervals, 1, field="throttle_intervals")
        _require_least(self.halt_intervals, self.throttle_intervals, field="halt_intervals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The newest sign of life of an experiment's monitor, `age_seconds` old when it was read.

    `at` and the age are by the database's clock; `who` is the policy that is monitored. `is_ended`
    says that a person ended the monitor: nothing is expected of it.
    """

    experiment: str
    who: str
    at: datetime
    age_seconds: float
    interval_seconds: float
    is_ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """In how many seconds bots trade smaller, and open nothing new; below 0: since then."""

    throttle_in: float
    halt_in: float

    @property
    def level(self) -> WatchLevel:
        """What bots do now; exactly at a deadline nothing has changed yet."""
        if self.halt_in < 0:
            return WatchLevel.HALT
        return WatchLevel.THROTTLE if self.throttle_in < 0 else WatchLevel.WATCHED


def deadlines(pulse: Pulse, rule: WatchRule, *, seconds_since: float = 0.0) -> Deadlines | None:
    """Return the deadlines `seconds_since` a pulse was read; None of a monitor that was ended.

    A clock that was set back makes no pulse younger than 0 seconds.

    >>> noon = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> pulse = Pulse(experiment="btc", who="trend-v2", at=noon, age_seconds=60,
    ...               interval_seconds=300, is_ended=False)
    >>> deadlines(pulse, WatchRule())
    Deadlines(throttle_in=840.0, halt_in=1740.0)
    >>> deadlines(pulse, WatchRule(), seconds_since=900).level.value
    'throttle'
    """
    if pulse.is_ended:
        return None
    age = max(pulse.age_seconds, 0.0) + max(seconds_since, 0.0)
    return Deadlines(
        throttle_in=rule.throttle_intervals * pulse.interval_seconds - age,
        halt_in=rule.halt_intervals * pulse.interval_seconds - age,
    )


def seen_again(known: Pulse | None, read: Pulse, *, seconds_between: float) -> Pulse:
    """Return a pulse as it was read now: one that was known before is older by the time between.

    Else the database's clock, set back, would keep a silent monitor young until it has caught up.
    """
    if known is None or known.at != read.at:
        return read
    age = max(known.age_seconds, 0.0) + max(seconds_between, 0.0)
    return replace(read, age_seconds=max(read.age_seconds, age))


def checked_interval(seconds: float) -> float:
    """Return a monitor's interval, or raise `InvalidInput`."""
    if not 0 < seconds <= INTERVAL_SECONDS_MAX:
        rule = f"must be above 0 and at most {INTERVAL_SECONDS_MAX:g} seconds"
        raise InvalidInput(field="interval", rule=rule, found=seconds)
    return seconds


def _require_least(value: int, least: int, *, field: str) -> None:
    if value < least:
        raise InvalidInput(field=field, rule=f"must be {least} or more", found=value)
