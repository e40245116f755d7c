"""What a heartbeat may say, and how errors are counted over lost beats and restarts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from ledger import NOON
from vitals import STARTED, beat

from bandit.core.errors import InvalidInput
from bandit.core.heartbeat import BotRecord, BreakerState, Heartbeat, check_past, heard

WINDOW = timedelta(minutes=10)
MINUTE = timedelta(minutes=1)


def known(*beats: Heartbeat, heard_at: list[datetime] | None = None) -> BotRecord:
    """What is known after these, heard when they were sent unless told."""
    held: BotRecord | None = None
    for number, told in enumerate(beats):
        now = told.sent_at if heard_at is None else heard_at[number]
        held = heard(held, told, now=now, window=WINDOW)
    assert held is not None
    return held


def at(minute: float, errors: int, *, started: datetime = STARTED) -> Heartbeat:
    return beat(sent_at=NOON + minute * MINUTE, started_at=started, api_errors_total=errors)


def within(held: BotRecord, minute: float) -> int:
    return held.errors_within(WINDOW, now=NOON + minute * MINUTE)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"bot": "Alpha"}, "bot"),
        ({"account": ""}, "account"),
        ({"api_errors_total": -1}, "api_errors_total"),
        ({"api_errors_total": 10**9 + 1}, "api_errors_total"),
        ({"open_positions": -1}, "open_positions"),
        ({"candle_seconds": 31 * 86_400 + 1}, "candle_seconds"),
        ({"candles": {"": NOON}}, "candles"),
        ({"candles": {f"S{n}": NOON for n in range(65)}}, "candles"),
        ({"breakers": {"a b": BreakerState.OPEN}}, "breakers"),
        ({"breakers": {f"b{n}": BreakerState.OPEN for n in range(33)}}, "breakers"),
        ({"model_version": " "}, "model.version"),
        ({"started_at": NOON + MINUTE}, "started_at"),
        ({"sent_at": NOON.replace(tzinfo=None)}, "sent_at"),
        ({"candles": {"BTCUSDT": NOON.replace(year=1999)}}, "candles.BTCUSDT"),
    ],
)
def test_what_no_bot_can_be_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        beat(**fields)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("sent_at", {"sent_at": NOON + 5 * MINUTE + timedelta(microseconds=1)}),
        ("candles.BTCUSDT", {"candles": {"BTCUSDT": NOON + 6 * MINUTE}}),
        ("model.trained_at", {"model_trained_at": NOON + 6 * MINUTE}),
        ("last_trade_at", {"last_trade_at": NOON + 6 * MINUTE}),
    ],
)
def test_a_time_of_the_future_is_refused_beyond_what_clocks_differ(
    field: str, fields: dict[str, Any]
) -> None:
    check_past(beat(sent_at=NOON + 5 * MINUTE, candles={}), now=NOON)
    told = beat(**({"candles": {}} | fields))
    with pytest.raises(InvalidInput) as refused:
        check_past(told, now=NOON)
    assert refused.value.field == field


def test_the_same_again_and_an_older_one_change_nothing() -> None:
    held = known(at(1, 3), at(2, 4))
    for again in (at(2, 4), at(1, 3), at(2, 99), at(0, 99, started=NOON - MINUTE)):
        assert heard(held, again, now=NOON + 9 * MINUTE, window=WINDOW) is held


def test_lost_heartbeats_lose_no_error() -> None:
    every = known(*(at(minute, minute) for minute in range(1, 10)))
    some = known(at(1, 1), at(9, 9))
    assert within(every, 9) == within(some, 9) == 8


def test_errors_leave_the_window_when_they_were_told_as_long_ago() -> None:
    held = known(at(0, 0), at(1, 4), at(2, 6))
    assert [within(held, minute) for minute in (2, 10.99, 11, 11.99, 12)] == [6, 6, 2, 2, 0]


def test_a_restart_begins_a_new_count_and_forgets_no_error() -> None:
    again = NOON + 3 * MINUTE
    held = known(at(0, 0), at(2, 4), at(4, 1, started=again), at(5, 3, started=again))
    assert within(held, 5) == 7
    # A count that falls without another start is a restart all the same.
    assert within(known(at(0, 0), at(2, 4), at(4, 1)), 4) == 5


def test_a_bot_that_is_new_and_began_in_the_window_has_all_of_its_errors_counted() -> None:
    assert within(known(at(0, 7, started=NOON - 9 * MINUTE)), 0) == 7


def test_errors_of_before_a_long_running_bot_was_heard_of_are_not_dated() -> None:
    held = known(at(0, 700, started=NOON - 10 * MINUTE), at(1, 702, started=NOON - 10 * MINUTE))
    assert within(held, 1) == 2


def test_however_many_heartbeats_come_little_is_kept_and_no_error_is_lost() -> None:
    held: BotRecord | None = None
    for second in range(3600):
        told = at(second / 60, second, started=NOON)
        held = heard(held, told, now=told.sent_at, window=WINDOW)
        assert len(held.errors) <= 63
    assert held is not None
    # 600 in the window; what is thinned out may let those of one step more count.
    assert 600 <= within(held, 3599 / 60) <= 610


def test_a_window_that_was_set_longer_keeps_as_little() -> None:
    held: BotRecord | None = None
    for number in range(0, 3600, 5):
        told = at(number / 60, number, started=NOON)
        window = WINDOW if number < 1800 else timedelta(days=7)
        held = heard(held, told, now=told.sent_at, window=window)
        assert len(held.errors) <= 63


def test_what_was_heard_later_is_not_dated_earlier() -> None:
    held = known(at(1, 1), at(2, 3), heard_at=[NOON + 3 * MINUTE, NOON + 2 * MINUTE])
    assert held.heard_at == NOON + 3 * MINUTE
    assert held.newest.sent_at == NOON + 2 * MINUTE


def test_after_the_clock_was_set_back_the_next_one_counts_and_no_error_is_lost() -> None:
    held = known(at(0, 0), at(55, 4), at(60, 6))
    back = NOON + 30 * MINUTE
    told = heard(
        held, beat(sent_at=back, running=False, api_errors_total=7), now=back, window=WINDOW
    )
    assert (told.newest.running, told.heard_at) == (False, back)
    # Whatever was told lately was told now at the latest, and leaves the window from here.
    assert [within(told, minute) for minute in (30, 39.99, 40)] == [7, 7, 0]
    assert told.first_heard_at == NOON


def test_clocks_of_replicas_that_differ_are_no_clock_that_was_set_back() -> None:
    held = known(at(1, 1), at(2, 3))
    for seconds in (10, 120):
        now = held.heard_at - timedelta(seconds=seconds)
        assert heard(held, at(1, 1), now=now, window=WINDOW) is held
