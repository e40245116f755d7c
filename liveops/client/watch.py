"""Whether somebody watches what a bot does, as the service said last: the dead man's switch."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from liveops.client.errors import InvalidInput, Unwatched
from liveops.client.values import Acted, Assignment

HEADER: Final = "Liveops-Watch"
EXPERIMENT_HEADER: Final = "Liveops-Experiment"

_DEADLINES: Final = re.compile(r"throttle=(\d{1,9}), halt=(\d{1,9})")
_ROUNDING_SECONDS: Final = 1.0
"""Deadlines come in whole seconds: of one pulse they differ by so much from answer to answer."""


class Level(StrEnum):
    """What a bot does: trade as told, trade smaller, or open nothing new."""

    WATCHED = "watched"
    THROTTLED = "throttled"
    HALTED = "halted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The deadlines that an answer told, in seconds after `heard_at`; None where it told none."""

    heard_at: datetime | None = None
    throttle_seconds: float | None = None
    halt_seconds: float | None = None


_DONE: Final = {
    Level.WATCHED: "opened as told: the monitor is there again",
    Level.THROTTLED: "smaller: the monitor is silent",
    Level.HALTED: "refused: the monitor has been silent for too long",
}
_log = logging.getLogger("liveops.client")


def watch_of(header: str | None, *, heard_at: datetime) -> Watch | None:
    """Return what an answer says of the monitor; None where that cannot be read.

    >>> noon = datetime(2026, 3, 1, 12)
    >>> watch_of("throttle=840, halt=1740", heard_at=noon).halt_seconds
    1740.0
    >>> watch_of(None, heard_at=noon).halt_seconds  # no header: nobody has to be waited for
    >>> watch_of("soon", heard_at=noon)
    """
    if header is None:
        return Watch(heard_at=heard_at)
    found = _DEADLINES.fullmatch(header)
    if found is None:
        return None
    throttle, halt = (float(seconds) for seconds in found.groups())
    return Watch(heard_at=heard_at, throttle_seconds=throttle, halt_seconds=halt)


def level(watch: Watch, *, now: datetime, observed_seconds: float) -> Level:
    """Return what a bot does now; the longer of two clocks counts, and none goes back.

    `observed_seconds` passed by a clock that nobody sets since the watch was heard, or read.

    >>> noon = datetime(2026, 3, 1, 12)
    >>> watch = Watch(heard_at=noon, throttle_seconds=840, halt_seconds=1740)
    >>> level(watch, now=noon - timedelta(hours=1), observed_seconds=840).value
    'throttled'
    """
    if watch.heard_at is None or watch.throttle_seconds is None or watch.halt_seconds is None:
        return Level.WATCHED
    passed = max((now - watch.heard_at).total_seconds(), observed_seconds)
    if passed >= watch.halt_seconds:
        return Level.HALTED
    return Level.THROTTLED if passed >= watch.throttle_seconds else Level.WATCHED


def later(ours: Watch, stored: Watch, *, latest: datetime) -> Watch:
    """Return what was heard last, here or beside; what is dated after `latest` is not believed."""
    if stored.heard_at is None or stored.heard_at > latest:
        return ours
    is_news = ours.heard_at is None or stored.heard_at > ours.heard_at
    return stored if is_news else ours


def says_the_same(watch: Watch, stored: Watch, *, within_seconds: float) -> bool:
    """Say whether what is stored may stand: its deadlines are these, or a little earlier."""
    pairs = zip(_deadlines(watch), _deadlines(stored), strict=True)
    for ours, theirs in pairs:
        if ours is None or theirs is None:
            if ours is not theirs:
                return False
        elif not -_ROUNDING_SECONDS <= (ours - theirs).total_seconds() < within_seconds:
            return False
    return True


class Watchdog:
    """Makes what opens positions smaller, and then refuses it, by what was heard last."""

    def __init__(
        self, share: float, *, now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        """Keep `share` of a decision's size once the monitor is silent."""
        if not 0 <= share <= 1:
            raise InvalidInput(field="watch_throttle", rule="must lie in 0..1", found=share)
        self._share = share
        self._now, self._monotonic = now, monotonic
        self._since = monotonic()
        self._level = Level.WATCHED

    def heard(self) -> None:
        """Count from now: what is known of the monitor was heard, or read, just now."""
        self._since = self._monotonic()

    def require(self, watch: Watch) -> None:
        """Raise `Unwatched` where nothing new may open."""
        if self._now_level(watch) is Level.HALTED:
            raise Unwatched(None)

    def decided(self, made: Assignment, watch: Watch) -> Assignment:
        """Return a decision as it may be acted on now; raises `Unwatched` where it may not be."""
        if not made.is_opening:
            return made
        level_now = self._now_level(watch)
        if level_now is Level.HALTED:
            raise Unwatched(made)
        if level_now is Level.WATCHED:
            return made
        return replace(made, size_multiplier=made.size_multiplier * self._share, is_unwatched=True)

    def acted(self, acted: Acted) -> Acted:
        """Return a decision whose action is as much smaller as the decision is."""
        action, share = acted.action, self._share
        if action is None or not acted.assignment.is_unwatched:
            return acted
        action = replace(action, position=action.position * share, size=action.size * share)
        return replace(acted, action=action)

    def _now_level(self, watch: Watch) -> Level:
        observed = self._monotonic() - self._since
        before, self._level = self._level, level(watch, now=self._now(), observed_seconds=observed)
        if self._level is not before:
            severity = logging.INFO if self._level is Level.WATCHED else logging.WARNING
            _log.log(severity, "new positions are %s", _DONE[self._level])
        return self._level


def _deadlines(watch: Watch) -> tuple[datetime | None, datetime | None]:
    if watch.heard_at is None or watch.throttle_seconds is None or watch.halt_seconds is None:
        return None, None
    return (
        watch.heard_at + timedelta(seconds=watch.throttle_seconds),
        watch.heard_at + timedelta(seconds=watch.halt_seconds),
    )
