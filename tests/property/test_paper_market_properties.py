"""What holds for every market, proposal and cost."""

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learners.market.candles import Candles
from learners.market.paper_market import (
    ClosedPosition,
    Costs,
    ExitReason,
    Proposal,
    Side,
    mark,
    open_position,
    settle,
)

FREE = Costs(fee_ratio=0.0, slippage_ratio=0.0)
# Size, fees and gross result are each rounded to 8 decimals, on at least 1 of money.
ROUNDING = Decimal("1e-6")


@st.composite
def markets(draw: st.DrawFn) -> Candles:
    """Five to thirty bars around 100 that may jump between close and open."""
    count = draw(st.integers(5, 30))
    moves = st.lists(st.integers(-400, 400), min_size=count, max_size=count)
    opens = 100 + np.cumsum(draw(moves)) / 100
    opens = np.maximum(opens, 10.0)
    closes = np.maximum(opens + np.array(draw(moves)) / 100, 5.0)
    above, below = (np.abs(np.array(draw(moves))) / 100 for _ in range(2))
    return Candles(
        instrument="BTCUSD",
        opened_at=np.datetime64("2024-01-01", "us") + np.arange(count) * np.timedelta64(1, "h"),
        open=opens,
        high=np.maximum(opens, closes) + above,
        low=np.maximum(np.minimum(opens, closes) - below, 1.0),
        close=closes,
        volume=np.ones(count),
    )


@st.composite
def proposals(draw: st.DrawFn, side: Side | None = None) -> Proposal:
    return Proposal(
        side=draw(st.sampled_from(Side)) if side is None else side,
        stop_ratio=draw(st.integers(5, 80)) / 1000,
        take_profit_ratio=draw(st.integers(5, 80)) / 1000,
        holding_bars_max=draw(st.integers(1, 24)),
    )


costs = st.builds(
    lambda fee, slippage: Costs(fee_ratio=fee / 10_000, slippage_ratio=slippage / 10_000),
    st.integers(0, 50),
    st.integers(0, 50),
)
monies = st.integers(100, 10_000_000).map(lambda cents: Decimal(cents) / 100)


def lived(
    candles: Candles, proposal: Proposal, charged: Costs, money: Decimal = Decimal(1000)
) -> ClosedPosition | None:
    position = open_position(candles, bar=0, proposal=proposal, notional=money, costs=charged)
    assert position is not None
    return settle(candles, position)


@given(markets(), proposals(), costs)
def test_costs_never_help_and_never_change_when_a_position_closes(
    candles: Candles, proposal: Proposal, charged: Costs
) -> None:
    free, paid = lived(candles, proposal, FREE), lived(candles, proposal, charged)

    assert (free is None) == (paid is None)
    if free is not None and paid is not None:
        assert (paid.closed_at, paid.exit_reason) == (free.closed_at, free.exit_reason)
        assert paid.return_ratio <= free.return_ratio + ROUNDING
        assert paid.worst_excursion >= free.worst_excursion - ROUNDING


@given(markets(), proposals(), costs, monies)
def test_money_adds_up_exactly(
    candles: Candles, proposal: Proposal, charged: Costs, money: Decimal
) -> None:
    closed = lived(candles, proposal, charged, money)
    if closed is None:
        return

    sign = 1 if closed.side is Side.LONG else -1
    gross = sign * closed.size * (closed.exit_price - closed.entry_price)
    assert abs(closed.pnl + closed.fees - gross) <= Decimal("0.5e-8")
    assert closed.size * closed.entry_price <= money
    for amount in (closed.pnl, closed.fees, closed.slippage, closed.size):
        assert amount == amount.quantize(Decimal("1e-8"))


@given(markets(), proposals(), costs)
def test_a_loss_was_lived_through(candles: Candles, proposal: Proposal, charged: Costs) -> None:
    closed = lived(candles, proposal, charged)

    if closed is not None:
        assert closed.worst_excursion >= max(0, -closed.return_ratio)
        assert closed.opened_at < closed.closed_at
        assert (closed.r_multiple > 0) == (closed.pnl > 0)


@given(markets(), st.integers(1, 10))
def test_opposite_sides_without_costs_mirror_each_other(candles: Candles, bars: int) -> None:
    def held(side: Side) -> ClosedPosition | None:
        far = Proposal(side=side, stop_ratio=0.99, take_profit_ratio=0.99, holding_bars_max=bars)
        return lived(candles, far, FREE)

    long, short = held(Side.LONG), held(Side.SHORT)
    reasons = {closed.exit_reason for closed in (long, short) if closed is not None}
    if long is not None and short is not None and reasons == {ExitReason.TIME}:
        assert long.pnl == -short.pnl


@given(markets(), proposals(), costs)
def test_what_comes_after_the_close_changes_nothing(
    candles: Candles, proposal: Proposal, charged: Costs
) -> None:
    closed = lived(candles, proposal, charged)
    if closed is None:
        return
    known = sum(candles.opening(bar) <= closed.closed_at for bar in range(len(candles)))
    columns = {name: values[:known].copy() for name, values in candles.numbers().items()}
    if candles.opening(known - 1) == closed.closed_at:
        # only the open of this bar was seen, if that
        for name in ("high", "low", "close"):
            columns[name][-1] = columns["open"][-1]
    cut = Candles(instrument="BTCUSD", opened_at=candles.opened_at[:known], **columns)

    assert lived(cut, proposal, charged) == closed


@given(markets(), proposals(), costs)
def test_the_excursion_of_the_marks_only_grows_until_the_close(
    candles: Candles, proposal: Proposal, charged: Costs
) -> None:
    position = open_position(
        candles, bar=0, proposal=proposal, notional=Decimal(1000), costs=charged
    )
    assert position is not None
    closed = settle(candles, position)
    end = candles.closing(len(candles) - 1) if closed is None else closed.closed_at

    open_bars = [bar for bar in range(1, len(candles)) if candles.closing(bar) < end]
    worst = [mark(candles, position, bar=bar).worst_excursion for bar in open_bars]

    assert worst == sorted(worst)
    if closed is not None and worst:
        assert closed.worst_excursion >= worst[-1]
