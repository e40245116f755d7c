"""Backtests that walk forward: made from the past, measured on what came after (SPEC H6).

Whatever turns bars into closed trades can be measured: it is fitted on the train bars of a fold and
plays its test bars under the execution model of the paper market, whose net returns it hands over.
Each instrument has an account that begins with 1 and puts all it has into every trade; the whole is
their mean, so that equal parts of the capital were given to each. Returns are by UTC day, days
without a trade among them. Beside it stand three that know nothing: who buys and holds after fees,
who stays out, and who flips a coin as often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core.backtest import BacktestMetrics
from bandit.core.equity import DAYS_PER_YEAR
from bandit.core.errors import InvalidInput
from bandit.core.live_gap import TradeSample
from bandit.core.model import RETURN_LIMIT, checked_instant, checked_instrument
from bandit.core.multiplicity import ReturnMoments
from bandit.core.performance import ClosedTrade, PerformanceSummary, profit_factor, summarise
from learners.market.candles import Candles
from learners.market.splits import Split

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Times = NDArray[np.datetime64]

FLIPS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestTrade:
    """A closed trade: its return is net of all costs, over what was put in at entry."""

    instrument: str
    opened_at: datetime
    closed_at: datetime
    return_ratio: float

    def __post_init__(self) -> None:
        """Refuse what no paper market hands over."""
        checked_instrument(self.instrument)
        for name in ("opened_at", "closed_at"):
            object.__setattr__(self, name, checked_instant(getattr(self, name), field=name))
        if self.closed_at < self.opened_at:
            found = self.closed_at.isoformat()
            raise InvalidInput(field="closed_at", rule="must not precede opened_at", found=found)
        if not abs(self.return_ratio) < float(RETURN_LIMIT):
            rule = f"must be finite and smaller than {RETURN_LIMIT}"
            raise InvalidInput(field="return_ratio", rule=rule, found=self.return_ratio)


Player = Callable[[range], Sequence[BacktestTrade]]
Fit = Callable[[range], Player]


class UnseenBars:
    """The bars of one instrument on which something was measured, in stretches without a hole."""

    def __init__(self, candles: Candles, tests: Sequence[range]) -> None:
        """Join tests that touch; raises `InvalidInput` for tests that are no rising bars."""
        self.candles = candles
        self.stretches: list[range] = []
        reached = 0
        for test in tests:
            if test.step != 1 or not reached <= test.start < test.stop <= len(candles):
                rule = f"must be rising bars in [{reached}, {len(candles)})"
                raise InvalidInput(field="test", rule=rule, found=test)
            if self.stretches and test.start == reached:
                self.stretches[-1] = range(self.stretches[-1].start, test.stop)
            else:
                self.stretches.append(test)
            reached = test.stop
        if not self.stretches:
            raise InvalidInput(field="test", rule="must be at least one bar", found="none")
        self.bars: Whole = np.concatenate([np.arange(s.start, s.stop) for s in self.stretches])
        self.openings: Times = candles.opened_at[self.bars].astype("datetime64[us]")
        self.closings: Times = self.openings + np.timedelta64(candles.interval)
        sizes = [len(stretch) for stretch in self.stretches]
        self._stretch_of: Whole = np.repeat(np.arange(len(sizes)), sizes)

    def place(self, trade: BacktestTrade) -> tuple[int, int]:
        """Return the first and the last of the tested bars that a trade lived through.

        Raises `InvalidInput` for a trade that was not open within one stretch of them.
        """
        opened, closed = _naive(trade.opened_at), _naive(trade.closed_at)
        first = int(np.searchsorted(self.openings, opened, side="right")) - 1
        last = max(first, int(np.searchsorted(self.closings, closed, side="left")))
        is_inside = first >= 0 and last < len(self.bars)
        if not is_inside or self._stretch_of[first] != self._stretch_of[last]:
            rule = f"must be opened and closed within tested bars of {self.candles.instrument}"
            found = f"{trade.opened_at.isoformat()} to {trade.closed_at.isoformat()}"
            raise InvalidInput(field="trade", rule=rule, found=found)
        return first, last


def walk_forward(candles: Candles, folds: Sequence[Split], *, fit: Fit) -> list[BacktestTrade]:
    """Fit on each fold's train bars, play its test bars, and return all trades in order.

    Raises `InvalidInput` where a fold is measured on bars that do not follow those it was fitted
    on, tests do not follow each other, or a trade lies outside the test that it was played in.
    """
    UnseenBars(candles, [fold.test for fold in folds])
    trades: list[BacktestTrade] = []
    for fold in folds:
        if fold.train.step != 1 or not 0 <= fold.train.start < fold.train.stop <= fold.test.start:
            rule = f"must be rising bars before the test's first, {fold.test.start}"
            raise InvalidInput(field="train", rule=rule, found=fold.train)
        tested = UnseenBars(candles, [fold.test])
        played = sorted(fit(fold.train)(fold.test), key=lambda t: (t.closed_at, t.opened_at))
        for trade in played:
            _require_instrument(trade, [candles.instrument])
            tested.place(trade)
        trades += played
    return trades


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinFlips:
    """What a coin earns that trades as often and as long, at random times and in random directions.

    Total returns: the median and the range of 95 of 100. `as_good` is the share of flips that
    earned at least what the policy did, itself counted as one: small where chance rarely does.
    """

    n_flips: int
    median: float
    low: float
    high: float
    as_good: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """What was measured, and what earned the same bars for those who know nothing.

    The costs are those of one fill, as ratios of its value.
    """

    fee_ratio: float
    slippage_ratio: float
    metrics: BacktestMetrics
    summary: PerformanceSummary
    buy_and_hold: BacktestMetrics
    flat: BacktestMetrics
    coin_flips: CoinFlips


def measure(
    markets: Sequence[UnseenBars],
    trades: Sequence[BacktestTrade],
    *,
    fee_ratio: float,
    slippage_ratio: float,
    rng: np.random.Generator,
) -> Backtest:
    """Measure trades on the bars they were played on; the costs are those of one fill.

    `rng` flips the coins. Raises `InvalidInput` for a trade of another instrument, outside the
    tested bars, or opened before the one before it was closed.
    """
    instruments = [market.candles.instrument for market in markets]
    if not markets or len(set(instruments)) < len(instruments):
        rule = "must be one or more instruments, each once"
        raise InvalidInput(field="markets", rule=rule, found=instruments)
    for name, cost in (("fee_ratio", fee_ratio), ("slippage_ratio", slippage_ratio)):
        if not 0.0 <= cost < 0.1:
            raise InvalidInput(field=name, rule="must be in [0, 0.1)", found=cost)
    for trade in trades:
        _require_instrument(trade, instruments)
    costs = _Costs(fee_ratio, slippage_ratio)
    played = [_Played(market, trades) for market in markets]
    results = [trade.return_ratio for trade in trades]
    metrics = _metrics(markets, [p.equity() for p in played], results, costs)
    held = [_hold(market, costs) for market in markets]
    held_results = [result for _, results in held for result in results]
    flips = np.mean([p.flipped(costs, rng=rng) for p in played], axis=0) - 1.0
    return Backtest(
        fee_ratio=fee_ratio,
        slippage_ratio=slippage_ratio,
        metrics=metrics,
        summary=summarise(map(_closed, trades), starting_capital=None),
        buy_and_hold=_metrics(markets, [equity for equity, _ in held], held_results, costs),
        flat=_metrics(markets, [np.ones(len(market.bars)) for market in markets], [], costs),
        coin_flips=_coin_flips(flips, metrics.total_return),
    )


class _Costs(NamedTuple):
    fee_ratio: float
    slippage_ratio: float

    def net(self, sign: Whole | int, entry: Floats, leave: Floats) -> Floats:
        """Return what positions earn between two market prices, as `bandit.core.paper_fills`."""
        entered = entry * (1.0 + sign * self.slippage_ratio)
        left = leave * (1.0 - sign * self.slippage_ratio)
        grown = left / entered
        earned: Floats = sign * (grown - 1.0) - self.fee_ratio * (1.0 + grown)
        return earned


class _Played:
    """The trades of one instrument, in order and placed on its bars."""

    def __init__(self, market: UnseenBars, trades: Sequence[BacktestTrade]) -> None:
        own = [trade for trade in trades if trade.instrument == market.candles.instrument]
        self.market = market
        self.trades = sorted(own, key=lambda t: (t.opened_at, t.closed_at))
        for before, after in pairwise(self.trades):
            if after.opened_at < before.closed_at:
                rule = f"must not precede the end of the trade before, {before.closed_at}"
                raise InvalidInput(field="opened_at", rule=rule, found=after.opened_at)
        self.places = [market.place(trade) for trade in self.trades]

    def equity(self) -> Floats:
        """Return what the account holds at the close of each bar; what it lost stays lost."""
        grown = np.ones(len(self.market.bars))
        for trade, (_, last) in zip(self.trades, self.places, strict=True):
            grown[last] *= max(1.0 + trade.return_ratio, 0.0)
        return _compounded(grown)

    def flipped(self, costs: _Costs, *, rng: np.random.Generator) -> Floats:
        """Return what the account holds at the end after each of `FLIPS` runs of coin flips."""
        n, n_bars = len(self.trades), len(self.market.bars)
        if n == 0:
            return np.ones(FLIPS)
        lengths = np.array([last - first + 1 for first, last in self.places])
        if lengths.min() == lengths.max():
            lengths = np.tile(lengths, (FLIPS, 1))
        else:
            lengths = rng.permuted(np.tile(lengths, (FLIPS, 1)), axis=1)
        # Where the waits between trades fall is random; the trades keep their order.
        slack = max(n_bars - int(lengths[0].sum()), 0)
        waits = np.sort(rng.integers(0, slack + 1, size=(FLIPS, n)), axis=1)
        starts = np.minimum(waits + np.cumsum(lengths, axis=1) - lengths, n_bars - lengths)
        entry = self.market.candles.open[self.market.bars[starts]]
        leave = self.market.candles.close[self.market.bars[starts + lengths - 1]]
        signs = 2 * rng.integers(2, size=(FLIPS, n)) - 1
        grown = np.maximum(1.0 + costs.net(signs, entry, leave), 0.0)
        return _compounded(grown)[:, -1]


def _hold(market: UnseenBars, costs: _Costs) -> tuple[Floats, list[float]]:
    """Return the account of who buys each stretch as a whole, as if sold now, and its results."""
    equity, results, before = [], [], 1.0
    for stretch in market.stretches:
        entry = market.candles.open[stretch.start : stretch.start + 1]
        earned = costs.net(1, entry, market.candles.close[stretch.start : stretch.stop])
        equity.append(before * (1.0 + earned))
        results.append(float(earned[-1]))
        before = float(equity[-1][-1])
    return np.concatenate(equity), results


def _metrics(
    markets: Sequence[UnseenBars],
    accounts: Sequence[Floats],
    results: Sequence[float],
    costs: _Costs,
) -> BacktestMetrics:
    times = np.unique(np.concatenate([market.closings for market in markets]))
    whole = np.zeros(len(times))
    for market, account in zip(markets, accounts, strict=True):
        known = np.searchsorted(market.closings, times, side="right")
        whole += np.concatenate([[1.0], account])[known] / len(markets)
    peaks = np.maximum.accumulate(np.maximum(whole, 1.0))
    return BacktestMetrics(
        moments=ReturnMoments.of(_daily(times, whole).tolist()),
        periods_per_year=float(DAYS_PER_YEAR),
        profit_factor=profit_factor(results),
        total_return=float(whole[-1]) - 1.0,
        drawdown_max_percent=float(100.0 * ((peaks - whole) / peaks).max()),
        # Every trade is filled twice, where it enters and where it leaves.
        promise=TradeSample.promised(results, slippage=2.0 * costs.slippage_ratio),
    )


def _daily(times: Times, equity: Floats) -> Floats:
    """Return by UTC day; an account that lost everything earns 0 from then on."""
    days = times.astype("datetime64[D]")
    ends = equity[np.append(days[1:] != days[:-1], True)]
    before = np.concatenate([[1.0], ends[:-1]])
    earned = np.zeros(len(ends))
    np.divide(ends - before, before, out=earned, where=before > 0)
    return earned


def _compounded(grown: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        equity: Floats = np.multiply.accumulate(grown, axis=-1, dtype=np.float64)
    if not np.isfinite(equity).all():
        rule = "must not multiply an account beyond what a number can hold"
        raise InvalidInput(field="return_ratio", rule=rule, found="more")
    return equity


def _coin_flips(totals: Floats, earned: float) -> CoinFlips:
    low, middle, high = np.quantile(totals, (0.025, 0.5, 0.975))
    as_good = (1 + int((totals >= earned).sum())) / (1 + len(totals))
    return CoinFlips(
        n_flips=len(totals), median=float(middle), low=float(low), high=float(high), as_good=as_good
    )


def _require_instrument(trade: BacktestTrade, instruments: Sequence[str]) -> None:
    if trade.instrument not in instruments:
        rule = f"must be one of {', '.join(instruments)}"
        raise InvalidInput(field="instrument", rule=rule, found=trade.instrument)


def _closed(trade: BacktestTrade) -> ClosedTrade:
    unit = f"{trade.opened_at.isoformat()} {trade.instrument}"
    return ClosedTrade(closed_at=trade.closed_at, unit=unit, result=trade.return_ratio)


def _naive(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")
