"""Results on paper by day: exact sums, and the profit factor of the newest."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.paper_days import PaperDay, PaperSums, newest_factor

DAY = date(2026, 3, 2)


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
        found = newest_factor(known, window=window, reaching=DAY)
        assert found is not None
        assert (found.n, found.n_losses) == (4, 2)
        assert found.value == pytest.approx(5 / 3)
    alone = newest_factor(known, window=2, reaching=DAY)
    assert alone is not None
    assert (alone.n, alone.value) == (2, 1.0)


def test_the_order_in_which_days_are_read_does_not_matter() -> None:
    known = days(d2=["0.001", "-0.001"], d3=["0.004", "-0.002"])
    found = newest_factor(known, window=2, reaching=DAY)
    assert found == sums("0.004", "-0.002").profit_factor
    assert newest_factor(reversed(known), window=2, reaching=DAY) == found


@pytest.mark.parametrize(("day", "is_known"), [(1, True), (2, True), (3, False)])
def test_what_ended_before_the_day_says_nothing(day: int, is_known: bool) -> None:
    known = days(d1=["0.003", "-0.001"], d2=["0.001", "-0.002"])
    found = newest_factor(known, window=4, reaching=date(2026, 3, day))
    assert (found is not None) is is_known


@pytest.mark.parametrize("known", [[], days(d2=["0.001"] * 29)])
def test_fewer_trades_than_the_window_say_nothing(known: list[PaperDay]) -> None:
    assert newest_factor(known, window=30, reaching=DAY) is None


def test_trades_without_a_loss_have_no_quotient() -> None:
    found = newest_factor(days(d2=["0.001"] * 30), window=30, reaching=DAY)
    assert found is not None
    assert (found.value, found.n) == (None, 30)


def test_window_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        newest_factor([], window=0, reaching=DAY)
    assert refused.value.field == "window"
