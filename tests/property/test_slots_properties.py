"""Slots by arithmetic: those of APScheduler's CronTrigger, whatever the schedule and the moment."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from liveops.schedule import Daily, Hourly, Weekday, Weekly, When, newest_slot, next_slot
from liveops.scheduler import trigger_of

hours = st.integers(0, 23).map(time)
whens: st.SearchStrategy[When] = st.one_of(
    st.builds(Hourly, minute=st.integers(0, 59)),
    st.builds(Daily, at=hours),
    st.builds(Weekly, on=st.sampled_from(Weekday), at=hours),
)
moments = st.integers(0, 99 * 365 * 86_400 * 10**6).map(
    lambda count: datetime(2000, 1, 9, tzinfo=UTC) + timedelta(microseconds=count)
)


@given(when=whens, moment=moments)
def test_the_next_slot_is_when_the_trigger_fires(when: When, moment: datetime) -> None:
    after = moment + timedelta(microseconds=1)
    assert trigger_of(when).get_next_fire_time(None, after) == next_slot(when, moment)


@given(when=whens, moment=moments)
def test_no_slot_lies_between_the_newest_and_the_next(when: When, moment: datetime) -> None:
    newest = newest_slot(when, moment)
    assert newest <= moment < newest + when.period == next_slot(when, moment)
    assert newest_slot(when, newest) == newest
