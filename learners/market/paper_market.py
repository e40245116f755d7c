"""The paper market: what a proposal would have earned on real candles, costs included.

The execution model, on purpose a little worse than life:
- a decision is taken when a bar closes and fills at the open of the next bar;
- every fill, take-profits too, pays the taker fee and slips against us;
- a bar that touches stop and take-profit counts as the stop;
- a bar that opens beyond the stop fills at that open, beyond the take-profit still at the latter;
- inside a bar nobody knows when: such an exit is dated to the bar's close.
Funding is not charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import NamedTuple, assert_never

import numpy as np

from bandit.core.errors import InvalidInput
from bandit.core.model import AMOUNT_STEP, RETURN_STEP
from bandit.core.paper_fills import PaperFill, Side, filled, slipped
from learners.market.candles import Candles


class ExitReason(StrEnum):
    """Why a position was closed."""

    STOP = "stop"
    TAKE_PROFIT = "take_profit"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What every fill costs, as ratios of its value: the taker fee and the adverse slippage."""

    fee_ratio: float
    slippage_ratio: float

    def __post_init__(self) -> None:
        for name in ("fee_ratio", "slippage_ratio"):
            value = getattr(self, name)
            if not 0 <= value < 0.1:
                raise InvalidInput(field=name, rule="must be in [0, 0.1)", found=value)


# The regular taker fee of Binance USD-margined perpetual futures, 0.0500 %. The slippage is an
# assumption: a small order in a liquid book.
PERPETUAL_TAKER = Costs(fee_ratio=0.0005, slippage_ratio=0.0002)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a policy wants to open; distances are ratios of the market price at the fill."""

    side: Side
    stop_ratio: float
    take_profit_ratio: float
    holding_bars_max: int

    def __post_init__(self) -> None:
        for name in ("stop_ratio", "take_profit_ratio"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise InvalidInput(field=name, rule="must be in (0, 1)", found=value)
        if self.holding_bars_max < 1:
            found = self.holding_bars_max
            raise InvalidInput(field="holding_bars_max", rule="must be 1 or more", found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperPosition:
    """An open position, filled at the open of `entry_bar`, out of time at that of `time_bar`."""

    side: Side
    entry_bar: int
    time_bar: int
    opened_at: datetime
    market_price: Decimal
    entry_price: Decimal
    stop_price: Decimal
    take_profit_price: Decimal
    size: Decimal
    costs: Costs

    @property
    def notional(self) -> Decimal:
        """Return what was paid at entry: size times entry price, exact."""
        return self.size * self.entry_price


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An open position valued as if closed now, costs included, with the worst excursion so far."""

    marked_at: datetime
    pnl: Decimal
    worst_excursion: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPosition:
    """What a position earned, under the names of `bandit.core.outcomes.trade`.

    `pnl` is net of `fees` and of `slippage`; `return_ratio` is `pnl` over the value at entry;
    `r_multiple` is `pnl` over size times the distance from the fill to the stop. `worst_excursion`
    (0 or more) is the worst net loss at which it could have been closed while it was open, over the
    value at entry, so it is never below `-return_ratio`.
    """

    side: Side
    exit_reason: ExitReason
    opened_at: datetime
    closed_at: datetime
    entry_price: Decimal
    exit_price: Decimal
    size: Decimal
    fees: Decimal
    slippage: Decimal
    pnl: Decimal
    return_ratio: Decimal
    r_multiple: Decimal
    worst_excursion: Decimal


def open_position(
    candles: Candles, *, bar: int, proposal: Proposal, notional: Decimal, costs: Costs
) -> PaperPosition | None:
    """Fill a proposal decided at the close of `bar`; None when the candles end there.

    `notional` is the money to put in, rounded down to what a size of 8 decimals buys. Raises
    `InvalidInput` for a bar outside the candles and for money that buys nothing.
    """
    _require_bar(candles, bar, lowest=0)
    if bar + 1 == len(candles):
        return None
    sign = proposal.side.sign
    market_price = _exact(candles.open[bar + 1])
    entry_price = slipped(market_price, proposal.side, _exact(costs.slippage_ratio))
    if not notional.is_finite() or notional < entry_price * AMOUNT_STEP:
        raise InvalidInput(field="notional", rule="must buy a size of 0.00000001", found=notional)
    return PaperPosition(
        side=proposal.side,
        entry_bar=bar + 1,
        time_bar=bar + 1 + proposal.holding_bars_max,
        opened_at=candles.opening(bar + 1),
        market_price=market_price,
        entry_price=entry_price,
        stop_price=market_price * (1 - sign * _exact(proposal.stop_ratio)),
        take_profit_price=market_price * (1 + sign * _exact(proposal.take_profit_ratio)),
        size=(notional / entry_price).quantize(AMOUNT_STEP, rounding=ROUND_DOWN),
        costs=costs,
    )


