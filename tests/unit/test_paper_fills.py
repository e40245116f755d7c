"""The paper fill model, by hand and beside the paper market, to the last digit."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import PaperTrade, Side, paper_fill
from learners.market.candles import Candles
from learners.market.paper_market import Costs, ExitReason, Proposal, open_position, settle


def made(**changes: object) -> PaperTrade:
    values = {
        "side": Side.LONG,
        "entry_price": Decimal(100),
        "exit_price": Decimal(101),
        "size": Decimal(3),
        "fee_bps": Decimal(10),
        "slippage_bps": Decimal(20),
    } | changes
    return PaperTrade(**values)  # type: ignore[arg-type]


def test_a_long_trade_by_hand() -> None:
    # In at 100.2, out at 100.798: 3 * 0.598 = 1.794 less fees of 0.3006 and 0.302394.
    fill = paper_fill(made())
    assert fill.fees == Decimal("0.602994")
    assert fill.slippage == Decimal("1.206")
    assert fill.pnl == Decimal("1.191006")
    assert fill.return_ratio == Decimal("0.003962095808")


def test_a_short_trade_by_hand() -> None:
    # In at 99.8, out at 101.202: -3 * 1.402 = -4.206 less fees of 0.2994 and 0.303606.
    fill = paper_fill(made(side=Side.SHORT))
    assert fill.pnl == Decimal("-4.809006")
    assert fill.return_ratio == Decimal("-0.016062144289")


@given(
    st.sampled_from(Side),
    st.integers(90_00, 110_00),
    st.integers(1, 10**7),
    st.integers(0, 999),
    st.integers(0, 999),
)
def test_the_paper_market_charges_the_same(
    side: Side, leave: int, cents: int, fee: int, slippage: int
) -> None:
    # One bar after the entry the time is up, and the position is closed at that bar's open.
    entry, out = 100.0, leave / 100
    prices = np.array([entry, entry, out])
    times = np.datetime64("2024-01-01", "us") + np.arange(3) * np.timedelta64(10, "m")
    candles = Candles(
        instrument="BTCUSD", opened_at=times, open=prices, high=prices, low=prices, close=prices,
        volume=np.ones(3),
    )  # fmt: skip
    position = open_position(
        candles,
        bar=0,
        proposal=Proposal(side=side, stop_ratio=0.9, take_profit_ratio=0.9, holding_bars_max=1),
        notional=Decimal(cents) / 100,
        costs=Costs(fee_ratio=fee / 10_000, slippage_ratio=slippage / 10_000),
    )
    assert position is not None
    closed = settle(candles, position)
    assert closed is not None
    assert closed.exit_reason is ExitReason.TIME
    fill = paper_fill(
        PaperTrade(
            side=side,
            entry_price=position.market_price,
            exit_price=Decimal(str(out)),
            size=position.size,
            fee_bps=Decimal(fee),
            slippage_bps=Decimal(slippage),
        )
    )
    assert (fill.fees, fill.slippage, fill.pnl, fill.return_ratio) == (
        closed.fees,
        closed.slippage,
        closed.pnl,
        closed.return_ratio,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("entry_price", Decimal(0)),
        ("exit_price", Decimal(-1)),
        ("size", Decimal("NaN")),
        ("fee_bps", Decimal("-0.1")),
        ("slippage_bps", Decimal(1000)),
    ],
)
def test_what_no_market_trades_is_refused(field: str, value: Decimal) -> None:
    with pytest.raises(InvalidInput) as refused:
        made(**{field: value})
    assert refused.value.field == field


def test_a_return_that_the_ledger_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidInput, match="return: must be smaller"):
        paper_fill(made(entry_price=Decimal("0.00000001"), exit_price=Decimal(10) ** 15))
