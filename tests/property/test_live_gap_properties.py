"""Gaps of any trades: what has to hold of them, whatever they are."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.live_gap import TRADES_MIN, TradeSample, live_gap, slippage_ratio
from bandit.core.paper_fills import PaperTrade, Side, paper_fill, slipped

RETURNS = st.lists(st.floats(-0.9, 10.0), max_size=60)
SLIPPAGES = st.lists(st.floats(-0.01, 0.01), max_size=60)
BPS = st.decimals("0", "500", places=2)


@given(live=RETURNS, slips=SLIPPAGES, past=RETURNS, promised=st.floats(0, 0.01))
def test_a_verdict_needs_an_interval_and_an_interval_enough_trades(
    live: list[float], slips: list[float], past: list[float], promised: float
) -> None:
    gap = live_gap(TradeSample.of(live, slips), TradeSample.promised(past, slippage=promised))
    counts = {"slippage": len(slips)}
    for name, found in gap.by_name.items():
        assert (found.is_worse is None) is (found.interval is None)
        assert (found.difference is None) is (found.live is None or found.backtest is None)
        if found.interval is None or found.difference is None:
            continue
        assert counts.get(name, min(len(live), len(past))) >= TRADES_MIN
        assert found.interval.low <= found.difference <= found.interval.high
        bad = found.difference if name == "slippage" else -found.difference
        assert not found.is_worse or bad > 0
        assert not found.is_worse or not found.interval.low <= 0.0 <= found.interval.high


@given(
    side=st.sampled_from(Side),
    entry=st.decimals("0.01", "100000", places=2),
    leave=st.decimals("0.01", "100000", places=2),
    size=st.decimals("0.001", "1000", places=3),
    fee=BPS,
    slip=BPS,
)
def test_slippage_of_a_paper_fill_is_told_over_what_was_put_in(
    side: Side, entry: Decimal, leave: Decimal, size: Decimal, fee: Decimal, slip: Decimal
) -> None:
    fill = paper_fill(
        PaperTrade(
            side=side, entry_price=entry, exit_price=min(leave, entry * 500), size=size,
            fee_bps=fee, slippage_bps=slip,
        )
    )  # fmt: skip
    entered = size * slipped(entry, side, slip / 10_000)
    found = slippage_ratio(fill.slippage, pnl=fill.pnl, return_ratio=fill.return_ratio)
    if found is not None:
        assert found == pytest.approx(float(fill.slippage / entered), rel=0.011, abs=1e-12)