def settle(candles: Candles, position: PaperPosition) -> ClosedPosition | None:
    """Live a position to its end; None when the candles end before it: its outcome is not known.

    >>> from learners.market.candles import shipped_candles
    >>> candles = shipped_candles()
    >>> wish = Proposal(
    ...     side=Side.LONG, stop_ratio=0.02, take_profit_ratio=0.03, holding_bars_max=24
    ... )
    >>> position = open_position(
    ...     candles, bar=0, proposal=wish, notional=Decimal(1000), costs=PERPETUAL_TAKER
    ... )
    >>> closed = settle(candles, position)
    >>> closed.exit_reason.value, closed.pnl, closed.return_ratio
    ('stop', Decimal('-21.38172473'), Decimal('-0.021381725660'))
    """
    for bar in range(position.entry_bar, min(position.time_bar + 1, len(candles))):
        end = _exit(candles, position, bar)
        if end is not None:
            return _closed(candles, position, bar=bar, end=end)
    return None


def mark(candles: Candles, position: PaperPosition, *, bar: int) -> Mark:
    """Value a position that is still open at the close of `bar`.

    Raises `InvalidInput` for a bar before the entry or outside the candles.
    """
    _require_bar(candles, bar, lowest=position.entry_bar)
    worst = _value(position, _worst_price(candles, position, before=bar + 1)).pnl
    return Mark(
        marked_at=candles.closing(bar),
        pnl=_value(position, _exact(candles.close[bar])).pnl,
        worst_excursion=_loss_ratio(position, worst),
    )


def reported_at(closed_at: datetime, *, rng: np.random.Generator) -> datetime:
    """Return when the bot reports: within half an hour, every tenth time 1 to 12 hours later.

    So outcomes arrive in another order than they closed. Takes two draws from `rng`.

    >>> from datetime import UTC
    >>> reported_at(datetime(2024, 1, 1, tzinfo=UTC), rng=np.random.default_rng(7)).isoformat()
    '2024-01-01T00:19:07+00:00'
    """
    slow = int(rng.integers(10)) == 0
    seconds = rng.integers(3600, 12 * 3600) if slow else rng.integers(60, 1800)
    return closed_at + timedelta(seconds=int(seconds))


class _End(NamedTuple):
    reason: ExitReason
    price: Decimal
    at_open: bool


def _exit(candles: Candles, position: PaperPosition, bar: int) -> _End | None:
    sign = position.side.sign
    opening = float(candles.open[bar])
    stop, take_profit = float(position.stop_price), float(position.take_profit_price)
    if bar == position.time_bar or sign * opening <= sign * stop:
        reason = ExitReason.TIME if bar == position.time_bar else ExitReason.STOP
        return _End(reason, _exact(opening), at_open=True)
    adverse, favourable = candles.low[bar], candles.high[bar]
    if position.side is Side.SHORT:
        adverse, favourable = favourable, adverse
    if sign * adverse <= sign * stop:
        return _End(ExitReason.STOP, position.stop_price, at_open=False)
    if sign * favourable >= sign * take_profit:
        return _End(ExitReason.TAKE_PROFIT, position.take_profit_price, at_open=False)
    return None


def _closed(candles: Candles, position: PaperPosition, *, bar: int, end: _End) -> ClosedPosition:
    # A take-profit may have lived through its bar's adverse extreme first; the others end at once.
    lived = bar + 1 if end.reason is ExitReason.TAKE_PROFIT else bar
    value = _value(position, end.price)
    worst = _value(position, _worst_price(candles, position, before=lived)).pnl
    risk = position.size * abs(position.entry_price - position.stop_price)
    return ClosedPosition(
        side=position.side,
        exit_reason=end.reason,
        opened_at=position.opened_at,
        closed_at=candles.opening(bar) if end.at_open else candles.closing(bar),
        entry_price=position.entry_price,
        exit_price=value.exit_price,
        size=position.size,
        fees=value.fees,
        slippage=value.slippage,
        pnl=value.pnl,
        return_ratio=value.return_ratio,
        r_multiple=_ratio(value.pnl, risk),
        worst_excursion=_loss_ratio(position, min(worst, value.pnl)),
    )


def _value(position: PaperPosition, price: Decimal) -> PaperFill:
    """What closing at this market price leaves."""
    costs = position.costs
    return filled(
        position.side,
        entry=position.market_price,
        leave=price,
        size=position.size,
        fee_ratio=_exact(costs.fee_ratio),
        slippage_ratio=_exact(costs.slippage_ratio),
    )


def _worst_price(candles: Candles, position: PaperPosition, *, before: int) -> Decimal:
    lived = slice(position.entry_bar, before)
    if position.entry_bar >= before:
        return position.market_price
    match position.side:
        case Side.LONG:
            return _exact(candles.low[lived].min())
        case Side.SHORT:
            return _exact(candles.high[lived].max())
        case _:
            assert_never(position.side)


def _require_bar(candles: Candles, bar: int, *, lowest: int) -> None:
    if not lowest <= bar < len(candles):
        rule = f"must be in [{lowest}, {len(candles)})"
        raise InvalidInput(field="bar", rule=rule, found=bar)


def _exact(value: float) -> Decimal:
    """The decimal a person reads in the file: 0.1 becomes 0.1, not its binary neighbour."""
    return Decimal(repr(float(value)))


def _ratio(part: Decimal, whole: Decimal) -> Decimal:
    return (part / whole).quantize(RETURN_STEP)


def _loss_ratio(position: PaperPosition, pnl: Decimal) -> Decimal:
    return _ratio(max(-pnl, Decimal(0)), position.notional)
