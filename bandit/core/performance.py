"""Performance numbers of closed trades: one implementation, used everywhere (docs/definitions.md).

A *result* is what one closed trade earned net of costs: money, or a return at nominal size. Sums
use `math.fsum`, so that they depend on the set of results and not on the order they came in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter

from bandit.core.equity import (
    EquityState,
    checked_result,
    checked_results,
    drawdown_percent,
    mean_and_deviation,
)
from bandit.core.errors import InvalidInput
from bandit.core.profit_factor import (
    Interval,
    ProfitFactor,
    ProfitFactorState,
    profit_factor,
    profit_factor_interval,
    quotient,
)

__all__ = [
    "ClosedTrade",
    "EquityState",
    "Interval",
    "NumberState",
    "PerformanceSummary",
    "ProfitFactor",
    "ProfitFactorState",
    "Streaks",
    "WindowNumbers",
    "average_loss",
    "average_win",
    "drawdown_percent",
    "expectancy",
    "expectancy_ratio",
    "in_closing_order",
    "nominal_drawdown",
    "payoff_ratio",
    "profit_factor",
    "profit_factor_interval",
    "sqn",
    "stated",
    "streaks",
    "summarise",
    "trade_sharpe",
    "win_rate",
    "window_numbers",
]


class NumberState(StrEnum):
    """Whether a number has a value, and if not, what it lacks."""

    FINITE = "finite"
    NO_TRADES = "no_trades"
    NO_WINS = "no_wins"
    NO_LOSSES = "no_losses"
    TOO_FEW = "too_few"
    NO_SPREAD = "no_spread"
    NO_DRAWDOWN = "no_drawdown"
    NO_STARTING_CAPITAL = "no_starting_capital"
    CAPITAL_LOST = "capital_lost"
    UNKNOWN = "unknown"


def stated(value: float | None, reason: NumberState) -> dict[str, float | str | None]:
    """JSON form of a number that can be undefined: the value, or null and the reason.

    >>> stated(0.5, NumberState.NO_TRADES), stated(None, NumberState.NO_TRADES)
    ({'value': 0.5, 'state': 'finite'}, {'value': None, 'state': 'no_trades'})
    """
    state = NumberState.FINITE if value is not None else reason
    return {"value": value, "state": state.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaks:
    """Runs of consecutive losers and winners in closing order; a result of exactly 0 ends both.

    >>> Streaks().after(-1.0, -1.0, 0.0).after(-1.0)
    Streaks(longest_losing=2, current_losing=1, longest_winning=0, current_winning=0)
    """

    longest_losing: int = 0
    current_losing: int = 0
    longest_winning: int = 0
    current_winning: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.current_losing <= self.longest_losing:
            raise InvalidInput(
                field="current_losing", rule="must not exceed longest_losing", found=self
            )
        if not 0 <= self.current_winning <= self.longest_winning:
            raise InvalidInput(
                field="current_winning", rule="must not exceed longest_winning", found=self
            )

    def after(self, *results: float) -> Streaks:
        """The streaks one closed trade later, or several, given in closing order."""
        losing, winning = self.current_losing, self.current_winning
        longest_losing, longest_winning = self.longest_losing, self.longest_winning
        for result in results:
            losing = losing + 1 if result < 0.0 else 0
            winning = winning + 1 if result > 0.0 else 0
            longest_losing = max(longest_losing, losing)
            longest_winning = max(longest_winning, winning)
        return Streaks(
            longest_losing=longest_losing,
            current_losing=losing,
            longest_winning=longest_winning,
            current_winning=winning,
        )


def streaks(results_in_closing_order: Iterable[float]) -> Streaks:
    """Fold a whole run of results.

    >>> streaks([1.0, -1.0, -2.0]).current_losing
    2
    """
    return Streaks().after(*results_in_closing_order)


def win_rate(results: Sequence[float]) -> float | None:
    """Winners over all closed trades, draws included; None without trades.

    >>> win_rate([1.0, 0.0, -1.0, 2.0])
    0.5
    """
    return sum(r > 0.0 for r in results) / len(results) if results else None


def expectancy(results: Sequence[float]) -> float | None:
    """Mean result of a trade; None without trades.

    >>> expectancy([3.0, -1.0])
    1.0
    """
    return math.fsum(results) / len(results) if results else None


def average_win(results: Sequence[float]) -> float | None:
    """Mean result of the winners; None without one.

    >>> average_win([3.0, 1.0, -1.0])
    2.0
    """
    return expectancy([r for r in results if r > 0.0])


def average_loss(results: Sequence[float]) -> float | None:
    """Mean size of the losers, a positive number; None without one.

    >>> average_loss([3.0, -1.0, -2.0])
    1.5
    """
    return expectancy([-r for r in results if r < 0.0])


def payoff_ratio(results: Sequence[float]) -> float | None:
    """Average win over average loss; None without a winner or without a loser.

    >>> payoff_ratio([3.0, -1.5])
    2.0
    """
    win, loss = average_win(results), average_loss(results)
    return None if win is None or loss is None else quotient(win, loss)


def expectancy_ratio(results: Sequence[float]) -> float | None:
    """(1 + average win / average loss) · win rate - 1; None without a loser.

    >>> expectancy_ratio([3.0, -1.0]), expectancy_ratio([-1.0, -2.0])
    (1.0, -1.0)
    """
    loss, rate = average_loss(results), win_rate(results)
    if loss is None or rate is None:
        return None
    return (1.0 + quotient(average_win(results) or 0.0, loss)) * rate - 1.0


def trade_sharpe(results: Sequence[float]) -> float | None:
    """Mean over standard deviation (ddof 1) of the results, per trade and never annualised.

    None below two trades or without spread.

    >>> trade_sharpe([1.0, 3.0])
    1.414213562373095
    """
    moments = mean_and_deviation(checked_results(results))
    return None if moments is None or moments[1] == 0.0 else moments[0] / moments[1]


def sqn(results: Sequence[float]) -> float | None:
    """System quality number, √n · `trade_sharpe`; None where that is.

    >>> sqn([1.0, 3.0])
    2.0
    """
    sharpe = trade_sharpe(results)
    return None if sharpe is None else math.sqrt(len(results)) * sharpe


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedTrade:
    """One closed trade of an arm: when it closed (UTC), its unit (breaks ties), what it earned."""

    closed_at: datetime
    unit: str
    result: float

    def __post_init__(self) -> None:
        if self.closed_at.utcoffset() != timedelta(0):
            raise InvalidInput(field="closed_at", rule="must be aware UTC", found=self.closed_at)
        checked_result(self.result)


_CLOSING_ORDER = attrgetter("closed_at", "unit")


def in_closing_order(trades: Iterable[ClosedTrade]) -> list[ClosedTrade]:
    """The order every path-dependent number folds in: (closed_at, unit)."""
    return sorted(trades, key=_CLOSING_ORDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowNumbers:
    """Numbers of the last `window` trades, or of fewer while there are fewer (`n` tells)."""

    window: int
    n: int
    profit_factor: ProfitFactor
    win_rate: float | None
    drawdown_percent: float | None
    losing_streak: int

    def to_json(self) -> dict[str, object]:
        """Under the names of the ledger: `pf_30`, `dd_30`, …"""
        return {
            f"n_{self.window}": self.n,
            f"pf_{self.window}": self.profit_factor.to_json(),
            f"win_rate_{self.window}": stated(self.win_rate, NumberState.NO_TRADES),
            f"dd_{self.window}": stated(self.drawdown_percent, NumberState.NO_STARTING_CAPITAL),
            f"losing_streak_{self.window}": self.losing_streak,
        }


def window_numbers(
    trades: Iterable[ClosedTrade], *, window: int, nominal_fraction: float | None
) -> WindowNumbers:
    """Numbers of the last `window` trades in closing order; pass no more rows than needed.

    The drawdown is that of 1 + `nominal_fraction` · Σ result, a curve that starts afresh with the
    window: for results that are returns, the share of equity put into each trade; for money, one
    over the capital. Without a fraction there is no drawdown.

    >>> from datetime import UTC
    >>> def trade(day, result):
    ...     closed_at = datetime(2026, 1, day, tzinfo=UTC)
    ...     return ClosedTrade(closed_at=closed_at, unit="u", result=result)
    >>> numbers = window_numbers(
    ...     [trade(3, -0.1), trade(1, -9.0), trade(2, 0.2)], window=2, nominal_fraction=0.5
    ... )
    >>> numbers.profit_factor.value, round(numbers.drawdown_percent, 6), numbers.losing_streak
    (2.0, 4.545455, 1)
    """
    if window < 1:
        raise InvalidInput(field="window", rule="must be at least 1 trade", found=window)
    results = [trade.result for trade in in_closing_order(trades)[-window:]]
    deepest = None
    if nominal_fraction is not None:
        deepest = nominal_drawdown(results, nominal_fraction)
    return WindowNumbers(
        window=window,
        n=len(results),
        profit_factor=profit_factor(results),
        win_rate=win_rate(results),
        drawdown_percent=deepest,
        losing_streak=streaks(results).current_losing,
    )


def nominal_drawdown(results: Sequence[float], nominal_fraction: float) -> float:
    """Return the deepest drawdown of 1 + `nominal_fraction` · Σ result, in percent.

    >>> round(nominal_drawdown([0.2, -0.1], 0.5), 6)
    4.545455

    Raises `InvalidInput` for a fraction that is not positive and finite.
    """
    if not 0.0 < nominal_fraction < math.inf:
        rule = "must be positive and finite"
        raise InvalidInput(field="nominal_fraction", rule=rule, found=nominal_fraction)
    steps = [nominal_fraction * result for result in results]
    return drawdown_percent(steps, starting_capital=1.0)


def _drawdowns_json(equity: EquityState | None) -> dict[str, object]:
    numbers: dict[str, float | None] = {
        "drawdown_max_percent": None if equity is None else equity.drawdown_max_percent,
        "drawdown_current_percent": None if equity is None else equity.drawdown_percent,
        "high_water_mark": None if equity is None else equity.high_water_mark,
    }
    return {name: stated(x, NumberState.NO_STARTING_CAPITAL) for name, x in numbers.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceSummary:
    """Every trade-based number of one set of trades; None where a number is undefined."""

    wins: int
    draws: int
    profit_factor: ProfitFactor
    profit_factor_interval: Interval | None
    win_rate: float | None
    expectancy: float | None
    expectancy_ratio: float | None
    average_win: float | None
    average_loss: float | None
    payoff_ratio: float | None
    trade_sharpe: float | None
    sqn: float | None
    streaks: Streaks
    equity: EquityState | None

    def to_json(self) -> dict[str, object]:
        """Never NaN or Infinity: an undefined number is null beside the state that explains it."""
        factor, interval = self.profit_factor, self.profit_factor_interval
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        none = NumberState.NO_TRADES if factor.n == 0 else None
        no_wins, no_losses = none or NumberState.NO_WINS, none or NumberState.NO_LOSSES
        no_interval = NumberState.TOO_FEW if factor.n_losses else no_losses
        spread = NumberState.TOO_FEW if factor.n < 2 else NumberState.NO_SPREAD
        return {
            "n": factor.n,
            "wins": self.wins,
            "losses": factor.n_losses,
            "draws": self.draws,
            "profit_factor": factor.to_json(),
            "profit_factor_low": stated(low, no_interval),
            "profit_factor_high": stated(high, no_interval),
            "win_rate": stated(self.win_rate, NumberState.NO_TRADES),
            "expectancy": stated(self.expectancy, NumberState.NO_TRADES),
            "expectancy_ratio": stated(self.expectancy_ratio, no_losses),
            "average_win": stated(self.average_win, no_wins),
            "average_loss": stated(self.average_loss, no_losses),
            "payoff_ratio": stated(self.payoff_ratio, no_wins if factor.n_losses else no_losses),
            "trade_sharpe": stated(self.trade_sharpe, none or spread),
            "sqn": stated(self.sqn, none or spread),
            "losing_streak_longest": self.streaks.longest_losing,
            "losing_streak_current": self.streaks.current_losing,
            "winning_streak_longest": self.streaks.longest_winning,
            **_drawdowns_json(self.equity),
        }


def summarise(
    trades: Iterable[ClosedTrade], *, starting_capital: float | None
) -> PerformanceSummary:
    """All trade-based numbers at once, in any order of `trades`.

    >>> summarise([], starting_capital=None).to_json()["drawdown_max_percent"]
    {'value': None, 'state': 'no_starting_capital'}
    """
    results = [trade.result for trade in in_closing_order(trades)]
    factor = profit_factor(results)
    wins = sum(r > 0.0 for r in results)
    equity = None
    if starting_capital is not None:
        equity = EquityState.start(starting_capital).after(*results)
    return PerformanceSummary(
        wins=wins,
        draws=factor.n - factor.n_losses - wins,
        profit_factor=factor,
        profit_factor_interval=profit_factor_interval(results),
        win_rate=win_rate(results),
        expectancy=expectancy(results),
        expectancy_ratio=expectancy_ratio(results),
        average_win=average_win(results),
        average_loss=average_loss(results),
        payoff_ratio=payoff_ratio(results),
        trade_sharpe=trade_sharpe(results),
        sqn=sqn(results),
        streaks=streaks(results),
        equity=equity,
    )
