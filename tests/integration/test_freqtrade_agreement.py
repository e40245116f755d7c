"""Our numbers beside those of freqtrade, quantstats and empyrical, on trades freqtrade made.

Where the definitions coincide they must agree; where they do not, the difference is pinned to the
reason that docs/definitions.md gives for it.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bandit.core.equity import (
    calmar_daily,
    daily_returns_from_equity,
    mean_and_deviation,
    sharpe_daily,
    sortino_daily,
)
from bandit.core.performance import ProfitFactorState, profit_factor
from liveops.connectors.trade_logs import AccountLog, LoggedTrade, TradeLog
from liveops.evaluation import Evaluation, evaluate, evaluate_file

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RUNS = [f"{arm}|fee={fee}" for arm in ("ArmTrendEma", "ArmCoin") for fee in ("0.001", "0.0")]
OVERFIT = [
    "backtest-result-2024-09-05_21-59-25.json.gz",
    "backtest-result-2024-09-06_13-01-15.json.gz",
    "backtest-result-2024-09-07_10-46-44.json.gz",
    "backtest-result-2024-09-07_15-54-11.json.gz",
    "backtest-result-2024-09-07_15-58-46.json.gz",
]

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the development data (../shared/data) is not on this machine"
)


def rows_of(name: str, run: str) -> Iterator[dict[str, str]]:
    arm, fee = run.split("|fee=")
    with gzip.open(DATA / "freqtrade" / name, "rt", newline="") as file:
        yield from (r for r in csv.DictReader(file) if r["arm"] == arm and r["fee"] == fee)


def logged(rows: Iterable[dict[str, str]]) -> tuple[LoggedTrade, ...]:
    return tuple(
        LoggedTrade(
            row=row,
            opened_at=datetime.fromtimestamp(int(raw["open_ms"]) // 1000, UTC),
            closed_at=datetime.fromtimestamp(int(raw["close_ms"]) // 1000, UTC),
            pnl=Decimal(raw["profit_abs"]),
            return_ratio=float(raw["profit_ratio"]),
            instrument=raw["pair"],
            policy=raw["arm"],
            forced_exit=raw["exit_reason"] == "force_exit",
        )
        for row, raw in enumerate(rows, start=1)
    )


def evaluated(trades: tuple[LoggedTrade, ...], capital: Decimal) -> Evaluation:
    log = TradeLog(accounts=(AccountLog(trades=trades),))
    return evaluate(log, starting_capital=capital, trades_file="trades.csv").overall


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    with gzip.open(DATA / "freqtrade" / "golden_freqtrade_report.json.gz") as file:
        report: dict[str, Any] = json.load(file)
    return report


@pytest.fixture(scope="module")
def evaluations(reports: dict[str, Any]) -> dict[str, Evaluation]:
    return {
        run: evaluated(
            logged(rows_of("trades.csv.gz", run)), Decimal(reports[run]["starting_balance"])
        )
        for run in RUNS
    }


def same(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("run", RUNS)
def test_numbers_whose_definitions_coincide_agree_with_freqtrade(
    run: str, reports: dict[str, Any], evaluations: dict[str, Evaluation]
) -> None:
    theirs, ours = reports[run], evaluations[run]
    summary = ours.summary
    assert summary.equity is not None
    assert summary.profit_factor.n == theirs["total_trades"]
    assert (summary.wins, summary.draws) == (theirs["wins"], theirs["draws"])
    assert summary.profit_factor.n_losses == theirs["losses"]
    assert float(ours.total_profit) == same(theirs["profit_total_abs"])
    assert ours.return_on_capital == same(theirs["profit_total"])
    assert ours.return_mean == same(theirs["profit_mean"])
    assert summary.profit_factor.value == same(theirs["profit_factor"])
    assert summary.win_rate == same(theirs["winrate"])
    assert summary.expectancy == same(theirs["expectancy"])
    assert summary.expectancy_ratio == same(theirs["expectancy_ratio"])
    assert summary.streaks.longest_winning == theirs["max_consecutive_wins"]
    assert summary.streaks.longest_losing == theirs["max_consecutive_losses"]
    assert summary.equity.drawdown_max_percent == same(100 * theirs["max_relative_drawdown"])
    assert summary.equity.equity == same(theirs["final_balance"])
    assert ours.best_day is not None
    assert ours.worst_day is not None
    assert float(ours.best_day.pnl) == same(theirs["backtest_best_day_abs"])
    assert float(ours.worst_day.pnl) == same(theirs["backtest_worst_day_abs"])
    assert (ours.daily.days, ours.daily.losing_days) == (
        len(theirs["daily_profit"]),
        theirs["losing_days"],
    )


@pytest.mark.parametrize("run", RUNS)
def test_sqn_agrees_with_the_four_decimals_that_freqtrade_keeps(
    run: str, reports: dict[str, Any], evaluations: dict[str, Evaluation]
) -> None:
    assert evaluations[run].summary.sqn == pytest.approx(reports[run]["sqn"], rel=0, abs=5.1e-5)


@pytest.mark.parametrize("run", RUNS)
def test_freqtrade_sharpe_of_trades_is_a_mean_per_day_over_a_deviation_per_trade(
    run: str, reports: dict[str, Any]
) -> None:
    theirs = reports[run]
    profits = [float(raw["profit_abs"]) / 10_000 for raw in rows_of("trades.csv.gz", run)]
    moments = mean_and_deviation(profits)
    assert moments is not None
    n = len(profits)
    per_trade = moments[1] * math.sqrt((n - 1) / n)
    mean_per_day = math.fsum(profits) / theirs["backtest_days"]
    assert mean_per_day / per_trade * math.sqrt(365) == same(theirs["sharpe"])


@pytest.mark.parametrize("run", RUNS)
def test_groups_without_a_loss_which_freqtrade_scores_0_read_no_losses(
    run: str, reports: dict[str, Any]
) -> None:
    for group in reports[run]["exit_reason_summary"]:
        if group["key"] == "TOTAL":
            continue
        factor = profit_factor(
            float(raw["profit_abs"])
            for raw in rows_of("trades.csv.gz", run)
            if raw["exit_reason"] == group["key"]
        )
        if group["losses"]:
            assert factor.value == same(group["profit_factor"])
        else:
            assert group["profit_factor"] == 0.0
            assert (factor.state, factor.value) == (ProfitFactorState.NO_LOSSES, None)


@pytest.mark.parametrize("name", OVERFIT)
def test_overfit_backtests_hold_no_loss_but_those_the_end_of_the_data_forced(name: str) -> None:
    path = DATA / "overfit_backtests" / name
    with gzip.open(path) as file:
        (theirs,) = json.load(file)["strategy"].values()
    report = evaluate_file(path, None)
    ours = report.overall
    assert list(report.policies) == [theirs["strategy_name"]]
    assert ours.summary.profit_factor.value == same(theirs["profit_factor"])
    assert float(ours.total_profit) == same(theirs["profit_total_abs"])
    assert ours.return_on_capital == same(theirs["profit_total"])
    assert ours.summary.win_rate == same(theirs["winrate"])
    assert ours.summary.expectancy_ratio == same(theirs["expectancy_ratio"])
    assert ours.summary.streaks.longest_losing == theirs["max_consecutive_losses"]
    assert ours.summary.streaks.longest_winning == theirs["max_consecutive_wins"]
    assert ours.summary.equity is not None
    assert ours.summary.equity.drawdown_max_percent == same(100 * theirs["max_relative_drawdown"])
    realised = ours.profit_factor_without_forced_exits
    assert (ours.forced_exits, realised.state) == (2, ProfitFactorState.NO_LOSSES)
    assert realised.to_json()["value"] is None
    assert realised.at_least(1.0) is None
    # One or two losses say nothing about their mean: the quotient comes without an interval.
    assert ours.summary.profit_factor_interval is None


def gross(raw: dict[str, Any]) -> Decimal:
    price_gain = Decimal(str(raw["close_rate"])) - Decimal(str(raw["open_rate"]))
    return Decimal(str(raw["amount"])) * price_gain


@pytest.mark.parametrize("name", OVERFIT)
def test_fees_from_rates_and_prices_are_what_lies_between_gross_and_net(name: str) -> None:
    path = DATA / "overfit_backtests" / name
    with gzip.open(path) as file:
        (theirs,) = json.load(file)["strategy"].values()
    ours = evaluate_file(path, None).overall
    gross_total = sum((gross(raw) for raw in theirs["trades"]), Decimal(0))
    assert ours.fees is not None
    # freqtrade rounds each trade's net profit to eight decimals.
    assert float(gross_total - ours.fees) == pytest.approx(float(ours.total_profit), abs=1e-6)


def wallet_returns(run: str) -> list[float]:
    return daily_returns_from_equity(
        {
            date.fromisoformat(raw["date"][:10]): float(raw["total_quote"])
            for raw in rows_of("daily_wallet.csv.gz", run)
        }
    )


@pytest.mark.parametrize("run", RUNS)
def test_daily_ratios_of_the_wallet_agree_with_quantstats_and_empyrical(run: str) -> None:
    # Imported here: the two oracles take seconds to load.
    import empyrical
    import pandas
    import quantstats.stats as quantstats

    returns = wallet_returns(run)
    series = pandas.Series(returns, index=pandas.date_range("2024-01-03", periods=len(returns)))
    exact = {"rel": 1e-12, "abs": 1e-12}
    for ours, theirs in (
        (sharpe_daily(returns), quantstats.sharpe(series, periods=365)),
        (sharpe_daily(returns), empyrical.sharpe_ratio(series, annualization=365)),
        (sortino_daily(returns), quantstats.sortino(series, periods=365)),
        (sortino_daily(returns), empyrical.sortino_ratio(series, annualization=365)),
        (calmar_daily(returns), quantstats.calmar(series, periods=365)),
        (calmar_daily(returns), empyrical.calmar_ratio(series, annualization=365)),
    ):
        assert ours == pytest.approx(float(theirs), **exact)


@pytest.mark.parametrize("run", RUNS)
def test_freqtrade_wallet_sharpe_is_ours_with_the_population_deviation(
    run: str, reports: dict[str, Any]
) -> None:
    returns = wallet_returns(run)
    ours, n = sharpe_daily(returns), len(returns)
    assert ours is not None
    assert ours * math.sqrt(n / (n - 1)) == same(reports[run]["wallet_stats"]["sharpe"])
