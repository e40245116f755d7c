"""A silent monitor: bots never stop before they are throttled, nor go on for a clock's sake."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger import NOON

from bandit.core.errors import InvalidInput
from bandit.core.watch import (
    Pulse,
    WatchLevel,
    WatchRule,
    checked_interval,
    deadlines,
    seen_again,
)

ORDER = list(WatchLevel)
spans = st.floats(-1e6, 1e6)


@st.composite
def rules(draw: st.DrawFn) -> WatchRule:
    throttle = draw(st.integers(1, 1000))
    return WatchRule(throttle_intervals=throttle, halt_intervals=draw(st.integers(throttle, 1000)))


@st.composite
def pulses(draw: st.DrawFn, *, is_ended: bool = False) -> Pulse:
    return Pulse(
        experiment="btc",
        who="prod",
        at=NOON + timedelta(seconds=draw(st.integers(0, 5))),
        age_seconds=draw(spans),
        interval_seconds=draw(st.floats(0.5, 86_400)),
        is_ended=is_ended,
    )


@given(pulses(), rules(), spans, st.floats(0, 1e6))
def test_the_longer_the_silence_the_stricter_and_never_a_halt_before_a_throttle(
    pulse: Pulse, rule: WatchRule, since: float, more: float
) -> None:
    sooner = deadlines(pulse, rule, seconds_since=since)
    later = deadlines(pulse, rule, seconds_since=since + more)
    assert sooner is not None
    assert later is not None
    assert ORDER.index(sooner.level) <= ORDER.index(later.level)
    assert later.throttle_in <= sooner.throttle_in <= sooner.halt_in
    assert later.halt_in <= sooner.halt_in
    if later.level is WatchLevel.HALT:
        assert later.throttle_in < 0


@given(pulses(), rules(), spans)
def test_no_clock_gives_more_than_one_full_allowance(
    pulse: Pulse, rule: WatchRule, since: float
) -> None:
    found = deadlines(pulse, rule, seconds_since=since)
    assert found is not None
    assert found.throttle_in <= rule.throttle_intervals * pulse.interval_seconds
    assert found.halt_in <= rule.halt_intervals * pulse.interval_seconds


@given(pulses(is_ended=True), rules(), spans)
def test_of_a_monitor_that_was_ended_nothing_is_expected(
    pulse: Pulse, rule: WatchRule, since: float
) -> None:
    assert deadlines(pulse, rule, seconds_since=since) is None


@given(rules(), st.lists(st.tuples(st.floats(0, 1e5), spans), min_size=1, max_size=20))
def test_a_silent_monitor_ages_whatever_the_databases_clock_says(
    rule: WatchRule, reads: list[tuple[float, float]]
) -> None:
    """Each read comes so many seconds later, and finds the same pulse, of whatever age."""
    known: Pulse | None = None
    passed = 0.0
    for seconds, age in reads:
        read = Pulse(
            experiment="btc",
            who="prod",
            at=NOON,
            age_seconds=age,
            interval_seconds=300,
            is_ended=False,
        )
        passed += 0.0 if known is None else seconds
        known = seen_again(known, read, seconds_between=seconds)
        found = deadlines(known, rule)
        assert found is not None
        assert found.throttle_in <= rule.throttle_intervals * 300 - passed + 1e-6
        newer = seen_again(known, read_at_another_time(read), seconds_between=seconds)
        assert newer.age_seconds == age, "a new pulse is as old as it is"


def read_at_another_time(pulse: Pulse) -> Pulse:
    return Pulse(
        experiment=pulse.experiment,
        who=pulse.who,
        at=pulse.at - timedelta(hours=1),  # also one that a clock set back has dated earlier
        age_seconds=pulse.age_seconds,
        interval_seconds=pulse.interval_seconds,
        is_ended=False,
    )


@pytest.mark.parametrize(
    ("age", "level"),
    [(900, "watched"), (900.001, "throttle"), (1800, "throttle"), (1800.001, "halt")],
)
def test_exactly_at_a_deadline_nothing_has_changed_yet(age: float, level: str) -> None:
    pulse = Pulse(
        experiment="btc", who="p", at=NOON, age_seconds=age, interval_seconds=300, is_ended=False
    )
    found = deadlines(pulse, WatchRule())
    assert found is not None
    assert found.level == level


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidInput, match="interval: must be above 0"):
        checked_interval(seconds)


def test_halting_at_once_is_refused() -> None:
    with pytest.raises(InvalidInput, match="throttle_intervals: must be 1 or more"):
        WatchRule(throttle_intervals=0)
