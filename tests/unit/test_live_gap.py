"""Live trades beside what a backtest promised: beside SciPy, a published example, and nothing."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from scipy import stats

from bandit.core.errors import InvalidInput
from bandit.core.live_gap import TRADES_MIN, TradeSample, live_gap, slippage_ratio, wilson_interval

NOTHING = TradeSample.of([], [])


def counted(n: int, wins: int) -> TradeSample:
    return TradeSample(
        n=n, wins=wins, mean=None, error=None, n_slippage=0, slippage=None, slippage_error=None
    )


@pytest.mark.parametrize("seed", range(20))
def test_return_gap_is_that_of_welch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    live = rng.normal(0.001, 0.02, size=int(rng.integers(30, 90)))
    past = rng.normal(0.002, 0.01, size=int(rng.integers(30, 600)))
    gap = live_gap(TradeSample.of(live.tolist(), []), TradeSample.of(past.tolist(), [])).return_mean
    theirs = stats.ttest_ind(live, past, equal_var=False).confidence_interval(0.95)
    assert gap.interval is not None
    assert gap.difference == pytest.approx(live.mean() - past.mean(), rel=1e-9)
    assert gap.interval.low == pytest.approx(theirs.low, rel=1e-9)
    assert gap.interval.high == pytest.approx(theirs.high, rel=1e-9)
    assert gap.is_worse is bool(theirs.high < 0)


def test_rate_gap_is_the_published_one() -> None:
    # Newcombe 1998, table II, contrast (a): 56/70 and 48/80, method 10.
    gap = live_gap(counted(70, 56), counted(80, 48)).win_rate
    assert gap.difference == pytest.approx(0.2, abs=1e-12)
    assert gap.interval is not None
    assert gap.interval.low == pytest.approx(0.0524, abs=5e-5)
    assert gap.interval.high == pytest.approx(0.3339, abs=5e-5)
    assert gap.is_worse is False
    assert live_gap(counted(80, 48), counted(70, 56)).win_rate.is_worse is True


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (1, 1), (0, 500), (500, 500), (7, 31)])
def test_interval_of_a_share_is_that_of_scipy(wins: int, n: int) -> None:
    theirs = stats.binomtest(wins, n).proportion_ci(method="wilson")
    ours = wilson_interval(wins, n)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= wins / n <= ours.high <= 1


def test_slippage_gap_by_hand() -> None:
    # 40 trades: mean 5, deviation √(10 · 20 / 39) of 1e-4, over √40; t(39, 0.975) = 2.022691.
    live = TradeSample.of([0.01] * 50, [2e-4, 4e-4, 6e-4, 8e-4] * 10)
    for promised, is_worse in ((4.5e-4, False), (4.2e-4, True)):
        past = TradeSample(
            n=0, wins=0, mean=None, error=None,
            n_slippage=0, slippage=promised, slippage_error=None,
        )  # fmt: skip
        gap = live_gap(live, past).slippage
        assert gap.difference == pytest.approx(5e-4 - promised, rel=1e-12)
        assert gap.interval is not None
        half = 2.022691 * math.sqrt(5 / 39) * 1e-4
        assert gap.interval.low == pytest.approx(5e-4 - promised - half, abs=1e-10)
        assert gap.is_worse is is_worse


def test_gap_holds_the_truth_as_often_as_it_says() -> None:
    # 400 pairs of the same policy: 95 % of the intervals hold 0, so 15 to 25 or so do not
    # (fewer than 368 or more than 392: 1 %, for each of two kinds).
    rng = np.random.default_rng(20260301)
    held = {"return_mean": 0, "win_rate": 0}
    for _ in range(400):
        live, past = (TradeSample.of(rng.normal(0.1, 1.0, size=n).tolist(), []) for n in (60, 300))
        gap = live_gap(live, past)
        for name in held:
            interval = getattr(gap, name).interval
            held[name] += interval.low <= 0.0 <= interval.high
    assert all(368 <= n <= 392 for n in held.values()), held


def test_what_is_not_known_is_no_gap() -> None:
    some = TradeSample.of([0.01, 0.02], [0.0])
    for live, past in ((NOTHING, NOTHING), (some, NOTHING), (NOTHING, some)):
        gap = live_gap(live, past)
        for found in (gap.return_mean, gap.win_rate, gap.slippage):
            assert found.difference is found.interval is found.is_worse is None
    one = live_gap(TradeSample.of([0.01], []), some).return_mean
    assert one.difference == pytest.approx(-0.005)
    assert one.interval is None
    same = TradeSample.of([0.01] * TRADES_MIN, [])
    assert live_gap(same, same).return_mean.interval is None


def test_fewer_trades_than_it_takes_say_nothing() -> None:
    # All of them stopped out alike: no spread, and yet no proof.
    past = TradeSample.promised([0.01, -0.01, 0.03] * 40, slippage=1e-4)
    for n, is_worse in ((TRADES_MIN - 1, None), (TRADES_MIN, True)):
        gap = live_gap(TradeSample.of([-0.02] * n, [9e-4] * n), past)
        for found in (gap.return_mean, gap.win_rate, gap.slippage):
            assert found.difference is not None
            assert found.is_worse is is_worse
            assert (found.interval is None) is (is_worse is None)
    few = TradeSample.promised([0.01] * (TRADES_MIN - 1), slippage=1e-4)
    gap = live_gap(TradeSample.of([-0.02] * 50, []), few)
    assert gap.return_mean.is_worse is gap.win_rate.is_worse is gap.slippage.is_worse is None
    assert (gap.slippage.live, gap.slippage.backtest) == (None, 1e-4)


@pytest.mark.parametrize(
    ("slippage", "pnl", "earned", "expected"),
    [
        # 12 lost of 1,000 put in; and a gain of 0.5 % that slipped in its favour.
        ("0.4", "-12", "-0.012", 0.0004),
        ("-0.1", "5", "0.005", -0.0001),
        ("0", "5", "0.005", 0.0),
        # 100 steps of money and of return are enough to tell the value at entry, 99 are not.
        ("0.4", "0.00000100", "0.000000000100", 0.00004),
        ("0.4", "0.00000099", "0.000000000100", None),
        ("0.4", "0.00000100", "0.000000000099", None),
        ("0.4", "0", "0", None),
    ],
)
def test_slippage_is_told_over_the_value_at_entry(
    slippage: str, pnl: str, earned: str, expected: float | None
) -> None:
    found = slippage_ratio(Decimal(slippage), pnl=Decimal(pnl), return_ratio=Decimal(earned))
    assert found == expected


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(InvalidInput, match="sample"):
        TradeSample.of([0.1, wrong], [])
    with pytest.raises(InvalidInput, match="wins"):
        counted(1, 2)
    with pytest.raises(InvalidInput, match="confidence"):
        live_gap(NOTHING, NOTHING, confidence=wrong)
