"""Walking forward and measuring, on a market small enough to work out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from bandit.core.live_gap import TradeSample
from bandit.core.paper_fills import PaperTrade, Side, paper_fill
from learners.backtest import (
    Backtest,
    BacktestTrade,
    Player,
    Split,
    UnseenBars,
    measure,
    walk_forward,
)
from learners.market.candles import Candles

START = datetime(2026, 1, 1, tzinfo=UTC)


def market(closes: Sequence[float], *, instrument: str = "BTCUSD", hours: int = 12) -> Candles:
    """Bars that open where the one before closed; the first opens at 100."""
    close = np.array(closes, dtype=np.float64)
    opened = np.concatenate([[100.0], close[:-1]])
    return Candles(
        instrument=instrument,
        opened_at=np.array(
            [
                np.datetime64(START.replace(tzinfo=None)) + np.timedelta64(hours * i, "h")
                for i in range(len(close))
            ]
        ),
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
        volume=np.ones(len(close)),
    )


def trade(
    first: int, last: int, earned: float, *, instrument: str = "BTCUSD", hours: int = 12
) -> BacktestTrade:
    """A trade from the open of one bar to the close of another."""
    return BacktestTrade(
        instrument=instrument,
        opened_at=START + timedelta(hours=hours * first),
        closed_at=START + timedelta(hours=hours * (last + 1)),
        return_ratio=earned,
    )


def measured(
    tested: Sequence[UnseenBars], trades: Sequence[BacktestTrade], **costs: float
) -> Backtest:
    paid = {"fee_ratio": 0.0, "slippage_ratio": 0.0} | costs
    return measure(tested, trades, rng=np.random.default_rng(7), **paid)


def test_promise_of_a_trade_by_hand() -> None:
    tested = UnseenBars(market([110, 120, 90, 90, 99, 99]), [range(6)])
    played = [trade(0, 0, 0.1), trade(2, 4, -0.05), trade(5, 5, 0.1)]
    promise = measured([tested], played, slippage_ratio=0.0002).metrics.promise
    assert promise is not None
    # Mean 0.05, deviation √(0.015 / 2), over √3; a trade slips where it enters and where it leaves.
    assert (promise.n, promise.wins, promise.slippage) == (3, 2, 0.0004)
    assert promise.mean == pytest.approx(0.05, rel=1e-12)
    assert promise.error == pytest.approx(math.sqrt(0.015 / 2 / 3), rel=1e-9)
    nothing = measured([tested], [])
    for found in (nothing.metrics, nothing.flat):
        assert found.promise == TradeSample.promised([], slippage=0.0)


def test_days_by_hand() -> None:
    # Half days: closings at noon and midnight; midnight belongs to the day it begins.
    tested = UnseenBars(market([110, 120, 90, 90, 99, 99]), [range(6)])
    found = measured([tested], [trade(0, 0, 0.5), trade(2, 4, -0.2), trade(5, 5, 0.25)])
    # 1.5 at noon of day 1; 1.2 at noon of day 3; 1.5 at midnight, of day 4.
    moments = found.metrics.moments
    days = [0.5, 0.0, -0.2, 0.25]
    assert moments.n == 4
    assert moments.mean == pytest.approx(sum(days) / 4, rel=1e-14)
    assert moments.variance == pytest.approx(np.var(days, ddof=1), rel=1e-14)
    assert found.metrics.total_return == pytest.approx(0.5, rel=1e-14)
    assert found.metrics.drawdown_max_percent == pytest.approx(20.0, rel=1e-14)
    assert found.metrics.profit_factor.value == pytest.approx(0.75 / 0.2, rel=1e-14)
    assert found.metrics.periods_per_year == 365
    # Held: 100 to 99, by day 1.1, 0.9, 0.99, 0.99.
    held = found.buy_and_hold
    assert held.total_return == pytest.approx(-0.01, rel=1e-12)
    assert held.drawdown_max_percent == pytest.approx(25.0, rel=1e-12)
    by_day = [0.1, -0.2 / 1.1, 0.1, 0.0]
    assert held.moments.mean == pytest.approx(sum(by_day) / 4, rel=1e-12)
    assert (held.profit_factor.n, held.profit_factor.n_losses) == (1, 1)
    assert found.flat.total_return == 0.0
    assert found.flat.annual_sharpe is None
    assert found.flat.profit_factor.state.value == "no_trades"


def test_holding_pays_what_the_paper_market_charges() -> None:
    tested = UnseenBars(market([110.0] * 4), [range(4)])
    found = measured([tested], [], fee_ratio=0.001, slippage_ratio=0.0005)
    paid = paper_fill(
        PaperTrade(
            side=Side.LONG,
            entry_price=Decimal(100),
            exit_price=Decimal(110),
            size=Decimal(1000),
            fee_bps=Decimal(10),
            slippage_bps=Decimal(5),
        )
    )
    assert found.buy_and_hold.total_return == pytest.approx(float(paid.return_ratio), abs=1e-9)


def test_tests_with_a_hole_are_held_apart() -> None:
    # 100 → 110, a hole in which it falls to 50, 50 → 60.
    tested = UnseenBars(market([105, 110, 50, 55, 60]), [range(2), range(3, 5)])
    assert tested.stretches == [range(2), range(3, 5)]
    found = measured([tested], [])
    assert found.buy_and_hold.total_return == pytest.approx(1.1 * 1.2 - 1, rel=1e-12)
    with pytest.raises(InvalidInput, match="within tested bars"):
        measured([tested], [trade(1, 3, 0.1)])


def test_instruments_have_equal_parts_of_the_capital() -> None:
    btc = UnseenBars(market([110, 121]), [range(2)])
    eth = UnseenBars(market([50, 50], instrument="ETHUSD"), [range(2)])
    found = measured([btc, eth], [trade(0, 1, 0.3), trade(0, 0, -0.1, instrument="ETHUSD")])
    assert found.metrics.total_return == pytest.approx((1.3 + 0.9) / 2 - 1, rel=1e-12)
    assert found.buy_and_hold.total_return == pytest.approx((1.21 + 0.5) / 2 - 1, rel=1e-12)


def test_account_that_lost_everything_stays_there() -> None:
    tested = UnseenBars(market([100.0] * 6), [range(6)])
    found = measured([tested], [trade(0, 0, -1.7), trade(2, 2, 9.0)])
    assert found.metrics.total_return == -1.0
    assert found.metrics.drawdown_max_percent == 100.0
    assert found.metrics.moments.mean == -0.25


def test_coin_flips_are_as_many_and_as_long() -> None:
    # Prices that only rise by a hundredth a bar: a flip of two bars earns ± 0.0201.
    closes = [100 * 1.01 ** (i + 1) for i in range(40)]
    tested = UnseenBars(market(closes), [range(40)])
    trades = [trade(i, i + 1, 0.5) for i in (0, 10, 20)]
    found = measured([tested], trades).coin_flips
    win, loss = 1.0201, 2 - 1.0201
    possible = [win**k * loss ** (3 - k) - 1 for k in range(4)]
    assert found.low == pytest.approx(possible[0], rel=1e-9)
    assert found.high == pytest.approx(possible[3], rel=1e-9)
    # Two or more of three up: half the time, so the median is one of the middle two.
    assert any(math.isclose(found.median, x, rel_tol=1e-9) for x in possible[1:3])
    # None of a thousand earns half a fortune each time.
    assert found.as_good == 1 / 1001
    assert measured([tested], []).coin_flips.as_good == 1.0


def played(bars: range) -> list[BacktestTrade]:
    return [trade(bars.start, bars.start, 0.1)]


def test_walk_forward_fits_on_the_past_alone() -> None:
    seen: list[range] = []

    def fit(train: range) -> Player:
        seen.append(train)
        return lambda test: [trade(test.start, test.start, len(train) / 100)]

    folds = [Split(range(4), range(5, 8)), Split(range(7), range(8, 10))]
    found = walk_forward(market([100.0] * 10), folds, fit=fit)
    assert seen == [range(4), range(7)]
    assert [t.return_ratio for t in found] == [0.04, 0.07]
    assert [t.opened_at for t in found] == [START + timedelta(hours=12 * b) for b in (5, 8)]


@pytest.mark.parametrize(
    ("folds", "field"),
    [
        ([], "test"),
        ([Split(range(4), range(3, 6))], "train"),
        ([Split(range(0), range(3, 6))], "train"),
        ([Split(range(2), range(3, 99))], "test"),
        ([Split(range(2), range(3, 6)), Split(range(2), range(5, 7))], "test"),
        ([Split(range(2), range(6, 3, -1))], "test"),
    ],
)
def test_folds_that_see_the_future_are_refused(folds: list[Split], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        walk_forward(market([100.0] * 10), folds, fit=lambda _: played)


@pytest.mark.parametrize(
    "wrong", [trade(4, 4, 0.1), trade(5, 9, 0.1), trade(5, 5, 0.1, instrument="ETHUSD")]
)
def test_trades_outside_their_test_are_refused(wrong: BacktestTrade) -> None:
    with pytest.raises(InvalidInput):
        walk_forward(
            market([100.0] * 10), [Split(range(4), range(5, 8))], fit=lambda _: lambda _: [wrong]
        )


def test_trades_that_overlap_are_refused() -> None:
    tested = UnseenBars(market([100.0] * 10), [range(10)])
    with pytest.raises(InvalidInput, match="opened_at"):
        measured([tested], [trade(0, 3, 0.1), trade(3, 4, 0.1)])
    with pytest.raises(InvalidInput, match="markets"):
        measured([tested, tested], [])
    with pytest.raises(InvalidInput, match="fee_ratio"):
        measured([tested], [], fee_ratio=math.nan)


@pytest.mark.parametrize("earned", [math.nan, math.inf, -1000.0])
def test_return_that_is_none_is_refused(earned: float) -> None:
    with pytest.raises(InvalidInput, match="return_ratio"):
        trade(0, 0, earned)


def test_returns_beyond_a_number_are_refused() -> None:
    tested = UnseenBars(market([100.0] * 200), [range(200)])
    with pytest.raises(InvalidInput, match="beyond what a number can hold"):
        measured([tested], [trade(i, i, 999.0) for i in range(200)])
