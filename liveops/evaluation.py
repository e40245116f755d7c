"""The numbers of a trade log: what `liveops evaluate` prints (docs/definitions.md)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bandit.core.daily import DailyNumbers, daily_numbers
from bandit.core.equity import (
    checked_capital,
)
from bandit.core.performance import (
    ClosedTrade,
    NumberState,
    PerformanceSummary,
    ProfitFactor,
    WindowNumbers,
    expectancy,
    profit_factor,
    stated,
    summarise,
    window_numbers,
)
from liveops.connectors.trade_logs import LoggedTrade, TradeLog, load_trades

WINDOWS: Final = (30, 150)
# No sum of the amounts that a trade log may hold is rounded in 80 digits.
_EXACT: Final = Context(prec=80)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayProfit:
    """What closed on one UTC day earned."""

    day: date
    pnl: Decimal

    def to_json(self) -> dict[str, object]:
        """Date and money."""
        return {"date": self.day.isoformat(), "pnl": float(self.pnl)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Every number of one set of trades on one capital; None where it is undefined or unknown."""

    starting_capital: Decimal | None
    first_closed_at: datetime | None
    last_closed_at: datetime | None
    total_profit: Decimal
    fees: Decimal | None
    return_mean: float | None
    exposure_ratio: float | None
    best_day: DayProfit | None
    worst_day: DayProfit | None
    summary: PerformanceSummary
    windows: tuple[WindowNumbers, ...]
    daily: DailyNumbers
    forced_exits: int
    profit_factor_without_forced_exits: ProfitFactor

    @property
    def return_on_capital(self) -> float | None:
        """Total profit over starting capital, a fraction."""
        capital = self.starting_capital
        return None if capital is None else float(self.total_profit / capital)

    def to_json(self) -> dict[str, object]:
        """Numbers a strict JSON reader takes; money is rounded to a double here, and only here."""
        capital = None if self.starting_capital is None else float(self.starting_capital)
        fees = None if self.fees is None else float(self.fees)
        first, last = self.first_closed_at, self.last_closed_at
        numbers: dict[str, object] = {
            "starting_capital": stated(capital, NumberState.NO_STARTING_CAPITAL),
            "first_closed_at": None if first is None else first.isoformat(),
            "last_closed_at": None if last is None else last.isoformat(),
            "total_profit": float(self.total_profit),
            "return_on_capital": stated(self.return_on_capital, NumberState.NO_STARTING_CAPITAL),
            "return_mean": stated(self.return_mean, NumberState.UNKNOWN),
            "fees": stated(fees, NumberState.UNKNOWN),
            "exposure_ratio": stated(self.exposure_ratio, NumberState.UNKNOWN),
            "best_day": None if self.best_day is None else self.best_day.to_json(),
            "worst_day": None if self.worst_day is None else self.worst_day.to_json(),
            **self.summary.to_json(),
            **self.daily.to_json(),
            "forced_exits": self.forced_exits,
            "profit_factor_without_forced_exits": self.profit_factor_without_forced_exits.to_json(),
        }
        for window in self.windows:
            numbers |= window.to_json()
        return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """A whole trade log, and each policy (or backtested strategy) in it on its own."""

    trades_file: str
    ignored_columns: tuple[str, ...]
    overall: Evaluation
    policies: dict[str, Evaluation]

    def to_json(self) -> dict[str, object]:
        """The overall numbers at the top, those of each policy under `policies`."""
        return {
            "trades_file": self.trades_file,
            "ignored_columns": list(self.ignored_columns),
            **self.overall.to_json(),
            "policies": {name: numbers.to_json() for name, numbers in self.policies.items()},
        }


def evaluate_file(path: Path, starting_capital: Decimal | None) -> EvaluationReport:
    """Load and evaluate a trade log; raises `InvalidInput` as `load_trades` and `evaluate` do."""
    return evaluate(load_trades(path), starting_capital=starting_capital, trades_file=path.name)


