"""Whatever is measured, the card is total, strict JSON, and never a pass that nothing bears out."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.core.backtest import BacktestRule, BacktestTrial, TrialSubject
from bandit.core.model import PolicyKind, Verdict
from bandit.core.multiplicity import ReturnMoments, Search, deflated_sharpe, probabilistic_sharpe
from learners.backtest import Backtest, BacktestTrade, UnseenBars, measure
from learners.card_page import page_of
from learners.market.candles import Candles
from learners.policy_card import PolicyCard, card_of, read_card

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BARS = 200
SMALLEST = BacktestRule(trades_min=2, periods_min=2, deflated_min=0.5)

returns = st.floats(-2.0, 2.0) | st.sampled_from([0.0, -0.0, 1e-320, -1e-320, 1e-9, -1.0, 5.0])
sharpes = st.lists(st.none() | st.floats(-1e6, 1e6), max_size=20)


def bars() -> UnseenBars:
    rng = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, BARS)))
    opened = np.concatenate([[100.0], close[:-1]])
    start = np.datetime64("2025-01-01T00:00:00", "us")
    candles = Candles(
        instrument="BTCUSD",
        opened_at=start + np.arange(BARS) * np.timedelta64(8, "h"),
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
        volume=np.ones(BARS),
    )
    return UnseenBars(candles, [range(20, BARS)])


MARKET = bars()


def trades(results: list[float]) -> list[BacktestTrade]:
    """One trade a bar, as many as there are results."""
    opened = [MARKET.candles.opening(20 + i) for i in range(len(results))]
    return [
        BacktestTrade(
            instrument="BTCUSD",
            opened_at=moment,
            closed_at=moment + timedelta(hours=8),
            return_ratio=result,
        )
        for moment, result in zip(opened, results, strict=True)
    ]


def card(results: list[float], others: list[float | None], rule: BacktestRule) -> PolicyCard:
    found = measured(results)
    trial = BacktestTrial(
        subject=TrialSubject(
            family="drill",
            kind=PolicyKind.EXTERNAL,
            spec="a" * 64,
            data="b" * 64,
            features="c" * 64,
            window_first=NOON - timedelta(days=400),
            window_last=NOON,
            seed=0,
            steps=0,
        ),
        started_at=NOON,
        finished_at=NOON,
        metrics=found.metrics,
        verdict=Verdict.INCONCLUSIVE,
    )
    return card_of(
        "drill",
        trial,
        found,
        search=Search.of([*others, trial.annual_sharpe]),
        rule=rule,
        markets=[MARKET],
        feature_names=[],
        folds=1,
        not_modelled=[],
        now=NOON,
    )


def measured(results: list[float]) -> Backtest:
    rng = np.random.default_rng(3)
    return measure([MARKET], trades(results), fee_ratio=0.001, slippage_ratio=0.0, rng=rng)


def refuse_constant(name: str) -> None:
    raise AssertionError(name)


@settings(deadline=None, max_examples=60)
@given(st.lists(returns, max_size=180), sharpes)
def test_card_is_total_and_strict(results: list[float], others: list[float | None]) -> None:
    made = card(results, others, SMALLEST)
    written = made.to_json()
    json.loads(written, parse_constant=refuse_constant)
    assert read_card(written) == made
    page = page_of(made)
    assert "nan" not in page.lower().split()
    assert "inf" not in page.lower().split()
    if made.verdict is Verdict.PASS:
        metrics = measured(results).metrics
        assert metrics.profit_factor.n >= 2
        assert metrics.total_return > max(measured(results).buy_and_hold.total_return, 0.0)
        assert made.headline.startswith("Beats buy-and-hold after fees")
        assert all(check.verdict is Verdict.PASS for check in made.checks)
    else:
        assert not made.headline.endswith("A backtest is no promise.")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.0, 0.001), max_size=29), sharpes)
def test_few_trades_never_pass_however_good(
    results: list[float], others: list[float | None]
) -> None:
    made = card(results, others, BacktestRule())
    assert made.verdict is Verdict.FAIL
    assert made.numbers["deflated_sharpe"].value is None


@given(st.lists(st.floats(-1e16, 1e16), max_size=60), sharpes)
def test_ratios_are_probabilities_or_nothing(
    values: list[float], others: list[float | None]
) -> None:
    moments = ReturnMoments.of(values)
    for found in (
        probabilistic_sharpe(moments),
        deflated_sharpe(moments, Search.of(others), periods_per_year=365),
    ):
        assert found is None or 0.0 <= found <= 1.0
    assert moments.sharpe is None or math.isfinite(moments.sharpe)


@given(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=60), st.integers(1, 40))
def test_more_trials_never_make_a_ratio_more_believable(values: list[float], more: int) -> None:
    moments = ReturnMoments.of(values)
    few = Search(n_trials=2, n_measured=2, annual_deviation=1.0)
    many = Search(n_trials=2 + more, n_measured=2, annual_deviation=1.0)
    believed = [deflated_sharpe(moments, s, periods_per_year=365) for s in (few, many)]
    alone = probabilistic_sharpe(moments)
    if alone is None:
        assert believed == [None, None]
    else:
        assert believed[0] is not None
        assert believed[1] is not None
        assert believed[1] <= believed[0] <= alone
