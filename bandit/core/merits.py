"""What closed trades amount to in the numbers that the promotion gates ask for (SPEC G1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from decimal import Context, Decimal, localcontext
from itertools import chain
from typing import Any, Final

from bandit.core.daily import DailyNumbers, daily_numbers
from bandit.core.equity import checked_capital
from bandit.core.gates import BLOCKS, Gate, Performance
from bandit.core.marked_equity import HeldPosition, MarkedDrawdown, marked_drawdown
from bandit.core.performance import (
    ClosedTrade,
    NumberState,
    PerformanceSummary,
    stated,
    summarise,
)
from bandit.core.profit_factor import quotient, worst_block
from bandit.core.verdicts import known

# No sum of the amounts that a trade log may hold is rounded in 80 digits.
_EXACT: Final = Context(prec=80)
_MARKS: Final = ("opened_at", "entry_value", "worst_excursion")
_STATES: Final = (
    Gate.SHARPE,
    Gate.PROFIT_FACTOR,
    Gate.PROFIT_FACTOR_LOW,
    Gate.WIN_RATE,
    Gate.DRAWDOWN,
    Gate.OUTPERFORMANCE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedTrade:
    """A closed trade with what is known of how its position stood before.

    `pnl` is money net of costs, or a part of a capital of 1; `entry_value` what was paid or owed at
    entry in the same unit, and `worst_excursion` (0 or more) the ratio of it that the position
    stood to lose at its worst. `unit` orders trades that closed together. `forced_exit`: the
    position was open when the log ended, and `pnl` is its mark.
    """

    closed_at: datetime
    unit: str
    pnl: Decimal
    opened_at: datetime | None
    entry_value: Decimal | None
    worst_excursion: float | None
    forced_exit: bool = False


def performance_of(
    trades: Sequence[MarkedTrade], *, starting_capital: Decimal | None
) -> Performance:
    """Measure what the gates ask for; why a number is missing stands beside it.

    `trades` come in closing order. Raises `InvalidInput` for a capital that is not positive.

    >>> performance_of([], starting_capital=Decimal(1)).lacking[Gate.SHARPE]
    'no trades'
    """
    capital = None if starting_capital is None else checked_capital(float(starting_capital))
    results = [float(trade.pnl) for trade in trades]
    closed = [
        ClosedTrade(closed_at=trade.closed_at, unit=trade.unit, result=result)
        for trade, result in zip(trades, results, strict=True)
    ]
    summary = summarise(closed, starting_capital=capital)
    with localcontext(_EXACT):
        daily = daily_numbers(_profit_by_day(trades), starting_capital=starting_capital)
        earned = sum((trade.pnl for trade in trades), Decimal(0))
        on_capital = None if starting_capital is None else float(earned / starting_capital)
    interval = summary.profit_factor_interval
    marked, excursion = _marked_drawdown(trades, capital), _worst_excursion(trades)
    loss = _worst_realised_loss(trades)
    equity = summary.equity if trades else None
    per_loss = None if excursion is None or loss is None else quotient(excursion, loss)
    return Performance(
        trades=summary.profit_factor.n,
        days=daily.days,
        losses_realised=sum(trade.pnl < 0 and not trade.forced_exit for trade in trades),
        sharpe_daily=daily.sharpe,
        profit_factor=summary.profit_factor.value,
        profit_factor_low=None if interval is None else interval.low,
        profit_factor_worst_block=worst_block(results, blocks=BLOCKS),
        win_rate=summary.win_rate,
        drawdown_max_percent=None if equity is None else equity.drawdown_max_percent,
        marked_drawdown_low_percent=None if marked is None else marked.low_percent,
        marked_drawdown_high_percent=None if marked is None else marked.high_percent,
        worst_excursion_percent=None if excursion is None else 100.0 * excursion,
        excursion_per_realised_loss=per_loss,
        return_on_capital=on_capital,
        lacking=_lacking(trades, capital, summary, daily, on_capital),
    )


def performance_json(found: Performance) -> dict[str, Any]:
    """Return the numbers as they are stored with a decision; what is not finite is unknown."""
    numbers = {name: value for name, value in asdict(found).items() if name != "lacking"}
    lacking = {gate.value: why for gate, why in found.lacking.items()}
    return {name: known(value) for name, value in numbers.items()} | {"lacking": lacking}


def performance_from_json(stored: Mapping[str, Any]) -> Performance:
    """Return what `performance_json` gave; raises `KeyError` for a number that is not there.

    >>> shown = performance_of([], starting_capital=None)
    >>> performance_from_json(performance_json(shown)) == shown
    True
    """
    numbers = {field.name: stored[field.name] for field in fields(Performance)}
    lacking = {Gate(name): why for name, why in stored["lacking"].items()}
    return Performance(**{**numbers, "lacking": lacking})


def _profit_by_day(trades: Sequence[MarkedTrade]) -> Mapping[date, Decimal]:
    sums: defaultdict[date, Decimal] = defaultdict(Decimal)
    for trade in trades:
        sums[trade.closed_at.date()] += trade.pnl
    return sums


def _worst_excursion(trades: Sequence[MarkedTrade]) -> float | None:
    """The deepest of all positions, a ratio of its entry value; what it lost at last counts too."""
    depths = [trade.worst_excursion for trade in trades if trade.worst_excursion is not None]
    if not trades or len(depths) < len(trades):
        return None
    return max(chain(depths, map(_lost, trades)))


def _lost(trade: MarkedTrade) -> float:
    return 0.0 if trade.entry_value is None else max(float(-trade.pnl / trade.entry_value), 0.0)


def _worst_realised_loss(trades: Sequence[MarkedTrade]) -> float | None:
    """The largest loss a policy took itself, a ratio of its entry value; None without one."""
    if any(trade.entry_value is None for trade in trades):
        return None
    return max((_lost(trade) for trade in trades if not trade.forced_exit), default=0.0) or None


def _marked_drawdown(trades: Sequence[MarkedTrade], capital: float | None) -> MarkedDrawdown | None:
    if capital is None or not trades:
        return None
    held = []
    for trade in trades:
        if trade.opened_at is None or trade.entry_value is None or trade.worst_excursion is None:
            return None
        position = HeldPosition(
            opened_at=trade.opened_at,
            closed_at=trade.closed_at,
            result=float(trade.pnl),
            worst=-trade.worst_excursion * float(trade.entry_value),
        )
        held.append(position)
    return marked_drawdown(held, starting_capital=capital)


def _lacking(
    trades: Sequence[MarkedTrade],
    capital: float | None,
    summary: PerformanceSummary,
    daily: DailyNumbers,
    on_capital: float | None,
) -> dict[Gate, str]:
    """Why a number is missing where it is, by gate."""
    if not trades:
        return dict.fromkeys(Gate, "no trades")
    absent = {
        column: f"{column} is missing for {count} of {len(trades)} trades"
        for column in _MARKS
        if (count := sum(getattr(trade, column) is None for trade in trades))
    }
    excursion, entry_value = absent.get("worst_excursion"), absent.get("entry_value")
    no_capital = "no starting capital" if capital is None else None
    whys = {
        Gate.EXCURSION: [excursion],
        Gate.MARKED_DRAWDOWN: [no_capital, *absent.values()],
        Gate.HELD_LOSSES: [excursion, entry_value],
    }
    told = {gate: "; ".join(filter(None, why)) for gate, why in whys.items()}
    told[Gate.HELD_LOSSES] = told[Gate.HELD_LOSSES] or "no realised loss"
    told[Gate.PROFIT_FACTOR_BLOCKS] = "a third of the log holds no loss"
    numbers = summary.to_json() | daily.to_json()
    numbers["return_on_capital"] = stated(on_capital, NumberState.NO_STARTING_CAPITAL)
    told |= {gate: _state(numbers[gate.value]) for gate in _STATES}
    return {gate: why for gate, why in told.items() if why}


def _state(number: object) -> str:
    assert isinstance(number, dict)
    return "" if number["state"] == "finite" else str(number["state"]).replace("_", " ")
