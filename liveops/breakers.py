"""The circuit breakers round whatever the service calls outside itself, by name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from bandit.core.errors import BanditError, UnknownName
from bandit.core.heartbeat import BreakerState
from liveops.client.breaker import Breaker
from liveops.clock import monotonic

FAILURES_MAX: Final = 3
RECOVERY_SECONDS: Final = 60.0
RESET: Final = "breaker_reset"
"""Action of the audit row by which every replica closes a breaker."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class BreakerOpen(BanditError):
    """Nothing was called: the last calls failed, and it is too early to try again."""

    code = "breaker_open"

    def __init__(self, name: str, *, seconds_left: float) -> None:
        super().__init__(f"circuit breaker {name} is open for another {seconds_left:.0f} s")
        self.name = name
        self.seconds_left = seconds_left


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerReport:
    """How a breaker stands: failures in a row, trips since the start, seconds until a probe."""

    name: str
    state: BreakerState
    failures: int
    trips: int
    seconds_left: float

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "name": self.name,
            "state": self.state.value,
            "failures": self.failures,
            "trips": self.trips,
            "seconds_left": self.seconds_left,
        }


class Breakers:
    """Every breaker of this process; each begins closed when it is first named.

    `clock` tells seconds that nobody sets. Safe in any number of threads.

    >>> breakers = Breakers(failures_max=1, clock=lambda: 0.0)
    >>> breakers.call("door", lambda: 1 / 0)
    Traceback (most recent call last):
    ZeroDivisionError: division by zero
    >>> breakers.call("door", lambda: "never called")
    Traceback (most recent call last):
    liveops.breakers.BreakerOpen: circuit breaker door is open for another 60 s
    >>> breakers.not_closed()
    ('door',)
    """

    def __init__(
        self,
        *,
        failures_max: int = FAILURES_MAX,
        recovery_seconds: float = RECOVERY_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Know no breaker yet."""
        self._failures_max = failures_max
        self._recovery_seconds = recovery_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._breakers: dict[str, Breaker] = {}

    def of(self, name: str) -> Breaker:
        """Return the breaker of this name."""
        with self._lock:
            if name not in self._breakers:
                self._breakers[name] = Breaker(
                    failures_max=self._failures_max, recovery_seconds=self._recovery_seconds
                )
            return self._breakers[name]

    def call(
        self, name: str, function: Callable[[], T], *, answers: tuple[type[Exception], ...] = ()
    ) -> T:
        """Call through the breaker; any error is a failure but `answers`, which say "not you".

        Raises `BreakerOpen` without a call, and whatever `function` raises.
        """
        breaker = self.of(name)
        if not breaker.admits(at=self._clock()):
            raise BreakerOpen(name, seconds_left=breaker.seconds_left(at=self._clock()))
        try:
            result = function()
        except answers:
            breaker.succeeded()
            raise
        except BaseException:
            trips = breaker.trips
            breaker.failed(at=self._clock())
            if breaker.trips > trips:
                log.warning("circuit breaker opened", extra={"breaker": name})
            raise
        breaker.succeeded()
        return result

    def admits(self, name: str) -> bool:
        """Say whether a call would go out now; a probe is not used up by asking."""
        return self.of(name).seconds_left(at=self._clock()) == 0

    def require(self, name: str) -> None:
        """Raise `UnknownName` where no breaker is called so."""
        with self._lock:
            known = sorted(self._breakers)
        if name not in known:
            raise UnknownName(kind="circuit breaker", name=name, known=known)

    def reset(self, name: str) -> BreakerReport:
        """Close a breaker, whatever it knows; raises `UnknownName`."""
        self.require(name)
        breaker = self.of(name)
        breaker.succeeded()
        return self._report(name, breaker)

    def listed(self) -> list[BreakerReport]:
        """Return how every breaker stands, by name."""
        with self._lock:
            known = sorted(self._breakers.items())
        return [self._report(name, breaker) for name, breaker in known]

    def not_closed(self) -> tuple[str, ...]:
        """Return the names of those that refuse calls, or wait for a probe's answer."""
        closed = BreakerState.CLOSED
        return tuple(report.name for report in self.listed() if report.state is not closed)

    def _report(self, name: str, breaker: Breaker) -> BreakerReport:
        return BreakerReport(
            name=name,
            state=BreakerState(breaker.state),
            failures=breaker.failures,
            trips=breaker.trips,
            seconds_left=breaker.seconds_left(at=self._clock()),
        )
