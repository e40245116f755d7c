"""Which snapshots stay, which wait for the bucket, and which are damaged."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.snapshots import (
    Retention,
    SnapshotEvent,
    SnapshotRecord,
    SnapshotStore,
    damaged,
    needed_dates,
    pending_uploads,
)

MONDAY = date(2026, 3, 2)
LOCAL, S3 = SnapshotStore.LOCAL, SnapshotStore.S3
STORED, PRUNED = SnapshotEvent.STORED, SnapshotEvent.PRUNED
VERIFIED, DAMAGED = SnapshotEvent.VERIFIED, SnapshotEvent.DAMAGED


def record(
    store: SnapshotStore, event: SnapshotEvent, *, day: date = MONDAY, hour: int = 12
) -> SnapshotRecord:
    return SnapshotRecord(
        date=day,
        store=store,
        event=event,
        manifest_sha256="a" * 64,
        size=1,
        recorded_at=datetime(2026, 3, 9, hour, tzinfo=UTC),
    )


def test_the_last_days_stay_then_the_first_of_each_week() -> None:
    # Monday 2 March to Sunday 22 March; the weeks begin on the 2nd, the 9th and the 16th.
    days = [MONDAY + timedelta(days=n) for n in range(21)]
    kept = Retention(days=2, weeks=2).kept(days, today=date(2026, 3, 22))
    assert [day.day for day in kept] == [9, 16, 21, 22]


def test_a_week_without_a_monday_keeps_the_first_it_has() -> None:
    days = [date(2026, 3, 4), date(2026, 3, 6), date(2026, 3, 20)]
    kept = Retention(days=1, weeks=4).kept(days, today=date(2026, 3, 20))
    assert [day.day for day in kept] == [4, 20]


@pytest.mark.parametrize("today", [date(2026, 3, 3), date(2030, 1, 1), date(2020, 1, 1)])
def test_the_newest_stays_whatever_the_date(today: date) -> None:
    days = [MONDAY, MONDAY + timedelta(days=1)]
    assert days[-1] in Retention(days=1, weeks=0).kept(days, today=today)
    assert Retention(days=1, weeks=0).kept([], today=today) == []


dates = st.dates(date(2025, 1, 1), date(2026, 12, 31))


@given(
    days=st.sets(dates, max_size=60),
    today=dates,
    keep=st.integers(1, 40),
    weeks=st.integers(0, 20),
    held=st.sets(dates, max_size=5),
)
def test_pruned_again_nothing_more_goes(
    days: set[date], today: date, keep: int, weeks: int, held: set[date]
) -> None:
    rule = Retention(days=keep, weeks=weeks)
    kept = rule.kept(days, today=today, held=held)
    assert set(kept) <= days
    assert held & days <= set(kept)
    assert {day for day in days if (today - day).days < keep} <= set(kept)
    assert rule.kept(kept, today=today, held=held) == kept


def test_what_lies_here_alone_waits() -> None:
    assert pending_uploads([record(LOCAL, STORED)]) == [MONDAY]
    assert pending_uploads([record(LOCAL, STORED), record(S3, STORED)]) == []
    assert pending_uploads([record(LOCAL, STORED), record(LOCAL, PRUNED)]) == []
    assert pending_uploads([record(S3, STORED)]) == []
    # What the bucket let go does not come back.
    there = [record(LOCAL, STORED), record(S3, STORED), record(S3, PRUNED)]
    assert pending_uploads(there) == []


def test_what_was_mended_or_is_gone_is_damaged_no_more() -> None:
    broken = record(LOCAL, DAMAGED, hour=10)
    assert damaged([broken, record(S3, VERIFIED, hour=11)]) == [broken]
    assert damaged([broken, record(LOCAL, VERIFIED, hour=9)]) == [broken]
    assert damaged([broken, record(LOCAL, VERIFIED, hour=11)]) == []
    assert damaged([broken, record(LOCAL, PRUNED, hour=11)]) == []


def test_the_newest_that_holds_an_artefact_is_needed() -> None:
    contents = [
        (date(2026, 3, day), held) for day, held in ((1, {"a"}), (2, {"a", "b"}), (3, {"b"}))
    ]
    assert needed_dates(contents, needed={"a"}) == {date(2026, 3, 2)}
    assert needed_dates(contents, needed={"b"}) == {date(2026, 3, 3)}
    assert needed_dates(contents, needed={"c"}) == set()
