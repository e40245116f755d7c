"""An account's equity folds in arrival order, whatever way the changes were batched."""

from __future__ import annotations

import itertools
from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from bandit.core.account import AccountEquity, Breach, LossLimit, LossLimits, MoneyChange, folded

TODAY = date(2026, 3, 1)
# Small changes break no limit for long, large ones at once.
money = st.one_of(st.decimals(min_value=-most, max_value=most, places=8) for most in (20, 2000))
changes = st.lists(st.builds(MoneyChange, realised=money, unrealised=money), max_size=30)
START = AccountEquity.opened(day=TODAY, limits=LossLimits()).with_capital(
    Decimal(10_000), day=TODAY
)


@given(changes, st.sets(st.integers(0, 30)))
def test_any_split_into_batches_gives_the_same(arrived: list[MoneyChange], cuts: set[int]) -> None:
    whole, breaches = folded(START, arrived, day=TODAY)
    bounds = sorted({0, len(arrived), *(cut for cut in cuts if cut < len(arrived))})
    state, found = START, []
    for begin, end in itertools.pairwise(bounds):
        state, more = folded(state, arrived[begin:end], day=TODAY)
        found += more
    assert (state, found) == (whole, breaches)


@given(changes, st.integers(-1, 1).map(lambda days: TODAY + timedelta(days=days)))
def test_a_batch_is_one_change_after_the_other(arrived: list[MoneyChange], day: date) -> None:
    state, breaches = START, list[Breach]()
    for change in arrived:
        state, found = state.after(change, day=day)
        breaches += found
    assert folded(START, arrived, day=day) == (state, breaches)


@given(changes)
def test_levels_are_what_a_whole_curve_says(arrived: list[MoneyChange]) -> None:
    state, breaches = folded(START, arrived, day=TODAY)
    curve = [Decimal(10_000)]
    for change in arrived:
        curve.append(curve[-1] + change.realised + change.unrealised)
    assert state.equity == curve[-1]
    assert state.peak == max(curve)
    broken = any(100 * (10_000 - level) > 3 * 10_000 for level in curve)
    assert any(b.limit is LossLimit.DAILY_LOSS for b in breaches) is broken
    # Whatever is broken at the end has its low, and nothing else has one.
    assert set(state.lows) == {limit for limit in LossLimit if state.is_broken(limit)}
