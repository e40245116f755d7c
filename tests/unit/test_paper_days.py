"""Results on paper by day: exact sums, and the profit factor of the newest."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.paper_days import PaperDay, PaperSums, newest_factor

MOMENT = datetime(2026, 3, 1, 14, tzinfo=UTC)


def sums(*earned: str) -> PaperSums:
    return PaperSums.of(map(Decimal, earned))


def days(**earned: list[str]) -> list[PaperDay]:
    """Days of March by their number, as `d2=[…]`."""
    return [
        PaperDay(day=date(2026, 3, int(name[1:])), sums=sums(*returns))
        for name, returns in earned.items()
    ]


def test_sums_are_exact_to_the_last_digit_of_a_return() -> None:
    largest, smallest = "999.999999999999", "-0.000000000001"
    found = sums(*[largest] * 3, smallest, "0")
    assert found == PaperSums(
        n_trades=5,
        n_losses=1,
        return_sum=Decimal("2999.999999999996"),
        return_squares=Decimal("2999999.999999994000000000000004"),
        return_gain=Decimal("2999.999999999997"),
        return_loss=Decimal("0.000000000001"),
    )


def test_parts_add_up_and_are_taken_back() -> None:
    first, second = sums("0.003", "-0.001"), sums("-0.002", "0")
    assert first + second == sums("0", "-0.002", "-0.001", "0.003")
    assert first + second - second == first
    assert first - first == PaperSums()


def test_the_newest_days_count_whole_until_there_are_enough_trades() -> None:
    known = days(d2=["9"], d3=["0.004", "-0.002"], d4=[], d5=["0.001", "-0.001"])
    # 3 and 5 March: 0.005 won, 0.003 lost.
    for window in (3, 4):
        found = newest_factor(known, MOMENT, window)
        assert found is not None
        assert (found.n, found.n_losses) == (4, 2)
        assert found.value == pytest.approx(5 / 3)
    alone = newest_factor(known, MOMENT, 2)
    assert alone is not None
    assert (alone.n, alone.value) == (2, 1.0)


def test_the_order_in_which_days_are_read_does_not_matter() -> None:
    known = days(d2=["0.001", "-0.001"], d3=["0.004", "-0.002"])
    assert newest_factor(reversed(known), MOMENT, 2) == newest_factor(known, MOMENT, 2)
    assert newest_factor(known, MOMENT, 2) == sums("0.004", "-0.002").profit_factor


def test_the_day_of_the_moment_does_not_count_nor_what_came_before() -> None:
    known = days(d1=["9"] * 30, d2=["0.001", "-0.002"])
    assert newest_factor(known, MOMENT, 3) is None
    found = newest_factor(known, MOMENT, 2)
    assert found is not None
    assert found.value == 0.5


def test_days_are_those_of_utc() -> None:
    # 1 March, 23:30 in UTC.
    moment = datetime(2026, 3, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert newest_factor(days(d2=["0.001"]), moment, 1) is not None


@pytest.mark.parametrize("known", [[], days(d1=["0.001"] * 50), days(d2=["0.001"] * 29)])
def test_fewer_trades_than_the_window_say_nothing(known: list[PaperDay]) -> None:
    assert newest_factor(known, MOMENT, 30) is None


def test_trades_without_a_loss_have_no_quotient() -> None:
    found = newest_factor(days(d2=["0.001"] * 30), MOMENT, 30)
    assert found is not None
    assert (found.value, found.n) == (None, 30)


@pytest.mark.parametrize(
    ("moment", "window", "field"),
    [(MOMENT, 0, "window"), (MOMENT.replace(tzinfo=None), 1, "since")],
)
def test_what_cannot_be_asked_is_refused(moment: datetime, window: int, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        newest_factor([], moment, window)
    assert refused.value.field == field
