"""A bot's own deadlines: however its clocks move, silence never becomes younger."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from ledger import NOON

from bandit.core.watch import Deadlines
from liveops.api.watching import told
from liveops.client.watch import Level, Watch, later, level, says_the_same, watch_of

ORDER = list(Level)
allowances = st.integers(0, 100_000)
jumps = st.floats(-1e6, 1e6).map(lambda seconds: timedelta(seconds=seconds))


@st.composite
def watches(draw: st.DrawFn) -> Watch:
    heard_at = NOON + draw(jumps)
    if draw(st.booleans()):
        return Watch(heard_at=draw(st.sampled_from([None, heard_at])))
    throttle = draw(allowances)
    halt = throttle + draw(allowances)
    return Watch(heard_at=heard_at, throttle_seconds=throttle, halt_seconds=halt)


@given(watches(), st.lists(st.tuples(jumps, st.floats(0, 1e5)), max_size=10))
def test_no_clock_that_is_set_gives_back_what_has_passed(
    watch: Watch, steps: list[tuple[timedelta, float]]
) -> None:
    """The wall clock jumps to anywhere while seconds pass by the other one."""
    observed = 0.0
    for jump, seconds in steps:
        observed += seconds
        found = level(watch, now=NOON + jump, observed_seconds=observed)
        if watch.throttle_seconds is None or watch.halt_seconds is None:
            assert found is Level.WATCHED
            continue
        if observed >= watch.throttle_seconds:
            assert found is not Level.WATCHED
        assert found is Level.HALTED or observed < watch.halt_seconds


@given(watches(), jumps, st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_longer_nothing_is_heard_the_stricter(
    watch: Watch, jump: timedelta, observed: float, more: float
) -> None:
    now = NOON + jump
    levels = [
        level(watch, now=now, observed_seconds=observed),
        level(watch, now=now + timedelta(seconds=more), observed_seconds=observed + more),
    ]
    assert levels == sorted(levels, key=ORDER.index)


@given(watches(), watches())
def test_of_two_processes_the_later_is_believed_and_nobody_from_the_future(
    ours: Watch, stored: Watch
) -> None:
    found = later(ours, stored, latest=NOON)
    assert found in (ours, stored)
    heard = [w.heard_at for w in (ours, stored) if w.heard_at is not None]
    if stored.heard_at is not None and stored.heard_at <= NOON:
        assert found.heard_at == max(heard)
    else:
        assert found is ours


@given(watches(), watches(), st.floats(1, 100))
def test_what_stays_stored_never_gives_more_than_was_told(
    heard: Watch, stored: Watch, within: float
) -> None:
    if not says_the_same(heard, stored, within_seconds=within):
        return
    later_by = timedelta(seconds=1)  # deadlines are told in whole seconds
    if heard.heard_at is None or heard.throttle_seconds is None or heard.halt_seconds is None:
        assert stored.throttle_seconds is None
        return
    assert stored.heard_at is not None
    assert stored.throttle_seconds is not None
    assert stored.halt_seconds is not None
    for ours, theirs in (
        (heard.throttle_seconds, stored.throttle_seconds),
        (heard.halt_seconds, stored.halt_seconds),
    ):
        deadline = heard.heard_at + timedelta(seconds=ours)
        assert stored.heard_at + timedelta(seconds=theirs) <= deadline + later_by


@given(st.floats(-1e6, 8e7), st.floats(-1e6, 8e7))
def test_bots_read_what_the_service_tells_and_never_more_time_than_there_is(
    throttle: float, halt: float
) -> None:
    heard = watch_of(told(Deadlines(throttle_in=throttle, halt_in=halt)), heard_at=NOON)
    assert heard is not None
    assert heard.throttle_seconds is not None
    assert heard.halt_seconds is not None
    assert max(0.0, throttle) - 1 < heard.throttle_seconds <= max(0.0, throttle)
    assert max(0.0, halt) - 1 < heard.halt_seconds <= max(0.0, halt)
