"""How far an arm's own money stands below its best, beside the equity of all arms."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.daily import Contribution, contribution
from bandit.core.equity import EquityState


def days(*money: int) -> dict[date, Decimal]:
    return {date(2026, 3, number): Decimal(one) for number, one in enumerate(money, start=1)}


def test_a_fall_is_in_percent_of_what_everybody_had_at_the_arms_best() -> None:
    # At its best, on the second day, all have 1000 + 50 + 50 = 1100.
    found = contribution(days(10, 10, -11, 5), days(50, 50, 0, 0), capital=Decimal(1000))
    assert found.percent == pytest.approx(100 * 6 / 1100)
    assert found.max_percent == pytest.approx(100 * 11 / 1100)


def test_of_days_that_stand_as_high_the_first_counts() -> None:
    found = contribution(days(10, 0, -20), days(100, 900, 0), capital=Decimal(900))
    assert found.percent == 2.0


def test_a_loss_on_the_first_day_is_from_the_capital() -> None:
    assert contribution(days(-10), days(-10), capital=Decimal(1000)).percent == 1.0


def test_who_never_traded_has_taken_nothing() -> None:
    assert contribution({}, days(50, -80), capital=Decimal(1000)) == Contribution()


def test_where_nothing_was_left_there_is_no_percentage() -> None:
    lost = contribution(days(0, 5, -1), days(-1000), capital=Decimal(1000))
    assert lost == Contribution(percent=None, max_percent=None)


@given(st.lists(st.integers(-50, 50), max_size=20))
def test_of_the_only_arm_it_is_the_drawdown_of_the_equity(money: list[int]) -> None:
    found = contribution(days(*money), days(*money), capital=Decimal(10_000))
    state = EquityState.start(10_000.0).after(*map(float, money))
    assert found.percent == pytest.approx(state.drawdown_percent)
    assert found.max_percent == pytest.approx(state.drawdown_max_percent)
