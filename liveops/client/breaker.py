"""A circuit breaker: while the other side is dead, a call costs nothing."""

from __future__ import annotations

import threading

from liveops.client.heartbeat import Breaker as BreakerState


class Breaker:
    """Opens after `failures_max` calls in a row that failed, probes after a while.

    >>> breaker = Breaker(failures_max=1, recovery_seconds=60.0)
    >>> breaker.failed(at=0.0)
    >>> breaker.state, breaker.trips, breaker.seconds_left(at=20.0)
    ('open', 1, 40.0)
    >>> [breaker.admits(at=at) for at in (59.9, 60.0, 60.1)]
    [False, True, False]
    >>> breaker.state
    'half_open'
    """

    def __init__(self, *, failures_max: int, recovery_seconds: float) -> None:
        """Start closed."""
        self._failures_max = failures_max
        self._recovery_seconds = recovery_seconds
        self._lock = threading.Lock()
        self._failures = 0
        self._trips = 0
        self._opened_at: float | None = None
        self._probed_at: float | None = None

    @property
    def state(self) -> BreakerState:
        """`open` until a probe goes out, `half_open` until that is answered, else `closed`."""
        with self._lock:
            if self._opened_at is None:
                return "closed"
            return "open" if self._probed_at is None else "half_open"

    @property
    def failures(self) -> int:
        """How many calls in a row have failed."""
        with self._lock:
            return self._failures

    @property
    def trips(self) -> int:
        """How often it opened; a probe that fails opens it once more."""
        with self._lock:
            return self._trips

    def admits(self, *, at: float) -> bool:
        """Say whether a call may go out; of those that wait, one is let through as a probe."""
        with self._lock:
            if self._seconds_left(at) > 0:
                return False
            if self._opened_at is not None:
                self._probed_at = at
            return True

    def seconds_left(self, *, at: float) -> float:
        """Return how long it still refuses calls; 0 where the next one may go out."""
        with self._lock:
            return self._seconds_left(at)

    def succeeded(self) -> None:
        """Close: there was an answer, whatever it said."""
        with self._lock:
            self._failures = 0
            self._opened_at = self._probed_at = None

    def failed(self, *, at: float) -> None:
        """Count a call that failed; open when there were too many in a row."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._failures_max or self._opened_at is not None:
                # Calls that were under way when it opened do not open it again.
                self._trips += self._opened_at is None or self._probed_at is not None
                self._opened_at = at
                self._probed_at = None

    def _seconds_left(self, at: float) -> float:
        if self._opened_at is None:
            return 0.0
        # A probe whose caller vanished must not keep the circuit half open for ever.
        since = self._opened_at if self._probed_at is None else self._probed_at
        return max(since + self._recovery_seconds - at, 0.0)