def evaluate(
    log: TradeLog, *, starting_capital: Decimal | None, trades_file: str
) -> EvaluationReport:
    """Evaluate a log as a whole and by policy.

    `starting_capital` is that of each account and replaces what the file says; policies of one
    account share its capital, backtested strategies have an account each and are added up.
    Raises `InvalidInput` for a capital that is not positive.
    """
    capitals = [
        account.starting_capital if starting_capital is None else starting_capital
        for account in log.accounts
    ]
    known = [capital for capital in capitals if capital is not None]
    by_policy: defaultdict[str, list[LoggedTrade]] = defaultdict(list)
    policy_capital: dict[str, Decimal | None] = {}
    for account, capital in zip(log.accounts, capitals, strict=True):
        for trade in account.trades:
            if trade.policy is not None:
                by_policy[trade.policy].append(trade)
                policy_capital[trade.policy] = capital
    return EvaluationReport(
        trades_file=trades_file,
        ignored_columns=log.ignored_columns,
        overall=evaluate_trades(
            log.trades,
            starting_capital=sum(known, Decimal(0)) if len(known) == len(capitals) else None,
        ),
        policies={
            name: evaluate_trades(by_policy[name], starting_capital=policy_capital[name])
            for name in sorted(by_policy)
        },
    )


def evaluate_trades(
    trades: Sequence[LoggedTrade], *, starting_capital: Decimal | None
) -> Evaluation:
    """All numbers of one set of trades, in any order; rows decide between trades closed together.

    >>> evaluate_trades([], starting_capital=None).to_json()["profit_factor"]["state"]
    'no_trades'
    """
    capital = None if starting_capital is None else checked_capital(float(starting_capital))
    ordered = sorted(trades, key=lambda trade: (trade.closed_at, trade.row))
    closed = [_closed(trade) for trade in ordered]
    returns = [trade.return_ratio for trade in ordered if trade.return_ratio is not None]
    fees = [trade.fees for trade in ordered if trade.fees is not None]
    with localcontext(_EXACT):
        days = _profit_by_day(ordered)
        ranked = sorted(days, key=lambda day: (day.pnl, day.day))
        return Evaluation(
            starting_capital=starting_capital,
            first_closed_at=ordered[0].closed_at if ordered else None,
            last_closed_at=ordered[-1].closed_at if ordered else None,
            total_profit=sum((trade.pnl for trade in ordered), Decimal(0)),
            fees=sum(fees, Decimal(0)) if len(fees) == len(ordered) else None,
            return_mean=expectancy(returns) if len(returns) == len(ordered) else None,
            exposure_ratio=_exposure_ratio(ordered),
            best_day=ranked[-1] if ranked else None,
            worst_day=ranked[0] if ranked else None,
            summary=summarise(closed, starting_capital=capital),
            windows=tuple(_window(ordered, starting_capital, window) for window in WINDOWS),
            daily=daily_numbers(
                {day.day: day.pnl for day in days}, starting_capital=starting_capital
            ),
            forced_exits=sum(trade.forced_exit for trade in ordered),
            profit_factor_without_forced_exits=profit_factor(
                float(trade.pnl) for trade in ordered if not trade.forced_exit
            ),
        )


def _closed(trade: LoggedTrade) -> ClosedTrade:
    return ClosedTrade(closed_at=trade.closed_at, unit=f"{trade.row:09d}", result=float(trade.pnl))


def _window(
    ordered: Sequence[LoggedTrade], starting_capital: Decimal | None, window: int
) -> WindowNumbers:
    """The drawdown of a window is that of the money which stood there when it began."""
    fraction = None
    if starting_capital is not None:
        before = starting_capital + sum((trade.pnl for trade in ordered[:-window]), Decimal(0))
        fraction = 1.0 / float(before) if before > 0 else None
    closed = [_closed(trade) for trade in ordered[-window:]]
    return window_numbers(closed, window=window, nominal_fraction=fraction)


def _profit_by_day(ordered: Sequence[LoggedTrade]) -> list[DayProfit]:
    """Every UTC day from the first close to the last, also those on which nothing closed."""
    if not ordered:
        return []
    sums: defaultdict[date, Decimal] = defaultdict(Decimal)
    for trade in ordered:
        sums[trade.closed_at.date()] += trade.pnl
    first, last = ordered[0].closed_at.date(), ordered[-1].closed_at.date()
    days = (first + timedelta(days=ahead) for ahead in range((last - first).days + 1))
    return [DayProfit(day=day, pnl=sums[day]) for day in days]


