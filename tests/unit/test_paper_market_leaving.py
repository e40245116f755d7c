"""Leaving the paper market by decision, and funding, by hand.

A long of 1000 enters at 100, the open of bar 1: its size is 10.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from environments import candles_of

from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import Side
from learners.market.brackets import REASONS, bracket_ends
from learners.market.candles import Candles
from learners.market.paper_market import (
    Costs,
    ExitReason,
    PaperPosition,
    Proposal,
    funding_charges,
    mark,
    open_position,
    settle,
)

FREE = Costs(fee_ratio=0.0, slippage_ratio=0.0)
START = datetime(2024, 1, 1, tzinfo=UTC)
BEFORE = (100.0, 100.0, 100.0, 100.0)


def rising(*, hours: int = 1) -> Candles:
    rows = [BEFORE, (100, 101, 99, 100), (101, 102, 98.9, 101), (102, 103, 101, 102), BEFORE]
    return candles_of(rows, hours=hours)


def entered(candles: Candles, side: Side = Side.LONG, bars: int = 9) -> PaperPosition:
    wish = Proposal(side=side, stop_ratio=0.05, take_profit_ratio=0.05, holding_bars_max=bars)
    position = open_position(candles, bar=0, proposal=wish, notional=Decimal(1000), costs=FREE)
    assert position is not None
    return position


def test_who_decides_to_leave_leaves_at_the_next_open() -> None:
    candles = rising()

    closed = settle(candles, entered(candles), left_at=2)

    assert closed is not None
    assert (closed.exit_reason, closed.exit_price, closed.pnl) == (ExitReason.DECISION, 102, 20)
    assert closed.closed_at == START + timedelta(hours=3)
    # the low of bar 2, 98.9
    assert closed.worst_excursion == Decimal("0.011")


def test_leaving_costs_what_every_exit_costs() -> None:
    candles = rising()
    wish = Proposal(side=Side.LONG, stop_ratio=0.05, take_profit_ratio=0.05, holding_bars_max=9)
    costs = Costs(fee_ratio=0.001, slippage_ratio=0.002)
    position = open_position(candles, bar=0, proposal=wish, notional=Decimal(1000), costs=costs)
    assert position is not None

    closed = settle(candles, position, left_at=1)

    assert closed is not None
    # in: 9.98003992 at 100.2; out: 101 slips to 100.798; fees 1.00000000 and 1.00596806
    assert closed.fees == Decimal("2.00596806")
    # 9.98003992 * 0.598 = 5.96806387
    assert closed.pnl == Decimal("3.96209581")


def test_a_bracket_that_ends_first_or_at_that_open_keeps_its_reason() -> None:
    candles = rising()
    gap = candles_of([BEFORE, (100, 101, 99, 100), (90, 91, 89, 90), BEFORE])
    inside = candles_of([BEFORE, (100, 101, 94, 95), BEFORE, BEFORE])

    out_of_time = settle(candles, entered(candles, bars=2), left_at=2)
    gapped = settle(gap, entered(gap), left_at=1)
    stopped = settle(inside, entered(inside), left_at=1)

    assert out_of_time is not None
    assert (out_of_time.exit_reason, out_of_time.pnl) == (ExitReason.TIME, 20)
    assert gapped is not None
    assert (gapped.exit_reason, gapped.pnl) == (ExitReason.STOP, -100)
    assert stopped is not None
    assert (stopped.exit_reason, stopped.pnl) == (ExitReason.STOP, -50)


def test_leaving_when_the_candles_end_has_no_outcome_and_before_the_entry_is_refused() -> None:
    candles = rising()
    position = entered(candles)

    assert settle(candles, position, left_at=4) is None
    for bar in (0, 5):
        with pytest.raises(InvalidInput, match=r"bar: must be in \[1, 5\)"):
            settle(candles, position, left_at=bar)


@pytest.mark.parametrize(("side", "sign"), [(Side.LONG, 1), (Side.SHORT, -1)])
def test_funding_takes_from_longs_what_it_gives_to_shorts(side: Side, sign: int) -> None:
    candles = rising(hours=8)
    position = entered(candles, side)

    closed = settle(candles, position, left_at=2, funding=funding_charges(candles, 0.001))

    assert closed is not None
    # not at the entry; 10 * 101 * 0.001 at bar 2, 10 * 102 * 0.001 at the open it leaves at
    assert closed.funding == sign * Decimal("2.03")
    assert closed.pnl == sign * Decimal("17.97")
    assert closed.return_ratio == sign * Decimal("0.01797")


def test_an_excursion_and_a_mark_know_what_was_paid_by_then() -> None:
    candles = rising(hours=8)
    charges = funding_charges(candles, 0.001)
    position = entered(candles)

    closed = settle(candles, position, left_at=2, funding=charges)
    first, second = (mark(candles, position, bar=bar, funding=charges) for bar in (1, 2))

    # at the low of bar 2: 10 * (98.9 - 100) - 1.01
    assert closed is not None
    assert closed.worst_excursion == Decimal("0.01201")
    assert (first.pnl, first.worst_excursion) == (0, Decimal("0.01"))
    assert (second.pnl, second.worst_excursion) == (Decimal("8.99"), Decimal("0.01201"))


def test_every_funding_since_the_open_before_is_charged() -> None:
    days = candles_of([BEFORE] * 3, hours=24)
    hours = candles_of([BEFORE] * 18)

    np.testing.assert_allclose(funding_charges(days, 0.001), [0, 0.003, 0.003])
    assert np.flatnonzero(funding_charges(hours, 0.001)).tolist() == [8, 16]
    rates = np.arange(18) / 1000
    assert funding_charges(hours, rates)[[7, 8, 16, 17]].tolist() == [0, 0.008, 0.016, 0]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (np.zeros(4), r"funding: must be one for all or one for each of 5 bars, found \(4,\)"),
        (float("nan"), r"funding: must be in \(-0\.1, 0\.1\), found nan"),
        (np.array([0, 0, -0.1, 0, 0]), r"funding: must be in \(-0\.1, 0\.1\), found -0\.1"),
    ],
)
def test_senseless_funding_is_refused(rates: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        funding_charges(rising(), rates)  # type: ignore[arg-type]  # a bad value


@pytest.mark.parametrize("side", list(Side))
def test_the_table_of_brackets_ends_each_as_settle_does(side: Side) -> None:
    rng = np.random.default_rng(5)
    opens = 100 + rng.integers(-9, 10, size=400).cumsum() / 5
    closes = opens + rng.integers(-9, 10, size=400) / 5
    spread = rng.integers(0, 6, size=(2, 400)) / 5
    highs, lows = np.maximum(opens, closes) + spread[0], np.minimum(opens, closes) - spread[1]
    candles = candles_of(zip(opens, highs, lows, closes, strict=True))
    wish = Proposal(side=side, stop_ratio=0.03, take_profit_ratio=0.04, holding_bars_max=6)

    ends = bracket_ends(candles, wish, bars=range(1, 400))

    reasons = set()
    for i in range(399):
        position = open_position(candles, bar=i, proposal=wish, notional=Decimal(1000), costs=FREE)
        assert position is not None
        closed = settle(candles, position)
        if closed is None:
            assert ends.bar[i] == -1
            continue
        reasons.add(closed.exit_reason)
        bar = 1 + int(ends.bar[i])
        at = candles.opening(bar) if ends.at_open[i] else candles.closing(bar)
        assert (REASONS[ends.reason[i]], at) == (closed.exit_reason, closed.closed_at)
        assert ends.price[i] == float(closed.exit_price)
    assert reasons == {ExitReason.STOP, ExitReason.TAKE_PROFIT, ExitReason.TIME}
