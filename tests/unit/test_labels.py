"""Labels: what the paper market pays for the same trade, and nothing where it cannot be known."""

from decimal import Decimal

import numpy as np
import pytest
from made_up_candles import part, random_walk

from bandit.core.errors import InvalidInput
from learners.market.candles import Candles
from learners.market.labels import Labels, forward_returns
from learners.market.paper_market import Costs, ExitReason, Proposal, Side, open_position, settle

COSTS = Costs(fee_ratio=0.0005, slippage_ratio=0.0002)


def labelled(candles: Candles, side: Side = Side.LONG, horizon_bars: int = 3) -> Labels:
    return forward_returns(
        candles,
        horizon_bars=horizon_bars,
        side=side,
        fee_ratio=COSTS.fee_ratio,
        slippage_ratio=COSTS.slippage_ratio,
    )


def opening_at(*opens: float) -> Candles:
    prices = np.array(opens)
    return Candles(
        instrument="X",
        opened_at=np.datetime64("2024-01-01", "us")
        + np.arange(len(opens)) * np.timedelta64(1, "h"),
        open=prices,
        high=prices,
        low=prices,
        close=prices,
        volume=np.ones(len(opens)),
    )


def test_a_label_is_the_way_from_the_next_open_to_the_open_a_horizon_later() -> None:
    candles = opening_at(100.0, 200.0, 300.0, 250.0, 100.0)
    free = {"horizon_bars": 2, "fee_ratio": 0.0, "slippage_ratio": 0.0}

    long = forward_returns(candles, side=Side.LONG, **free)
    short = forward_returns(candles, side=Side.SHORT, **free)

    # bar 0: in at 200, out at 250; bar 1: in at 300, out at 100
    assert long.returns[:2].tolist() == pytest.approx([0.25, -2 / 3])
    assert short.returns[:2].tolist() == pytest.approx([-0.25, 2 / 3])
    assert np.isnan(long.returns[2:]).all()
    assert long.horizon_end.tolist() == [3, 4, 5, 6, 7]
    assert long.reach_bars == 3


def test_costs_are_taken_from_both_fills() -> None:
    labels = forward_returns(
        opening_at(1.0, 100.0, 110.0),
        horizon_bars=1,
        side=Side.LONG,
        fee_ratio=0.01,
        slippage_ratio=0.02,
    )

    # in at 102, out at 107.8; fees 1.02 and 1.078; (107.8 - 102 - 2.098) / 102
    assert labels.returns[0] == pytest.approx(3.702 / 102)


@pytest.mark.parametrize("side", list(Side))
def test_a_label_is_what_the_paper_market_pays_when_time_ends_the_trade(side: Side) -> None:
    candles = random_walk(300, seed=11)
    wish = Proposal(side=side, stop_ratio=0.999, take_profit_ratio=0.999, holding_bars_max=24)
    labels = labelled(candles, side, horizon_bars=24)

    for bar in range(0, 275, 13):
        position = open_position(
            candles, bar=bar, proposal=wish, notional=Decimal(10_000), costs=COSTS
        )
        assert position is not None
        closed = settle(candles, position)
        assert closed is not None
        assert closed.exit_reason is ExitReason.TIME
        # The paper market rounds size, fees and result to eight decimals.
        assert labels.returns[bar] == pytest.approx(float(closed.return_ratio), abs=1e-10)
    assert np.isfinite(labels.returns[:275]).all()
    assert np.isnan(labels.returns[275:]).all()


def test_no_label_spans_a_gap() -> None:
    candles = random_walk(40, seed=2, skip=(20,))
    labels = labelled(candles)

    # 19 and 20 are no neighbours: rows 16 to 19 would be left behind the gap
    assert np.flatnonzero(np.isnan(labels.returns)).tolist() == [16, 17, 18, 19, 35, 36, 37, 38]


def test_candles_shorter_than_the_horizon_have_no_label() -> None:
    assert np.isnan(labelled(part(random_walk(9, seed=1), 0, 4)).returns).all()


def test_labels_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        labelled(random_walk(9, seed=1)).returns[0] = 0.0


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("horizon_bars", 0, "horizon_bars: must be 1 or more, found 0"),
        ("fee_ratio", 0.1, r"fee_ratio: must be in \[0, 0.1\), found 0.1"),
        ("slippage_ratio", -0.1, r"slippage_ratio: must be in \[0, 0.1\), found -0.1"),
        ("fee_ratio", float("nan"), "fee_ratio: must be in"),
    ],
)
def test_what_no_market_charges_is_refused(option: str, value: float, message: str) -> None:
    options = {"horizon_bars": 1, "fee_ratio": 0.0, "slippage_ratio": 0.0} | {option: value}

    with pytest.raises(InvalidInput, match=message):
        forward_returns(random_walk(9, seed=1), side=Side.LONG, **options)  # type: ignore[arg-type]
