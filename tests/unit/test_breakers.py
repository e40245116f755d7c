"""Circuit breakers of the service: when they call, and when they do not."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from vitals import NOON

from bandit.core.errors import UnknownName
from bandit.core.health import HealthLimits, Vitals, assess
from bandit.core.health_table import HealthLevel
from bandit.core.heartbeat import BreakerState
from config.settings import Settings
from liveops.breakers import BreakerOpen, Breakers
from liveops.wiring import breakers_of

CLOSED, OPEN, HALF_OPEN = BreakerState


class Door:
    """Another side that answers or not, behind a breaker whose time is moved by hand."""

    def __init__(self, **settings: float) -> None:
        self.at = 0.0
        self.is_up = False
        self.calls = 0
        chosen = Settings.model_validate({"breakers": settings})
        self.breakers = breakers_of(chosen)
        self.breakers._clock = lambda: self.at

    def knock(self) -> str:
        def answer() -> str:
            self.calls += 1
            if not self.is_up:
                raise ConnectionError("nobody there")
            return "welcome"

        try:
            return self.breakers.call("door", answer)
        except (ConnectionError, BreakerOpen) as error:
            return type(error).__name__

    @property
    def state(self) -> BreakerState:
        [report] = self.breakers.listed()
        return report.state


def test_it_opens_after_failures_in_a_row_and_a_probe_closes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door = Door()
    assert [door.knock() for _ in range(4)] == ["ConnectionError"] * 3 + ["BreakerOpen"]
    assert (door.calls, door.state) == (3, OPEN)
    door.at = 59.9
    assert door.knock() == "BreakerOpen"
    door.at, door.is_up = 60.0, True
    assert (door.knock(), door.state) == ("welcome", CLOSED)
    [report] = door.breakers.listed()
    assert (report.trips, report.failures, report.seconds_left) == (1, 0, 0.0)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "circuit breaker opened"
    ]


def test_an_answer_between_failures_keeps_it_closed() -> None:
    door = Door()
    for is_up in (False, False, True, False, False):
        door.is_up = is_up
        door.knock()
    assert (door.state, door.calls) == (CLOSED, 5)


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    door = Door(failures_max=1, recovery_seconds=10.0)
    door.knock()
    door.at = 10.0
    assert door.knock() == "ConnectionError"
    assert (door.state, door.knock()) == (OPEN, "BreakerOpen")
    door.at = 20.0
    assert door.knock() == "ConnectionError"
    [report] = door.breakers.listed()
    assert (report.trips, report.seconds_left) == (3, 10.0)


def test_while_a_probe_is_out_nobody_else_calls() -> None:
    door = Door(failures_max=1)
    door.knock()
    door.at = 60.0
    seen: list[object] = []

    def probe() -> None:
        seen.append((door.state, door.knock()))

    door.breakers.call("door", probe)
    assert seen == [(HALF_OPEN, "BreakerOpen")]
    assert door.state is CLOSED


def test_of_many_threads_one_probes() -> None:
    door = Door(failures_max=1)
    door.knock()
    door.at = 60.0
    barrier = threading.Barrier(8)
    called: list[int] = []

    def knock(thread: int) -> bool:
        barrier.wait()
        try:
            door.breakers.call("door", lambda: (called.append(thread), 1 / 0))
        except BreakerOpen:
            return False
        except ZeroDivisionError:
            return True
        raise AssertionError("it neither called nor refused")

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(knock, range(8))) == 1
    assert len(called) == 1


def test_calls_under_way_when_it_opens_do_not_count_as_trips() -> None:
    breaker = Breakers(failures_max=1).of("door")
    for at in (1.0, 2.0):
        breaker.failed(at=at)
    assert (breaker.trips, breaker.seconds_left(at=2.0)) == (1, 60.0)


def test_an_error_that_is_an_answer_closes_it() -> None:
    door = Door(failures_max=1)
    door.knock()
    door.at = 60.0
    with pytest.raises(KeyError):
        door.breakers.call("door", lambda: {}["missing"], answers=(KeyError,))
    assert door.state is CLOSED


def test_reset_closes_it_and_knows_its_names() -> None:
    door = Door(failures_max=1)
    door.knock()
    assert door.breakers.not_closed() == ("door",)
    assert not door.breakers.admits("door")
    assert door.breakers.reset("door").state is CLOSED
    door.is_up = True
    assert door.knock() == "welcome"
    with pytest.raises(UnknownName, match=r"no circuit breaker .* as .gate.; known: door"):
        door.breakers.reset("gate")
    assert [report.name for report in door.breakers.listed()] == ["door"]


def test_one_that_is_not_closed_makes_the_service_degraded() -> None:
    health = assess(Vitals(now=NOON, breakers=("notify.discord",)), HealthLimits())
    assert health.level is HealthLevel.DEGRADED
    assert health.texts(HealthLevel.DEGRADED) == [
        "the circuit breaker notify.discord of the service is open"
    ]
    assert health.meanings(HealthLevel.DEGRADED) == ["a circuit breaker is open"]
