"""The paper market, checked to the last cent against sums worked out by hand.

Bars are ten minutes; every example decides at the close of bar 0 and fills at the open of bar 1,
which is 100. With costs: fee 0.1 %, slippage 0.2 %.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from learners.market.candles import Candles
from learners.market.paper_market import (
    PERPETUAL_TAKER,
    ClosedPosition,
    Costs,
    ExitReason,
    PaperPosition,
    Proposal,
    Side,
    mark,
    open_position,
    reported_at,
    settle,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=10)
FREE = Costs(fee_ratio=0.0, slippage_ratio=0.0)
COSTLY = Costs(fee_ratio=0.001, slippage_ratio=0.002)

DECISION_BAR = (100.0, 100.0, 100.0, 100.0)
QUIET_BAR = (100.0, 101.0, 99.0, 100.0)


def market(*bars: tuple[float, float, float, float]) -> Candles:
    """Bars of (open, high, low, close) after the bar of the decision."""
    rows = (DECISION_BAR, *bars)
    columns = np.array(rows).T
    times = np.datetime64("2024-01-01", "us") + np.arange(len(rows)) * np.timedelta64(10, "m")
    return Candles(
        instrument="BTCUSD",
        opened_at=times,
        open=columns[0],
        high=columns[1],
        low=columns[2],
        close=columns[3],
        volume=np.ones(len(rows)),
    )


def wish(side: Side, holding_bars_max: int = 3) -> Proposal:
    return Proposal(
        side=side, stop_ratio=0.02, take_profit_ratio=0.03, holding_bars_max=holding_bars_max
    )


def opened(candles: Candles, proposal: Proposal, costs: Costs = FREE) -> PaperPosition:
    position = open_position(candles, bar=0, proposal=proposal, notional=Decimal(1000), costs=costs)
    assert position is not None
    return position


def lived(candles: Candles, proposal: Proposal, costs: Costs = FREE) -> ClosedPosition:
    closed = settle(candles, opened(candles, proposal, costs))
    assert closed is not None
    return closed


def test_a_decision_fills_at_the_next_open_with_adverse_slippage() -> None:
    candles = market(QUIET_BAR)

    long = opened(candles, wish(Side.LONG), COSTLY)
    short = opened(candles, wish(Side.SHORT), COSTLY)

    assert (long.entry_price, short.entry_price) == (Decimal("100.2"), Decimal("99.8"))
    assert (long.stop_price, long.take_profit_price) == (98, 103)
    assert (short.stop_price, short.take_profit_price) == (102, 97)
    # 1000 / 100.2 = 9.980039920159..., cut at 8 decimals
    assert long.size == Decimal("9.98003992")
    assert long.opened_at == START + STEP


def test_a_long_that_reaches_its_take_profit() -> None:
    closed = lived(market(QUIET_BAR, (100, 104, 99.5, 103.5)), wish(Side.LONG))

    assert closed.exit_reason is ExitReason.TAKE_PROFIT
    assert (closed.exit_price, closed.pnl, closed.return_ratio) == (103, 30, Decimal("0.03"))
    # 2 of risk a coin, 3 won
    assert closed.r_multiple == Decimal("1.5")
    # the low of the first bar, 99
    assert closed.worst_excursion == Decimal("0.01")
    # inside the second bar: dated to its close
    assert (closed.opened_at, closed.closed_at) == (START + STEP, START + 3 * STEP)


def test_a_short_that_reaches_its_take_profit() -> None:
    closed = lived(market(QUIET_BAR, (100, 101.5, 96, 97)), wish(Side.SHORT))

    assert closed.exit_reason is ExitReason.TAKE_PROFIT
    assert (closed.exit_price, closed.pnl, closed.r_multiple) == (97, 30, Decimal("1.5"))
    # the bar that touched 97 may have been at 101.5 first
    assert closed.worst_excursion == Decimal("0.015")


def test_a_long_that_is_stopped_in_the_bar_it_opened() -> None:
    closed = lived(market((100, 101, 97, 100)), wish(Side.LONG))

    assert closed.exit_reason is ExitReason.STOP
    # the stop at 98, not the low of 97
    assert (closed.exit_price, closed.pnl, closed.r_multiple) == (98, -20, -1)
    assert closed.worst_excursion == Decimal("0.02")
    assert closed.closed_at == START + 2 * STEP


def test_a_short_that_is_stopped() -> None:
    closed = lived(market(QUIET_BAR, (101, 102, 100, 101)), wish(Side.SHORT))

    assert closed.exit_reason is ExitReason.STOP
    assert (closed.exit_price, closed.pnl, closed.return_ratio) == (102, -20, Decimal("-0.02"))


@pytest.mark.parametrize("side", list(Side))
def test_a_bar_that_touches_both_levels_counts_as_the_stop(side: Side) -> None:
    closed = lived(market((100, 110, 90, 100)), wish(side))

    assert (closed.exit_reason, closed.pnl) == (ExitReason.STOP, -20)


@pytest.mark.parametrize(("side", "opening"), [(Side.LONG, 95.0), (Side.SHORT, 105.0)])
def test_a_bar_that_opens_beyond_the_stop_fills_at_its_open(side: Side, opening: float) -> None:
    closed = lived(market(QUIET_BAR, (opening, 105, 95, 100)), wish(side))

    assert closed.exit_reason is ExitReason.STOP
    assert (float(closed.exit_price), closed.pnl, closed.r_multiple) == (
        opening,
        -50,
        Decimal("-2.5"),
    )
    assert closed.worst_excursion == Decimal("0.05")
    # known at once: dated to the open
    assert closed.closed_at == START + 2 * STEP


@pytest.mark.parametrize(("side", "opening"), [(Side.LONG, 105.0), (Side.SHORT, 95.0)])
def test_a_bar_that_opens_beyond_the_take_profit_gives_no_more_than_it(
    side: Side, opening: float
) -> None:
    closed = lived(market(QUIET_BAR, (opening, opening, opening, opening)), wish(side))

    assert (closed.exit_reason, closed.pnl) == (ExitReason.TAKE_PROFIT, 30)


def test_a_position_out_of_time_leaves_at_the_open_after_its_last_bar() -> None:
    closed = lived(market(QUIET_BAR, (100, 102, 98.5, 101), (101, 110, 90, 95)), wish(Side.LONG, 2))

    assert closed.exit_reason is ExitReason.TIME
    assert (closed.exit_price, closed.pnl, closed.return_ratio) == (101, 10, Decimal("0.01"))
    assert closed.worst_excursion == Decimal("0.015")
    assert closed.closed_at == START + 3 * STEP


def test_costs_of_a_long_to_the_last_cent() -> None:
    closed = lived(market((100, 103, 99, 103)), wish(Side.LONG), COSTLY)

    # in: 9.98003992 at 100.2 = 999.999999984; out: take-profit 103 slips to 102.794
    assert closed.exit_price == Decimal("102.794")
    # fees: 1.00000000 + 9.98003992 * 102.794 * 0.001 = 1.02588822
    assert closed.fees == Decimal("2.02588822")
    # slippage: 9.98003992 * (0.2 + 0.206)
    assert closed.slippage == Decimal("4.05189621")
    # gross: 9.98003992 * 2.594 = 25.88822355
    assert closed.pnl == Decimal("23.86233533")
    assert closed.return_ratio == Decimal("0.023862335330")
    # risk: 9.98003992 * (100.2 - 98) = 21.956087824; 23.86233533 / 21.956087824
    assert closed.r_multiple == Decimal("1.086820909138")


def test_costs_of_a_short_to_the_last_cent() -> None:
    closed = lived(market((100, 102, 99, 102)), wish(Side.SHORT), COSTLY)

    # in: 1000 / 99.8 = 10.02004008 at 99.8 = 999.999999984; out: stop 102 slips to 102.204
    assert closed.size == Decimal("10.02004008")
    assert closed.exit_price == Decimal("102.204")
    # fees: 1.00000000 + 10.02004008 * 102.204 * 0.001 = 1.02408818
    assert closed.fees == Decimal("2.02408818")
    # gross: 10.02004008 * (99.8 - 102.204) = -24.08817635
    assert closed.pnl == Decimal("-26.11226453")
    assert closed.worst_excursion == -closed.return_ratio


def test_a_position_the_candles_do_not_see_to_its_end_has_no_outcome() -> None:
    candles = market(QUIET_BAR, QUIET_BAR)

    assert settle(candles, opened(candles, wish(Side.LONG, 2))) is None
    last = open_position(
        candles, bar=2, proposal=wish(Side.LONG), notional=Decimal(1000), costs=FREE
    )
    assert last is None


def test_a_mark_is_what_closing_now_would_leave() -> None:
    candles = market(QUIET_BAR, (100, 102, 98.5, 101))
    free, costly = (opened(candles, wish(Side.LONG), costs) for costs in (FREE, COSTLY))

    first, second = (mark(candles, free, bar=bar) for bar in (1, 2))

    assert (first.marked_at, first.pnl, first.worst_excursion) == (
        START + 2 * STEP,
        0,
        Decimal("0.01"),
    )
    assert (second.marked_at, second.pnl, second.worst_excursion) == (
        START + 3 * STEP,
        10,
        Decimal("0.015"),
    )
    # at 100: out at 99.8 and two fees: 9.98003992 * -0.4 - 1.00000000 - 0.99600798
    assert mark(candles, costly, bar=1).pnl == Decimal("-5.98802395")


def test_what_cannot_be_opened_or_marked_is_refused() -> None:
    candles = market(QUIET_BAR)
    position = opened(candles, wish(Side.LONG))

    for bar in (0, 2):
        with pytest.raises(InvalidInput, match=r"bar: must be in \[1, 2\)"):
            mark(candles, position, bar=bar)
    for bar in (-1, 2):
        with pytest.raises(InvalidInput, match=r"bar: must be in \[0, 2\)"):
            open_position(
                candles, bar=bar, proposal=wish(Side.LONG), notional=Decimal(1), costs=FREE
            )
    for notional in ("0", "-1", "0.0000009", "NaN", "Infinity"):
        with pytest.raises(InvalidInput, match=r"notional: must buy a size of 0\.00000001"):
            open_position(
                candles, bar=0, proposal=wish(Side.LONG), notional=Decimal(notional), costs=FREE
            )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stop_ratio": 0.0}, r"stop_ratio: must be in \(0, 1\), found 0.0"),
        ({"take_profit_ratio": 1.0}, r"take_profit_ratio: must be in \(0, 1\), found 1.0"),
        ({"stop_ratio": float("nan")}, r"stop_ratio: must be in \(0, 1\), found nan"),
        ({"holding_bars_max": 0}, "holding_bars_max: must be 1 or more, found 0"),
    ],
)
def test_a_senseless_proposal_is_refused(values: dict[str, float], message: str) -> None:
    good = {"stop_ratio": 0.02, "take_profit_ratio": 0.03, "holding_bars_max": 3}

    with pytest.raises(InvalidInput, match=message):
        Proposal(side=Side.LONG, **(good | values))  # type: ignore[arg-type]  # a bad value


@pytest.mark.parametrize("name", ["fee_ratio", "slippage_ratio"])
@pytest.mark.parametrize("value", [-0.001, 0.1, float("nan")])
def test_senseless_costs_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=rf"{name}: must be in \[0, 0\.1\)"):
        Costs(**({"fee_ratio": 0.0, "slippage_ratio": 0.0} | {name: value}))


def test_a_round_trip_at_the_default_costs_loses_fourteen_basis_points() -> None:
    closed = lived(market(QUIET_BAR, QUIET_BAR), wish(Side.LONG, 1), PERPETUAL_TAKER)

    # (1 - 0.0002) / (1 + 0.0002) - 1 = -0.00039992, fees 0.0005 * (1 + 0.99960008)
    assert round(closed.return_ratio, 8) == Decimal("-0.00139972")


def test_reports_come_in_another_order_than_positions_close() -> None:
    rng = np.random.default_rng(1)
    closes: Sequence[datetime] = [START + bar * STEP for bar in range(1000)]

    delays = [reported_at(close, rng=rng) - close for close in closes]

    assert min(delays) >= timedelta(minutes=1)
    assert max(delays) <= timedelta(hours=12)
    slow = sum(delay >= timedelta(hours=1) for delay in delays)
    # 100 expected, standard deviation 9.5: outside 60 to 140 less than once in 10,000 seeds
    assert 60 <= slow <= 140
    again = np.random.default_rng(1)
    assert [reported_at(close, rng=again) - close for close in closes] == delays
