"""Performance numbers on logs small enough to work out by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from bandit.core.equity import (
    EquityState,
    calmar_daily,
    daily_equity,
    daily_returns_from_equity,
    drawdown_percent,
    sharpe_daily,
    sortino_daily,
)
from bandit.core.errors import InvalidInput
from bandit.core.performance import (
    ClosedTrade,
    ProfitFactor,
    ProfitFactorState,
    Streaks,
    average_loss,
    average_win,
    expectancy,
    expectancy_ratio,
    in_closing_order,
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
from bandit.core.profit_factor import worst_block

# 3 wins (60), 2 losses (30), 1 draw; total 30 over 6 trades.
RESULTS = [10.0, -20.0, 30.0, 0.0, 20.0, -10.0]


def closed(day: int, result: float, unit: str = "u") -> ClosedTrade:
    return ClosedTrade(closed_at=datetime(2026, 1, day, tzinfo=UTC), unit=unit, result=result)


def test_profit_factor_is_gross_profit_over_gross_loss() -> None:
    factor = profit_factor(RESULTS)
    assert factor.to_json() == {
        "value": 2.0,
        "state": "finite",
        "gross_profit": 60.0,
        "gross_loss": 30.0,
        "n": 6,
        "n_losses": 2,
    }


@pytest.mark.parametrize(
    ("results", "state", "gross_profit"),
    [
        ([], ProfitFactorState.NO_TRADES, 0.0),
        ([5.0, 1.0], ProfitFactorState.NO_LOSSES, 6.0),
        ([0.0, 0.0], ProfitFactorState.NO_LOSSES, 0.0),
    ],
)
def test_profit_factor_without_a_loss_has_a_state_and_no_value(
    results: list[float], state: ProfitFactorState, gross_profit: float
) -> None:
    factor = profit_factor(results)
    assert (factor.state, factor.value, factor.gross_profit) == (state, None, gross_profit)
    assert json.loads(json.dumps(factor.to_json(), allow_nan=False))["value"] is None


def test_only_losses_are_a_finite_profit_factor_of_zero() -> None:
    factor = profit_factor([-1.0, -2.0])
    assert (factor.state, factor.value) == (ProfitFactorState.FINITE, 0.0)


def test_gross_loss_of_no_losses_is_plain_zero() -> None:
    assert math.copysign(1.0, profit_factor([1.0]).gross_loss) == 1.0


def test_at_least_is_inconclusive_without_a_value() -> None:
    assert profit_factor(RESULTS).at_least(2.0) is True
    assert profit_factor(RESULTS).at_least(2.1) is False
    assert profit_factor([5.0]).at_least(0.0) is None
    assert profit_factor([]).at_least(0.0) is None


def test_profit_factors_have_no_order_so_no_losses_cannot_win_a_ranking() -> None:
    with pytest.raises(TypeError):
        max([profit_factor([5.0]), profit_factor(RESULTS)])


def test_profit_factor_from_decimal_sums_equals_that_of_the_results() -> None:
    exact = ProfitFactor.from_sums(
        gross_profit=Decimal("60"), gross_loss=Decimal("30"), n=6, n_losses=2
    )
    assert exact == profit_factor(RESULTS)


def test_profit_factor_from_scaled_integers_shows_sums_in_whole_units() -> None:
    exact = ProfitFactor.from_sums(
        gross_profit=60 * 10**12, gross_loss=30 * 10**12, n=6, n_losses=2, scale=10**12
    )
    assert exact == profit_factor(RESULTS)


def test_a_quotient_beyond_a_double_stays_a_json_number() -> None:
    factor = profit_factor([1e15, -5e-324])
    assert factor.value is not None
    json.dumps(factor.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("gross_profit", {"gross_profit": math.nan}),
        ("gross_loss", {"gross_loss": -1.0}),
        ("gross_loss", {"gross_loss": math.inf}),
        ("gross_loss", {"gross_loss": 0.0}),
        ("n_losses", {"n_losses": 7}),
        ("n_losses", {"n_losses": -1}),
        ("gross_loss", {"n_losses": 0}),
        ("gross_profit", {"n": 2}),
    ],
)
def test_contradictory_profit_factor_is_refused(field: str, change: dict[str, float]) -> None:
    consistent = {"gross_profit": 60.0, "gross_loss": 30.0, "n": 6, "n_losses": 2}
    with pytest.raises(InvalidInput) as refused:
        ProfitFactor(**(consistent | change))
    assert refused.value.field == field


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.1e16])
def test_results_that_are_not_money_are_refused(bad: float) -> None:
    with pytest.raises(InvalidInput):
        profit_factor([1.0, bad])
    with pytest.raises(InvalidInput):
        EquityState.start(1.0).after(bad)
    with pytest.raises(InvalidInput):
        trade_sharpe([1.0, bad])
    with pytest.raises(InvalidInput):
        closed(1, bad)


def test_the_largest_money_of_the_ledger_is_a_result() -> None:
    largest = float(Decimal("9999999999999999.99999999"))
    assert EquityState.start(1.0).after(largest, largest).equity == pytest.approx(2e16)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        # Seven trades in three blocks: two, two and three; 3, 0.5 and 8 / 2.
        ([3.0, -1.0, 1.0, -2.0, 4.0, -2.0, 4.0], 0.5),
        ([3.0, -1.0, 1.0, -2.0], None),  # the last block has a loss, the first none
        ([], None),
    ],
)
def test_worst_block_is_the_lowest_profit_factor_of_a_third(
    results: list[float], expected: float | None
) -> None:
    assert worst_block(results, blocks=3) == expected


def test_worst_block_needs_a_block() -> None:
    with pytest.raises(InvalidInput, match="blocks"):
        worst_block([1.0], blocks=0)


def test_profit_factor_interval_of_a_worked_example() -> None:
    # 50 wins of 2, 50 losses of 1: per trade gain 1, loss 0.5; with n-1 = 99 the variances are
    # 100/99 and 25/99, the covariance -50/99. z²/n = 0.0384146 at 95 %.
    k = 1.959963984540054**2 / 100 / 99
    a, b, d = 0.25 - 25 * k, 0.5 + 50 * k, 1.0 - 100 * k
    interval = profit_factor_interval([2.0, -1.0] * 50)
    assert interval is not None
    assert interval.low == pytest.approx((b - math.sqrt(b * b - a * d)) / a, rel=1e-12)
    assert interval.high == pytest.approx((b + math.sqrt(b * b - a * d)) / a, rel=1e-12)


@pytest.mark.parametrize("results", [[], [1.0], [1.0, 2.0], [5.0] * 99 + [-1.0]])
def test_profit_factor_interval_needs_more_than_a_handful_of_losses(results: list[float]) -> None:
    assert profit_factor_interval(results) is None


def test_win_rate_counts_draws_as_closed_trades() -> None:
    assert win_rate(RESULTS) == 0.5


def test_expectancy_is_the_mean_result() -> None:
    assert expectancy(RESULTS) == 5.0


def test_averages_and_ratios_of_the_worked_example() -> None:
    assert (average_win(RESULTS), average_loss(RESULTS)) == (20.0, 15.0)
    assert payoff_ratio(RESULTS) == pytest.approx(4 / 3, rel=1e-15)
    # (1 + 4/3) · 1/2 - 1 = 1/6; the draw makes it differ from expectancy / average loss = 1/3.
    assert expectancy_ratio(RESULTS) == pytest.approx(1 / 6, rel=1e-12)


def test_trade_sharpe_and_sqn_use_the_sample_deviation() -> None:
    # Squared distances from 5: 25 + 625 + 625 + 25 + 225 + 225 = 1750; 1750 / 5 = 350.
    assert trade_sharpe(RESULTS) == pytest.approx(5 / math.sqrt(350), rel=1e-15)
    assert sqn(RESULTS) == pytest.approx(math.sqrt(6) * 5 / math.sqrt(350), rel=1e-15)


@pytest.mark.parametrize("results", [[], [1.0], [0.1, 0.1, 0.1]])
def test_trade_sharpe_and_sqn_are_undefined_without_spread(results: list[float]) -> None:
    assert trade_sharpe(results) is None
    assert sqn(results) is None


def test_no_trades_have_no_ratio() -> None:
    for number in (win_rate, expectancy, expectancy_ratio, average_win, average_loss, payoff_ratio):
        assert number([]) is None


def test_only_losers_have_an_expectancy_ratio_of_minus_one_and_no_payoff() -> None:
    assert expectancy_ratio([-1.0, -3.0]) == -1.0
    assert payoff_ratio([-1.0, -3.0]) is None
    assert average_win([-1.0, -3.0]) is None


def test_a_draw_ends_both_streaks() -> None:
    run = streaks([1.0, 1.0, 0.0, 1.0, -1.0, -1.0, -1.0, 0.0, -1.0])
    assert run == Streaks(longest_losing=3, current_losing=1, longest_winning=2, current_winning=0)


def test_streaks_continue_from_a_stored_state() -> None:
    stored = streaks([-1.0, -1.0])
    assert stored.after(-1.0).after(2.0) == streaks([-1.0, -1.0, -1.0, 2.0])


@pytest.mark.parametrize(
    "fields",
    [
        {"current_losing": 2, "longest_losing": 1},
        {"current_losing": -1},
        {"current_winning": 2, "longest_winning": 1},
    ],
)
def test_contradictory_streaks_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        Streaks(**fields)


def test_a_loss_on_the_first_trade_is_a_drawdown_from_starting_capital() -> None:
    assert drawdown_percent([-25.0, 50.0], starting_capital=100.0) == 25.0


def test_drawdown_is_a_percentage_of_the_peak_and_not_of_the_start() -> None:
    # 100 → 200 → 150 (25 % of 200) → 160.
    state = EquityState.start(100.0).after(100.0, -50.0, 10.0)
    assert (state.equity, state.high_water_mark) == (160.0, 200.0)
    assert (state.drawdown_max_percent, state.drawdown_percent) == (25.0, 20.0)


def test_drawdown_exceeds_100_percent_when_more_than_everything_is_lost() -> None:
    assert drawdown_percent([-150.0], starting_capital=100.0) == 150.0


def test_equity_continues_from_a_stored_state() -> None:
    stored = EquityState.start(100.0).after(30.0, -40.0)
    again = EquityState(**{f.name: getattr(stored, f.name) for f in dataclasses.fields(stored)})
    assert again.after(5.0) == EquityState.start(100.0).after(30.0, -40.0, 5.0)


@pytest.mark.parametrize("capital", [0.0, -1.0, math.nan, math.inf, 1.1e16, 1e-9])
def test_capital_without_percentages_is_refused(capital: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        drawdown_percent([], starting_capital=capital)
    assert refused.value.field == "starting_capital"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("high_water_mark", {"high_water_mark": 119.0}),
        ("high_water_mark", {"high_water_mark": math.inf}),
        ("drawdown_max_percent", {"drawdown_max_percent": 19.0}),
        ("drawdown_max_percent", {"drawdown_max_percent": math.nan}),
        ("equity", {"equity": math.nan}),
    ],
)
def test_contradictory_equity_state_is_refused(field: str, change: dict[str, float]) -> None:
    consistent = {
        "starting_capital": 120.0,
        "equity": 96.0,
        "high_water_mark": 120.0,
        "drawdown_max_percent": 20.0,
    }
    EquityState(**consistent)
    with pytest.raises(InvalidInput) as refused:
        EquityState(**(consistent | change))
    assert refused.value.field == field


def test_trades_fold_in_the_order_of_closing_and_then_unit() -> None:
    trades = [closed(2, 1.0), closed(1, 2.0, unit="b"), closed(1, 3.0, unit="a")]
    assert [trade.result for trade in in_closing_order(trades)] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "closed_at",
    [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))],  # noqa: DTZ001 - a naive time is the case
)
def test_closing_times_are_aware_utc(closed_at: datetime) -> None:
    with pytest.raises(InvalidInput) as refused:
        ClosedTrade(closed_at=closed_at, unit="u", result=0.0)
    assert refused.value.field == "closed_at"


def test_window_reads_only_the_last_trades_and_starts_a_fresh_curve() -> None:
    # The loss of 0.9 lies before the window. At half size: 1 → 1.1 → 1.0, 0.1 / 1.1 = 9.09 %.
    trades = [closed(1, -0.9), closed(3, -0.2), closed(2, 0.2)]
    numbers = window_numbers(trades, window=2, nominal_fraction=0.5)
    assert (numbers.n, numbers.win_rate, numbers.losing_streak) == (2, 0.5, 1)
    assert numbers.profit_factor.value == 1.0
    assert numbers.drawdown_percent == pytest.approx(100 / 11, rel=1e-12)


def test_window_that_is_not_full_says_so() -> None:
    numbers = window_numbers([closed(1, 0.1)], window=30, nominal_fraction=1.0)
    assert (numbers.window, numbers.n) == (30, 1)
    assert numbers.to_json()["pf_30"] == profit_factor([0.1]).to_json()


def test_empty_window_without_a_fraction_is_undefined_throughout() -> None:
    assert window_numbers([], window=30, nominal_fraction=None).to_json() == {
        "n_30": 0,
        "pf_30": profit_factor([]).to_json(),
        "win_rate_30": {"value": None, "state": "no_trades"},
        "dd_30": {"value": None, "state": "no_starting_capital"},
        "losing_streak_30": 0,
    }


@pytest.mark.parametrize(("window", "fraction"), [(0, 0.1), (30, 0.0), (30, -0.1), (30, math.inf)])
def test_impossible_windows_are_refused(window: int, fraction: float) -> None:
    with pytest.raises(InvalidInput):
        window_numbers([], window=window, nominal_fraction=fraction)


def test_summary_of_the_worked_example() -> None:
    trades = [closed(day, result) for day, result in enumerate(RESULTS, start=1)]
    numbers = summarise(reversed(trades), starting_capital=100.0).to_json()
    assert (numbers["n"], numbers["wins"], numbers["losses"], numbers["draws"]) == (6, 3, 2, 1)
    # 100 → 110 → 90 → 120 → 120 → 140 → 130.
    assert numbers["drawdown_max_percent"] == {"value": 2000.0 / 110.0, "state": "finite"}
    assert numbers["high_water_mark"] == {"value": 140.0, "state": "finite"}
    assert (numbers["losing_streak_longest"], numbers["losing_streak_current"]) == (1, 1)
    assert numbers["winning_streak_longest"] == 1


@pytest.mark.parametrize(
    ("results", "states"),
    [
        (
            [],
            {
                "win_rate": "no_trades",
                "average_win": "no_trades",
                "average_loss": "no_trades",
                "payoff_ratio": "no_trades",
                "expectancy_ratio": "no_trades",
                "sqn": "no_trades",
                "profit_factor_high": "no_trades",
            },
        ),
        (
            [5.0],
            {
                "average_loss": "no_losses",
                "payoff_ratio": "no_losses",
                "expectancy_ratio": "no_losses",
                "profit_factor_low": "no_losses",
                "sqn": "too_few",
            },
        ),
        (
            [-5.0, -5.0],
            {
                "average_win": "no_wins",
                "payoff_ratio": "no_wins",
                "trade_sharpe": "no_spread",
                "expectancy_ratio": "finite",
                "profit_factor": "finite",
            },
        ),
        ([5.0] * 99 + [-1.0], {"profit_factor_low": "too_few", "profit_factor_high": "too_few"}),
    ],
)
def test_summary_says_why_a_number_is_missing(results: list[float], states: dict[str, str]) -> None:
    numbers = summarise([closed(1, r) for r in results], starting_capital=None).to_json()
    found = {name: number["state"] for name, number in numbers.items() if isinstance(number, dict)}
    assert found | states == found
    assert found["drawdown_max_percent"] == "no_starting_capital"


def test_daily_equity_adds_money_exactly() -> None:
    days = {date(2026, 1, day): Decimal("0.1") for day in (1, 2, 3)}
    curve = daily_equity(days, starting_capital=Decimal("0.7"))
    assert curve == {date(2026, 1, 1): 0.8, date(2026, 1, 2): 0.9, date(2026, 1, 3): 1.0}


def test_days_without_a_trade_return_nothing_and_count() -> None:
    equity = {date(2026, 1, 4): 121.0, date(2026, 1, 1): 110.0}
    returns = daily_returns_from_equity(equity, starting_capital=100.0)
    assert returns == [0.1, 0.0, 0.0, 0.1]


def test_no_days_have_no_returns() -> None:
    assert daily_returns_from_equity({}, starting_capital=100.0) == []


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_equity_that_is_not_positive_has_no_returns(bad: float) -> None:
    with pytest.raises(InvalidInput):
        daily_returns_from_equity({date(2026, 1, 1): 1.0, date(2026, 1, 2): bad})


def test_daily_ratios_of_a_worked_example() -> None:
    # Mean 0.01; squared distances 0.0025 each: sd = √(0.005 / 1); downside √(0.04² / 2).
    returns = [0.06, -0.04]
    assert sharpe_daily(returns) == pytest.approx(
        0.01 / math.sqrt(0.005) * math.sqrt(365), rel=1e-12
    )
    assert sortino_daily(returns) == pytest.approx(
        0.01 / (0.04 / math.sqrt(2)) * math.sqrt(365), rel=1e-12
    )
    growth = (1.06 * 0.96) ** (365 / 2) - 1
    assert calmar_daily(returns) == pytest.approx(growth / 0.04, rel=1e-12)


def test_calmar_counts_a_loss_on_the_first_day() -> None:
    assert calmar_daily([-0.5] + [0.0] * 364) == pytest.approx(-1.0, rel=1e-12)


@pytest.mark.parametrize("returns", [[], [0.01], [-0.01]])
def test_daily_ratios_need_two_days(returns: list[float]) -> None:
    assert sharpe_daily(returns) is None
    assert sortino_daily(returns) is None
    assert calmar_daily(returns) is None


def test_growth_too_fast_for_a_double_has_no_calmar() -> None:
    assert calmar_daily([-0.1, 1e20]) is None
    assert calmar_daily([-0.1, *[1e99] * 4]) is None


@pytest.mark.parametrize("bad", [-1.1, math.nan, math.inf])
def test_impossible_daily_returns_are_refused(bad: float) -> None:
    for ratio in (sharpe_daily, sortino_daily, calmar_daily):
        with pytest.raises(InvalidInput):
            ratio([0.1, bad])
