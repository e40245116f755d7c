"""The only reader of the clocks."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Says what time it is, in UTC."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock.

    >>> SystemClock().now().tzinfo is UTC
    True
    """

    def now(self) -> datetime:
        """Return the machine's time."""
        return now()


def now() -> datetime:
    """Return the machine's time, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place


def monotonic() -> float:
    """Return seconds of a clock that nobody sets: only differences mean something.

    >>> began = monotonic()
    >>> monotonic() >= began
    True
    """
    return time.monotonic()  # noqa: TID251 - the one place


class VirtualClock:
    """A clock that a replay moves, and that never runs backwards.

    >>> clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    >>> clock.advance_to(datetime(2026, 1, 2, tzinfo=UTC))
    >>> clock.now().day
    2
    """

    def __init__(self, start: datetime) -> None:
        """Start at `start`."""
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the moment the replay has reached."""
        with self._lock:
            return self._now

    def advance_to(self, moment: datetime) -> None:
        """Move on to `moment`; going back raises `ValueError`."""
        with self._lock:
            if moment < self._now:
                raise ValueError(f"a clock cannot go back from {self._now} to {moment}")
            self._now = moment


def skew(ours: datetime, theirs: datetime) -> timedelta:
    """Return how far two clocks differ, as a positive span."""
    return abs(ours - theirs)
