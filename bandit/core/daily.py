"""Ratios of the equity at the end of each UTC day, and why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from bandit.core.equity import (
    calmar_daily,
    daily_equity,
    daily_returns_from_equity,
    sharpe_daily,
    sortino_daily,
)
from bandit.core.performance import NumberState, stated


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyNumbers:
    """Ratios of daily equity; `lacking` says why there are none at all."""

    days: int = 0
    losing_days: int = 0
    sharpe: float | None = None
    sortino: float | None = None
    calmar: float | None = None
    lacking: NumberState | None = None

    def to_json(self) -> dict[str, object]:
        """Each ratio with its own reason where it alone is undefined."""
        # A drawdown without a Calmar ratio: too short a time to be raised to a year's power.
        no_calmar = NumberState.TOO_FEW if self.losing_days else NumberState.NO_DRAWDOWN
        return {
            "days": self.days,
            "losing_days": self.losing_days,
            "sharpe_daily": stated(self.sharpe, self.lacking or NumberState.NO_SPREAD),
            "sortino_daily": stated(self.sortino, self.lacking or NumberState.NO_LOSSES),
            "calmar_daily": stated(self.calmar, self.lacking or no_calmar),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """How far an arm's own money stands below its best, in percent of all equity (`dd_contrib`).

    What an arm with little traffic loses moves the whole little. None where nothing was left.
    """

    percent: float | None = 0.0
    max_percent: float | None = 0.0


def contribution(
    profit_by_day: Mapping[date, Decimal],
    total_by_day: Mapping[date, Decimal],
    *,
    capital: Decimal,
) -> Contribution:
    """Measure an arm's net money by UTC day beside that of all arms, which started with `capital`.

    Each fall is from the highest that the arm's sum has stood, in percent of the equity that all
    arms had at the end of that day.

    >>> arm = {date(2026, 1, 1): Decimal(10), date(2026, 1, 3): Decimal(-20)}
    >>> total = arm | {date(2026, 1, 1): Decimal(100), date(2026, 1, 2): Decimal(900)}
    >>> contribution(arm, total, capital=Decimal(900))
    Contribution(percent=2.0, max_percent=2.0)
    """
    own = best = Decimal(0)
    equity = at_best = capital
    percent = deepest = 0.0
    for day in sorted(profit_by_day.keys() | total_by_day.keys()):
        own += profit_by_day.get(day, Decimal(0))
        equity += total_by_day.get(day, Decimal(0))
        if own > best:
            best, at_best = own, equity
        if at_best <= 0:
            return Contribution(percent=None, max_percent=None)
        percent = float(100 * (best - own) / at_best)
        deepest = max(deepest, percent)
    return Contribution(percent=percent, max_percent=deepest)


def daily_numbers(
    profit_by_day: Mapping[date, Decimal], *, starting_capital: Decimal | None
) -> DailyNumbers:
    """Measure net money by UTC day on a starting capital; a day left out earned nothing.

    >>> profit = {date(2026, 1, 1): Decimal(10), date(2026, 1, 3): Decimal(-5)}
    >>> numbers = daily_numbers(profit, starting_capital=Decimal(100))
    >>> numbers.days, numbers.losing_days, round(numbers.sharpe, 6)
    (3, 1, 4.668088)
    """
    if not profit_by_day:
        return DailyNumbers(lacking=NumberState.NO_TRADES)
    lacking = None
    returns: list[float] = []
    if starting_capital is None:
        lacking = NumberState.NO_STARTING_CAPITAL
    else:
        equity = daily_equity(profit_by_day, starting_capital=starting_capital)
        if starting_capital <= 0 or min(equity.values()) <= 0.0:
            lacking = NumberState.CAPITAL_LOST
        else:
            capital = float(starting_capital)
            returns = daily_returns_from_equity(equity, starting_capital=capital)
            lacking = NumberState.TOO_FEW if len(returns) < 2 else None
    return DailyNumbers(
        days=(max(profit_by_day) - min(profit_by_day)).days + 1,
        losing_days=sum(pnl < 0 for pnl in profit_by_day.values()),
        sharpe=sharpe_daily(returns),
        sortino=sortino_daily(returns),
        calmar=calmar_daily(returns),
        lacking=lacking,
    )
