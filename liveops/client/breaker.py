"""A circuit breaker: while the service is dead, a call costs nothing."""

from __future__ import annotations

import threading


class Breaker:
    """Opens after `failures_max` requests in a row without an answer, probes after a while.

    >>> breaker = Breaker(failures_max=1, recovery_seconds=60.0)
    >>> breaker.failed(at=0.0)
    >>> [breaker.admits(at=at) for at in (59.9, 60.0, 60.1)]
    [False, True, False]
    """

    def __init__(self, *, failures_max: int, recovery_seconds: float) -> None:
        """Start closed."""
        self._failures_max = failures_max
        self._recovery_seconds = recovery_seconds
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._probed_at: float | None = None

    def admits(self, *, at: float) -> bool:
        """Say whether a request may go out; of those that wait, one is let through as a probe."""
        with self._lock:
            if self._opened_at is None:
                return True
            # A probe whose caller vanished must not keep the circuit half open for ever.
            since = self._opened_at if self._probed_at is None else self._probed_at
            if at - since < self._recovery_seconds:
                return False
            self._probed_at = at
            return True

    def succeeded(self) -> None:
        """Close: there was an answer, whatever it said."""
        with self._lock:
            self._failures = 0
            self._opened_at = self._probed_at = None

    def failed(self, *, at: float) -> None:
        """Count a request without an answer; open when there were too many in a row."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._failures_max or self._opened_at is not None:
                self._opened_at = at
                self._probed_at = None
