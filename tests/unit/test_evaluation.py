"""Evaluation of small trade logs, by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bandit.core.errors import InvalidInput
from liveops.connectors.trade_logs import AccountLog, LoggedTrade, TradeLog
from liveops.evaluation import (
    EvaluationReport,
    evaluate,
    evaluate_file,
    evaluate_trades,
    render_evaluation,
)

CSV = """\
opened_at,closed_at,pnl,return,fees,policy
2026-01-01T00:00:00Z,2026-01-01T06:00:00Z,10,0.02,0.5,a
2026-01-01T03:00:00Z,2026-01-01T12:00:00Z,-22,-0.01,0.5,b
2026-01-03T06:00:00Z,2026-01-03T12:00:00Z,11,0.05,0.25,a
"""


def at(hour: int, *, day: int = 1) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def trade(
    row: int, pnl: str, *, policy: str | None = None, forced_exit: bool = False
) -> LoggedTrade:
    return LoggedTrade(
        row=row, closed_at=at(row), pnl=Decimal(pnl), policy=policy, forced_exit=forced_exit
    )


@pytest.fixture
def report(tmp_path: Path) -> EvaluationReport:
    path = tmp_path / "trades.csv"
    path.write_text(CSV)
    return evaluate_file(path, Decimal(100))


def test_money_numbers_of_the_example(report: EvaluationReport) -> None:
    numbers = report.overall
    assert numbers.total_profit == Decimal(-1)
    assert numbers.return_on_capital == -0.01
    assert numbers.fees == Decimal("1.25")
    assert numbers.return_mean == pytest.approx(0.02, rel=1e-12)


def test_path_of_the_example_starts_at_the_capital(report: EvaluationReport) -> None:
    # 100 → 110 → 88 → 99: 22 / 110 = 20 % deepest, 11 / 110 = 10 % now.
    equity = report.overall.summary.equity
    assert equity is not None
    assert (equity.drawdown_max_percent, equity.drawdown_percent) == (20.0, 10.0)


def test_days_between_closes_count(report: EvaluationReport) -> None:
    # End of day: 88, 88, 99. Returns -0.12, 0, 0.125.
    daily = report.overall.daily
    assert (daily.days, daily.losing_days) == (3, 1)
    mean = (-0.12 + 0.125) / 3
    variance = ((-0.12 - mean) ** 2 + mean**2 + (0.125 - mean) ** 2) / 2
    assert daily.sharpe == pytest.approx(mean / variance**0.5 * 365**0.5, rel=1e-12)
    assert daily.sortino == pytest.approx(mean / (0.12**2 / 3) ** 0.5 * 365**0.5, rel=1e-12)
    assert daily.calmar == pytest.approx((0.99 ** (365 / 3) - 1) / 0.12, rel=1e-12)


def test_best_and_worst_day_of_the_example(report: EvaluationReport) -> None:
    numbers = report.to_json()
    assert numbers["best_day"] == {"date": "2026-01-03", "pnl": 11.0}
    assert numbers["worst_day"] == {"date": "2026-01-01", "pnl": -12.0}


def test_exposure_counts_overlapping_positions_once(report: EvaluationReport) -> None:
    # Open from 00:00 to 12:00 on the first day and 06:00 to 12:00 on the third: 18 of 60 hours.
    assert report.overall.exposure_ratio == pytest.approx(18 / 60, rel=1e-12)


def test_policies_of_one_account_are_judged_on_all_of_its_capital(
    report: EvaluationReport,
) -> None:
    a, b = report.policies["a"], report.policies["b"]
    assert (a.total_profit, b.total_profit) == (21, -22)
    assert a.summary.profit_factor.value is None
    assert b.summary.equity is not None
    assert b.summary.equity.drawdown_max_percent == 22.0


def test_windows_start_with_the_money_that_stood_there() -> None:
    # The 31st trade from the end doubles the account, so a loss of 20 in the window is 10 %.
    trades = [trade(1, "100"), *[trade(2, "0")] * 29, trade(3, "-20")]
    numbers = evaluate_trades(trades, starting_capital=Decimal(100)).to_json()
    assert numbers["dd_30"] == {"value": pytest.approx(10.0, rel=1e-12), "state": "finite"}
    assert numbers["n_150"] == 31


def test_no_capital_leaves_drawdown_and_daily_ratios_without_a_value() -> None:
    numbers = evaluate_trades([trade(1, "5"), trade(2, "-1")], starting_capital=None).to_json()
    nothing = {"value": None, "state": "no_starting_capital"}
    for name in (
        "starting_capital",
        "return_on_capital",
        "drawdown_max_percent",
        "drawdown_current_percent",
        "high_water_mark",
        "dd_30",
        "dd_150",
        "sharpe_daily",
        "sortino_daily",
        "calmar_daily",
    ):
        assert numbers[name] == nothing
    assert numbers["total_profit"] == 4.0


def test_account_that_lost_everything_has_no_daily_ratios() -> None:
    numbers = evaluate_trades([trade(1, "-100")], starting_capital=Decimal(50)).to_json()
    assert numbers["drawdown_max_percent"] == {"value": 200.0, "state": "finite"}
    assert numbers["calmar_daily"] == {"value": None, "state": "capital_lost"}


def test_window_that_began_with_nothing_left_has_no_drawdown() -> None:
    trades = [trade(1, "-100"), *[trade(2, "1")] * 30]
    numbers = evaluate_trades(trades, starting_capital=Decimal(50)).to_json()
    assert numbers["dd_30"] == {"value": None, "state": "no_starting_capital"}


@pytest.mark.parametrize(
    ("pnls", "states"),
    [
        ([], ("no_trades", "no_trades", "no_trades")),
        (["5"], ("too_few", "too_few", "too_few")),
    ],
)
def test_daily_ratios_say_what_they_lack(pnls: list[str], states: tuple[str, ...]) -> None:
    trades = [trade(row, pnl) for row, pnl in enumerate(pnls)]
    numbers = evaluate_trades(trades, starting_capital=Decimal(10)).to_json()
    names = ("sharpe_daily", "sortino_daily", "calmar_daily")
    assert tuple(numbers[name]["state"] for name in names) == states


def test_steady_days_have_neither_spread_nor_loss_nor_drawdown() -> None:
    # 100 → 200 → 400: a return of exactly 1 on both days.
    trades = [
        LoggedTrade(row=1, closed_at=at(1, day=1), pnl=Decimal(100)),
        LoggedTrade(row=2, closed_at=at(1, day=2), pnl=Decimal(200)),
    ]
    numbers = evaluate_trades(trades, starting_capital=Decimal(100)).to_json()
    states = [numbers[f"{ratio}_daily"]["state"] for ratio in ("sharpe", "sortino", "calmar")]
    assert states == ["no_spread", "no_losses", "no_drawdown"]


def test_unknown_fees_and_times_are_not_zero() -> None:
    numbers = evaluate_trades([trade(1, "5")], starting_capital=None).to_json()
    for name in ("fees", "exposure_ratio", "return_mean"):
        assert numbers[name] == {"value": None, "state": "unknown"}


def test_losses_that_only_the_end_of_a_backtest_realised_are_shown_apart() -> None:
    trades = [trade(1, "5"), trade(2, "-1", forced_exit=True)]
    numbers = evaluate_trades(trades, starting_capital=None).to_json()
    assert numbers["forced_exits"] == 1
    assert numbers["profit_factor"]["value"] == 5.0
    assert numbers["profit_factor_without_forced_exits"]["state"] == "no_losses"


def test_rows_decide_between_trades_that_closed_together() -> None:
    trades = [
        LoggedTrade(row=row, closed_at=at(1), pnl=Decimal(pnl))
        for row, pnl in ((2, 5), (1, -1), (3, -1))
    ]
    assert evaluate_trades(trades, starting_capital=None).summary.streaks.longest_losing == 1


def test_total_profit_is_exact_whatever_the_sizes_and_the_order() -> None:
    pnls = ["9999999999999999.00000001", "-9999999999999999", "1e-40"]
    for order in (pnls, pnls[::-1]):
        trades = [trade(row, pnl) for row, pnl in enumerate(order)]
        total = evaluate_trades(trades, starting_capital=None).total_profit
        assert total == Decimal("1.00000000000000000000000000000001e-8")


def test_backtested_strategies_are_accounts_side_by_side() -> None:
    log = TradeLog(
        accounts=(
            AccountLog(trades=(trade(1, "-10", policy="A"),), starting_capital=Decimal(100)),
            AccountLog(trades=(trade(2, "30", policy="B"),), starting_capital=Decimal(300)),
        )
    )
    report = evaluate(log, starting_capital=None, trades_file="result.json")
    assert report.overall.starting_capital == 400
    assert report.policies["A"].return_on_capital == -0.1
    assert report.policies["B"].return_on_capital == 0.1
    replaced = evaluate(log, starting_capital=Decimal(50), trades_file="result.json")
    assert replaced.overall.starting_capital == 100
    assert replaced.policies["A"].return_on_capital == -0.2


@pytest.mark.parametrize("capital", ["0", "-5", "NaN", "Infinity"])
def test_capital_that_is_no_money_is_refused(capital: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        evaluate_trades([], starting_capital=Decimal(capital))
    assert refused.value.field == "starting_capital"


def test_report_is_strict_json(report: EvaluationReport) -> None:
    numbers = report.to_json()
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["trades_file"] == "trades.csv"
    assert numbers["policies"]["a"]["n"] == 2


def test_every_key_of_the_report_is_defined_in_the_docs(report: EvaluationReport) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "definitions.md"
    text = page.read_text(encoding="utf-8")
    keys = {key.replace("_150", "_30") for key in report.to_json()}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def rendered(report: EvaluationReport) -> str:
    out = StringIO()
    Console(file=out, width=160).print(render_evaluation(report))
    return out.getvalue()


def test_tables_show_values_and_say_why_there_is_none(report: EvaluationReport) -> None:
    lines = rendered(report).splitlines()
    assert any("drawdown, deepest" in line and "20 %" in line for line in lines)
    assert any("worst day" in line and "-12 on 2026-01-01" in line for line in lines)
    policy_a = next(line for line in lines if line.startswith("│ a "))
    assert "no losses" in policy_a


def test_names_from_the_file_are_shown_and_not_interpreted() -> None:
    log = TradeLog(
        accounts=(AccountLog(trades=(trade(1, "1", policy="[bold]x[/]"),)),),
        ignored_columns=("[red]fee",),
    )
    text = rendered(evaluate(log, starting_capital=None, trades_file="[link]t.csv"))
    assert "[bold]x[/]" in text
    assert "ignored column: [red]fee" in text
    assert "[link]t.csv" in text


def test_empty_log_renders() -> None:
    log = TradeLog(accounts=(AccountLog(trades=()),))
    assert "no trades" in rendered(evaluate(log, starting_capital=None, trades_file="t.csv"))
