"""What the worst of each position says of the account, by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.marked_equity import HeldPosition, marked_drawdown


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


def held(opened: int, closed: int, result: float, worst: float) -> HeldPosition:
    return HeldPosition(opened_at=day(opened), closed_at=day(closed), result=result, worst=worst)


def test_one_position_at_a_time_leaves_nothing_open() -> None:
    # 100 → 120, then 30 under water of a peak of 120.
    positions = [held(1, 2, 20.0, 0.0), held(3, 4, 5.0, -30.0)]
    assert marked_drawdown(positions, starting_capital=100.0) == (25.0, 25.0)


def test_loss_before_a_position_adds_to_its_worst_only_in_the_upper_bound() -> None:
    # After a loss of 10 the account may have stood at 60 when the second was worst.
    positions = [held(1, 2, -10.0, -10.0), held(3, 4, 0.0, -30.0)]
    assert marked_drawdown(positions, starting_capital=100.0) == (30.0, 40.0)


def test_positions_held_together_may_have_stood_worst_together_or_not() -> None:
    positions = [held(1, 3, 0.0, -10.0), held(2, 4, 0.0, -20.0)]
    assert marked_drawdown(positions, starting_capital=100.0) == (20.0, 30.0)


def test_position_that_opens_when_another_closes_is_not_held_with_it() -> None:
    positions = [held(1, 2, 0.0, -10.0), held(2, 3, 0.0, -10.0)]
    assert marked_drawdown(positions, starting_capital=100.0).high_percent == 10.0


def test_positions_of_one_instant_count_together() -> None:
    positions = [held(1, 1, 0.0, -10.0), held(1, 1, 0.0, -10.0)]
    assert marked_drawdown(positions, starting_capital=100.0) == (10.0, 20.0)


def test_closed_losses_alone_are_a_drawdown() -> None:
    positions = [held(1, 2, -10.0, -10.0), held(3, 4, -10.0, -10.0)]
    assert marked_drawdown(positions, starting_capital=100.0) == (20.0, 20.0)


def test_nobody_closes_above_the_worst() -> None:
    assert held(1, 2, -7.0, -1.0).worst == -7.0
    assert held(1, 2, 7.0, 1.0).worst == 0.0


def test_no_position_has_no_drawdown() -> None:
    assert marked_drawdown([], starting_capital=1.0) == (0.0, 0.0)


def test_bad_position_is_refused_by_field() -> None:
    with pytest.raises(InvalidInput, match="opened_at"):
        held(3, 2, 0.0, 0.0)
    with pytest.raises(InvalidInput, match="worst"):
        held(1, 2, 0.0, float("nan"))
    with pytest.raises(InvalidInput, match="closed_at"):
        HeldPosition(opened_at=day(1), closed_at=day(2).replace(tzinfo=None), result=0.0, worst=0.0)
