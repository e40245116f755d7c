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
