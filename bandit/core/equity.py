"""What a run of results does to an account: drawdown, and the ratios of its daily equity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

from bandit.core.errors import InvalidInput

# Crypto trades on every day of the year; 252 belongs to stock exchanges.
DAYS_PER_YEAR: Final = 365

# The ledger's money is NUMERIC(24, 8): its smallest step, and what its largest amount rounds to.
MONEY_STEP: Final = 1e-8
MONEY_LIMIT: Final = 1e16


def checked_result(result: float, *, field: str = "result") -> float:
    """Return `result` when it is finite and no larger in size than money in the ledger can be.

    Raises `InvalidInput` otherwise; the bound keeps every sum and square below an overflow.

    >>> checked_result(-12.5)
    -12.5
    """
    if not abs(result) <= MONEY_LIMIT:  # written so that NaN fails too
        raise InvalidInput(
            field=field, rule=f"must be finite and at most {MONEY_LIMIT:g} in size", found=result
        )
    return result


def checked_results(results: Iterable[float]) -> list[float]:
    """Return results that are each as `checked_result` asks.

    >>> checked_results([1.0, -2.5])
    [1.0, -2.5]
    """
    found = list(results)
    # No size exceeds the sum of all: where that is in order, and no NaN, so is every result.
    if not sum(map(abs, found)) <= MONEY_LIMIT:
        for result in found:
            checked_result(result)
    return found


def checked_capital(capital: float) -> float:
    """Return `capital` when a percentage of it can be taken; raises `InvalidInput` otherwise.

    >>> checked_capital(10_000.0)
    10000.0
    """
    if not MONEY_STEP <= capital <= MONEY_LIMIT:
        raise InvalidInput(
            field="starting_capital",
            rule=f"must lie between {MONEY_STEP:g} and {MONEY_LIMIT:g}",
            found=capital,
        )
    return capital


def _percent_below(peak: float, equity: float) -> float:
    return 100.0 * (peak - equity) / peak


@dataclass(frozen=True, slots=True, kw_only=True)
class EquityState:
    """Where an additive equity curve stands: all that the next result needs, in O(1).

    Equity is starting capital plus the sum of the results, in one unit (currency, or 1.0 = the
    whole account). The starting capital is the first point of the curve, so a loss on the first
    trade counts. Drawdowns are positive percentages of the highest equity so far; an account that
    has lost more than it had stands above 100.

    >>> state = EquityState.start(100.0).after(-10.0).after(35.0, -50.0)
    >>> state.equity, state.high_water_mark, state.drawdown_percent, state.drawdown_max_percent
    (75.0, 125.0, 40.0, 40.0)
    """

    starting_capital: float
    equity: float
    high_water_mark: float
    drawdown_max_percent: float

    def __post_init__(self) -> None:
        checked_capital(self.starting_capital)
        highest = max(self.starting_capital, self.equity)
        if not math.isfinite(self.equity):
            raise InvalidInput(field="equity", rule="must be finite", found=self.equity)
        if not highest <= self.high_water_mark < math.inf:
            raise InvalidInput(
                field="high_water_mark",
                rule=f"must be at least the starting capital and the equity ({highest:g})",
                found=self.high_water_mark,
            )
        if not self.drawdown_percent <= self.drawdown_max_percent < math.inf:
            raise InvalidInput(
                field="drawdown_max_percent",
                rule=f"must be at least the current drawdown ({self.drawdown_percent:g})",
                found=self.drawdown_max_percent,
            )

    @classmethod
    def start(cls, capital: float) -> EquityState:
        """The curve before its first result; raises `InvalidInput` unless `capital` is positive.

        >>> EquityState.start(1.0).drawdown_max_percent
        0.0
        """
        return cls(
            starting_capital=capital,
            equity=capital,
            high_water_mark=capital,
            drawdown_max_percent=0.0,
        )

    @property
    def drawdown_percent(self) -> float:
        """How far equity stands below its high-water mark now, in percent of that mark."""
        return _percent_below(self.high_water_mark, self.equity)

    def after(self, *results: float) -> EquityState:
        """The curve one closed trade later, or several, given in closing order.

        >>> EquityState.start(200.0).after(-30.0).drawdown_percent
        15.0
        """
        equity, peak, deepest = self.equity, self.high_water_mark, self.drawdown_max_percent
        lowest = equity  # since the peak
        for result in checked_results(results):
            equity += result
            if equity > peak:
                deepest = max(deepest, _percent_below(peak, lowest))
                peak = lowest = equity
            elif equity < lowest:
                lowest = equity
        deepest = max(deepest, _percent_below(peak, lowest))
        return EquityState(
            starting_capital=self.starting_capital,
            equity=equity,
            high_water_mark=peak,
            drawdown_max_percent=deepest,
        )


def drawdown_percent(
    results_in_closing_order: Iterable[float], *, starting_capital: float
) -> float:
    """The deepest fall of the closed equity from its peak so far, in percent of that peak.

    >>> drawdown_percent([-10.0, 5.0, 5.0], starting_capital=100.0)
    10.0
    >>> drawdown_percent([], starting_capital=100.0)
    0.0
    """
    state = EquityState.start(starting_capital).after(*results_in_closing_order)
    return state.drawdown_max_percent


def daily_equity(
    profit_by_day: Mapping[date, Decimal], *, starting_capital: Decimal
) -> dict[date, float]:
    """Equity at the end of each UTC day on which something closed, summed as exact money.

    >>> days = {date(2026, 1, 3): Decimal("-0.20"), date(2026, 1, 1): Decimal("0.10")}
    >>> daily_equity(days, starting_capital=Decimal(100))
    {datetime.date(2026, 1, 1): 100.1, datetime.date(2026, 1, 3): 99.9}
    """
    equity = starting_capital
    curve = {}
    for day in sorted(profit_by_day):
        equity += profit_by_day[day]
        curve[day] = float(equity)
    return curve


def daily_returns_from_equity(
    equity_by_day: Mapping[date, float], *, starting_capital: float | None = None
) -> list[float]:
    """Day-over-day returns of end-of-day equity, one for every UTC day from the first to the last.

    A day without an entry keeps the equity of the day before, so its return is 0. With
    `starting_capital` the first day has a return too; without, the first day is only the base.
    Raises `InvalidInput` when an equity is not positive: a return on nothing has no meaning.

    >>> daily_returns_from_equity({date(2026, 1, 1): 110.0, date(2026, 1, 3): 99.0})
    [0.0, -0.1]
    >>> daily_returns_from_equity({date(2026, 1, 1): 125.0}, starting_capital=100.0)
    [0.25]
    """
    days = sorted(equity_by_day)
    for day in days:
        if not 0.0 < equity_by_day[day] < math.inf:
            raise InvalidInput(
                field=f"equity of {day}", rule="must be positive", found=equity_by_day[day]
            )
    if not days:
        return []
    curve = [] if starting_capital is None else [checked_capital(starting_capital)]
    equity = equity_by_day[days[0]]
    for ahead in range((days[-1] - days[0]).days + 1):
        equity = equity_by_day.get(days[0] + timedelta(days=ahead), equity)
        curve.append(equity)
    return [(after - before) / before for before, after in pairwise(curve)]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and sample standard deviation (ddof 1), whatever the order; None below two values.

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    >>> mean_and_deviation([0.1, 0.1, 0.1])[1]
    0.0
    """
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    # Equal values have no spread; the rounded mean would invent one of about 1e-17.
    if min(values) == max(values):
        return mean, 0.0
    return mean, math.sqrt(math.fsum((v - mean) * (v - mean) for v in values) / (n - 1))