def _exposure_ratio(ordered: Sequence[LoggedTrade]) -> float | None:
    """Share of the time from the first opening to the last closing with a position open."""
    spans = sorted(
        (trade.opened_at, trade.closed_at) for trade in ordered if trade.opened_at is not None
    )
    if not spans or len(spans) < len(ordered):
        return None
    covered, reached = timedelta(0), spans[0][0]
    for opened_at, closed_at in spans:
        covered += max(closed_at - max(opened_at, reached), timedelta(0))
        reached = max(reached, closed_at)
    whole = reached - spans[0][0]
    return covered / whole if whole else None


_ROWS: Final = (
    ("trades", "n", "{:,}"),
    ("first close", "first_closed_at", "{}"),
    ("last close", "last_closed_at", "{}"),
    ("total profit", "total_profit", "{:,.8g}"),
    ("return on starting capital", "return_on_capital", "{:.4%}"),
    ("fees", "fees", "{:,.8g}"),
    ("exposure", "exposure_ratio", "{:.2%}"),
    ("profit factor", "profit_factor", "{:.4g}"),
    ("  95 % interval, from", "profit_factor_low", "{:.4g}"),
    ("  95 % interval, to", "profit_factor_high", "{:.4g}"),
    ("  without forced exits", "profit_factor_without_forced_exits", "{:.4g}"),
    ("  last 30 trades", "pf_30", "{:.4g}"),
    ("  last 150 trades", "pf_150", "{:.4g}"),
    ("win rate", "win_rate", "{:.2%}"),
    ("expectancy", "expectancy", "{:,.6g}"),
    ("expectancy ratio", "expectancy_ratio", "{:.4g}"),
    ("average win", "average_win", "{:,.6g}"),
    ("average loss", "average_loss", "{:,.6g}"),
    ("payoff ratio", "payoff_ratio", "{:.4g}"),
    ("losing streak, longest", "losing_streak_longest", "{}"),
    ("losing streak, current", "losing_streak_current", "{}"),
    ("winning streak, longest", "winning_streak_longest", "{}"),
    ("drawdown, deepest", "drawdown_max_percent", "{:.4g} %"),
    ("drawdown, current", "drawdown_current_percent", "{:.4g} %"),
    ("  last 30 trades", "dd_30", "{:.4g} %"),
    ("  last 150 trades", "dd_150", "{:.4g} %"),
    ("Sharpe ratio, per trade", "trade_sharpe", "{:.4g}"),
    ("system quality number", "sqn", "{:.4g}"),
    ("Sharpe ratio, daily", "sharpe_daily", "{:.4g}"),
    ("Sortino ratio, daily", "sortino_daily", "{:.4g}"),
    ("Calmar ratio, daily", "calmar_daily", "{:.4g}"),
    ("best day", "best_day", "{:,.8g}"),
    ("worst day", "worst_day", "{:,.8g}"),
)
_POLICY_COLUMNS: Final = (
    ("trades", "n", "{:,}"),
    ("profit", "total_profit", "{:,.8g}"),
    ("profit factor", "profit_factor", "{:.4g}"),
    ("last 30", "pf_30", "{:.4g}"),
    ("last 150", "pf_150", "{:.4g}"),
    ("win rate", "win_rate", "{:.2%}"),
    ("drawdown", "drawdown_max_percent", "{:.4g} %"),
    ("Sharpe", "sharpe_daily", "{:.4g}"),
)


def render_evaluation(report: EvaluationReport) -> Group:
    """The report as tables for a terminal; policies by name, since no number here ranks them."""
    overall = Table(title=Text(report.trades_file), show_header=False)
    numbers = report.overall.to_json()
    for label, key, form in _ROWS:
        overall.add_row(label, _cell(numbers[key], form))
    policies = Table("policy", *(label for label, _, _ in _POLICY_COLUMNS))
    for name, evaluation in report.policies.items():
        row = evaluation.to_json()
        policies.add_row(Text(name), *(_cell(row[key], form) for _, key, form in _POLICY_COLUMNS))
    notes = [f"ignored column: {name}" for name in report.ignored_columns]
    return Group(overall, *([policies] if report.policies else []), *map(Text, notes))


def _cell(number: object, form: str) -> Text:
    if isinstance(number, dict) and "state" in number:
        if number["value"] is None:
            return Text(str(number["state"]).replace("_", " "), style="dim")
        number = number["value"]
    if isinstance(number, dict):
        return Text(f"{form.format(number['pnl'])} on {number['date']}")
    return Text("none" if number is None else form.format(number))
