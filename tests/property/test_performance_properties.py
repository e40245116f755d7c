"""What must hold of the performance numbers for every set of results."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.core.equity import (
    EquityState,
    calmar_daily,
    drawdown_percent,
    mean_and_deviation,
    sharpe_daily,
    sortino_daily,
)
from bandit.core.performance import (
    ClosedTrade,
    ProfitFactor,
    ProfitFactorState,
    Streaks,
    expectancy,
    expectancy_ratio,
    payoff_ratio,
    profit_factor,
    profit_factor_interval,
    sqn,
    streaks,
    summarise,
    trade_sharpe,
    win_rate,
    window_numbers,
)

BELOW_MONEY = 9.999e15
any_result = st.floats(min_value=-BELOW_MONEY, max_value=BELOW_MONEY)
money = st.decimals(min_value=-100_000, max_value=100_000, places=8).map(float)
capitals = st.floats(min_value=0.01, max_value=1e9)
runs = st.lists(money, max_size=60)
# Wall-clock limits of single examples would only measure how busy the machine is.
unhurried = settings(deadline=None)
START = datetime(2026, 1, 1, tzinfo=UTC)


def trades_of(results: list[float]) -> list[ClosedTrade]:
    """Three trades close together each hour, so that the unit has ties to break."""
    return [
        ClosedTrade(
            closed_at=START + timedelta(hours=index // 3), unit=f"{index:03d}", result=result
        )
        for index, result in enumerate(results)
    ]


@unhurried
@given(st.lists(any_result, max_size=40), st.randoms(use_true_random=False))
def test_numbers_of_a_set_do_not_depend_on_its_order(results: list[float], random: Random) -> None:
    shuffled = list(results)
    random.shuffle(shuffled)
    for number in (
        profit_factor,
        profit_factor_interval,
        win_rate,
        expectancy,
        expectancy_ratio,
        payoff_ratio,
        trade_sharpe,
        sqn,
        sharpe_and_sortino,
    ):
        assert number(results) == number(shuffled)


def sharpe_and_sortino(results: list[float]) -> tuple[float | None, float | None]:
    returns = [max(result / BELOW_MONEY, -1.0) for result in results]
    return sharpe_daily(returns), sortino_daily(returns)


@unhurried
@given(runs, capitals, st.randoms(use_true_random=False))
def test_path_numbers_depend_on_closing_order_and_not_on_arrival(
    results: list[float], capital: float, random: Random
) -> None:
    trades = trades_of(results)
    arrived = list(trades)
    random.shuffle(arrived)
    assert summarise(arrived, starting_capital=capital) == summarise(
        trades, starting_capital=capital
    )
    assert window_numbers(arrived, window=7, nominal_fraction=0.01) == window_numbers(
        trades[-7:], window=7, nominal_fraction=0.01
    )


@unhurried
@given(runs)
def test_profit_factor_equals_exact_rational_arithmetic(results: list[float]) -> None:
    factor = profit_factor(results)
    gain = sum((Fraction(r) for r in results if r > 0), Fraction(0))
    loss = sum((Fraction(-r) for r in results if r < 0), Fraction(0))
    assert factor.gross_profit == float(gain)
    assert factor.gross_loss == float(loss)
    if loss:
        assert factor.value == pytest.approx(float(gain / loss), rel=1e-15)


@unhurried
@given(st.lists(st.decimals(min_value=-(10**9), max_value=10**9, places=8), max_size=40))
def test_profit_factor_is_the_same_from_results_decimals_and_integers(
    results: list[Decimal],
) -> None:
    sums = {
        "gross_profit": sum((r for r in results if r > 0), Decimal(0)),
        "gross_loss": -sum((r for r in results if r < 0), Decimal(0)),
    }
    counts = {"n": len(results), "n_losses": sum(r < 0 for r in results)}
    steps = {name: int(amount * 10**8) for name, amount in sums.items()}
    from_decimals = ProfitFactor.from_sums(**sums, **counts)
    assert ProfitFactor.from_sums(**steps, **counts, scale=10**8) == from_decimals
    from_results = profit_factor([float(r) for r in results])
    assert from_results.state is from_decimals.state
    assert from_results.gross_profit == pytest.approx(from_decimals.gross_profit, rel=1e-15)
    assert from_results.gross_loss == pytest.approx(from_decimals.gross_loss, rel=1e-15)


@unhurried
@given(st.lists(any_result, max_size=40), st.floats(allow_nan=False))
def test_no_losses_never_passes_nor_fails_a_limit(results: list[float], limit: float) -> None:
    factor = profit_factor(results)
    if factor.state is ProfitFactorState.FINITE:
        assert factor.at_least(limit) == (factor.value >= limit)
    else:
        assert factor.value is None
        assert factor.at_least(limit) is None


@unhurried
@given(runs, st.lists(st.floats(min_value=-150, max_value=-50), min_size=30, max_size=60))
def test_profit_factor_lies_inside_its_interval(results: list[float], losses: list[float]) -> None:
    steady = [max(r, 0.0) for r in results[:10]] + losses
    interval = profit_factor_interval(steady)
    value = profit_factor(steady).value
    assert interval is not None
    assert 0.0 <= interval.low <= value * (1 + 1e-9)
    assert interval.high >= value * (1 - 1e-9)


@unhurried
@given(runs, capitals)
def test_drawdown_equals_a_naive_recomputation(results: list[float], capital: float) -> None:
    curve = [capital]
    for result in results:
        curve.append(curve[-1] + result)
    naive = max(
        100.0 * (max(curve[: i + 1]) - equity) / max(curve[: i + 1])
        for i, equity in enumerate(curve)
    )
    assert drawdown_percent(results, starting_capital=capital) == naive


@unhurried
@given(runs, capitals)
def test_drawdown_is_bounded_by_what_was_lost(results: list[float], capital: float) -> None:
    state = EquityState.start(capital).after(*results)
    lost = math.fsum(-r for r in results if r < 0)
    assert 0.0 <= state.drawdown_percent <= state.drawdown_max_percent
    assert state.drawdown_max_percent <= 100.0 * lost / capital * (1 + 1e-6) + 1e-6


@unhurried
@given(runs, runs, capitals)
def test_folding_on_from_a_stored_state_equals_folding_at_once(
    first: list[float], second: list[float], capital: float
) -> None:
    stored = EquityState.start(capital).after(*first)
    assert stored.after(*second) == EquityState.start(capital).after(*first, *second)
    assert streaks(first).after(*second) == streaks(first + second)


@unhurried
@given(runs)
def test_streaks_equal_the_runs_in_a_string_of_signs(results: list[float]) -> None:
    signs = "".join("L" if r < 0 else "W" if r > 0 else "D" for r in results)
    losing = [len(run) for run in signs.replace("W", "D").split("D")]
    winning = [len(run) for run in signs.replace("L", "D").split("D")]
    assert streaks(results) == Streaks(
        longest_losing=max(losing),
        current_losing=losing[-1],
        longest_winning=max(winning),
        current_winning=winning[-1],
    )


@unhurried
@given(st.lists(any_result, min_size=2, max_size=30))
def test_mean_and_deviation_equal_exact_rational_arithmetic(results: list[float]) -> None:
    moments = mean_and_deviation(results)
    exact_mean = sum(map(Fraction, results)) / len(results)
    exact_square = sum((Fraction(r) - exact_mean) ** 2 for r in results) / (len(results) - 1)
    size = max(map(abs, results))
    assert moments is not None
    assert moments[0] == pytest.approx(float(exact_mean), rel=1e-15, abs=1e-300)
    assert moments[1] == pytest.approx(math.sqrt(exact_square), rel=1e-9, abs=size * 1e-15)


@unhurried
@given(st.lists(any_result, max_size=30), st.booleans())
def test_every_summary_is_strict_json_that_comes_back_unchanged(
    results: list[float], with_capital: bool
) -> None:
    trades = trades_of(results)
    # Enough capital that the sum stays below the largest money.
    capital = 1.0 if with_capital and abs(math.fsum(map(abs, results))) < 1e15 else None
    for numbers in (
        summarise(trades, starting_capital=capital).to_json(),
        window_numbers(trades, window=5, nominal_fraction=None).to_json(),
    ):
        assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


@unhurried
@given(st.lists(st.floats(min_value=-1.0, max_value=1e6), max_size=40))
def test_daily_ratios_are_numbers_or_none(returns: list[float]) -> None:
    for ratio in (sharpe_daily, sortino_daily, calmar_daily):
        value = ratio(returns)
        assert value is None or math.isfinite(value)