def _checked_returns(returns: Sequence[float]) -> Sequence[float]:
    for r in returns:
        # Nobody loses more than everything in a day, and squares must not overflow.
        if not -1.0 <= r < 1e100:
            raise InvalidInput(field="daily return", rule="must be at least -1, finite", found=r)
    return returns


def sharpe_daily(returns: Sequence[float]) -> float | None:
    """Annualised Sharpe ratio of daily returns: √365 · mean / sd, ddof 1, risk-free rate 0.

    None below two days or without spread. Raises `InvalidInput` for a return below -1 or NaN,
    as the two ratios after it do.

    >>> round(sharpe_daily([0.01, -0.01, 0.02]), 6)
    8.338094
    >>> sharpe_daily([0.01, 0.01]) is None
    True
    """
    moments = mean_and_deviation(_checked_returns(returns))
    if moments is None or moments[1] == 0.0:
        return None
    return moments[0] / moments[1] * math.sqrt(DAYS_PER_YEAR)


def sortino_daily(returns: Sequence[float]) -> float | None:
    """Annualised Sortino ratio: √365 · mean / √(Σ min(r, 0)² / n), over all n days.

    None below two days or without a losing day.

    >>> round(sortino_daily([0.01, -0.01, 0.02]), 6)
    22.060523
    >>> sortino_daily([0.01, 0.02]) is None
    True
    """
    n = len(returns)
    losing = [r for r in _checked_returns(returns) if r < 0.0]
    downside = math.sqrt(math.fsum(r * r for r in losing) / n) if n >= 2 else 0.0
    if downside == 0.0:
        return None
    return math.fsum(returns) / n / downside * math.sqrt(DAYS_PER_YEAR)


def calmar_daily(returns: Sequence[float]) -> float | None:
    """Compound annual growth of daily returns over their deepest compounded drawdown.

    None below two days, without a drawdown, or where so few days grow so much that a year of it
    exceeds what a double can hold.

    >>> round(calmar_daily([0.5, -0.2] + [0.0] * 363), 12)
    1.0
    >>> calmar_daily([0.01, 0.02]) is None
    True
    """
    wealth = peak = 1.0
    deepest = 0.0
    for r in _checked_returns(returns):
        wealth *= 1.0 + r
        peak = max(peak, wealth)
        deepest = max(deepest, 1.0 - wealth / peak)
    if len(returns) < 2 or deepest == 0.0:
        return None
    try:
        calmar = (wealth ** (DAYS_PER_YEAR / len(returns)) - 1.0) / deepest
    except OverflowError:
        return None
    return calmar if math.isfinite(calmar) else None
