"""The paper market: what a proposal would have earned on real candles, costs included.

The execution model, on purpose a little worse than life:
- a decision is taken when a bar closes and fills at the open of the next bar;
- every fill, take-profits too, pays the taker fee and slips against us;
- a bar that touches stop and take-profit counts as the stop;
- a bar that opens beyond the stop fills at that open, beyond the take-profit still at the latter;
- inside a bar nobody knows when: such an exit is dated to the bar's close;
- who decides to leave at the close of a bar leaves at the open of the next, as who enters does.
Funding is charged where its rates are given: at the open of a bar, to what was held into it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple, assert_never

import numpy as np

from bandit.core.errors import InvalidInput
from bandit.core.model import AMOUNT_STEP, RETURN_STEP, checked_return
from bandit.core.paper_fills import PaperFill, Side, filled, slipped
from learners.market.candles import Candles
from learners.market.validation import Floats

_FUNDING_EVERY = np.timedelta64(timedelta(hours=8))


class ExitReason(StrEnum):
    """Why a position was closed."""

    STOP = "stop"
    TAKE_PROFIT = "take_profit"
    TIME = "time"
    DECISION = "decision"


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

    def levels(self, market_price: Decimal) -> tuple[Decimal, Decimal]:
        """Return the prices of the stop and of the take-profit of a fill at this price."""
        sign = self.side.sign
        stop = market_price * (1 - sign * _exact(self.stop_ratio))
        return stop, market_price * (1 + sign * _exact(self.take_profit_ratio))


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

    `pnl` is net of `fees`, of `slippage` and of `funding`, which is below zero where more was
    received than paid; `return_ratio` is `pnl` over the value at entry; `r_multiple` is `pnl` over
    size times the distance from the fill to the stop. `worst_excursion` (0 or more) is the worst
    net loss at which it could have been closed while it was open, over the value at entry, so it is
    never below `-return_ratio`.
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
    funding: Decimal
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
    market_price = _exact(candles.open[bar + 1])
    entry_price = slipped(market_price, proposal.side, _exact(costs.slippage_ratio))
    if not notional.is_finite() or notional < entry_price * AMOUNT_STEP:
        raise InvalidInput(field="notional", rule="must buy a size of 0.00000001", found=notional)
    stop_price, take_profit_price = proposal.levels(market_price)
    return PaperPosition(
        side=proposal.side,
        entry_bar=bar + 1,
        time_bar=bar + 1 + proposal.holding_bars_max,
        opened_at=candles.opening(bar + 1),
        market_price=market_price,
        entry_price=entry_price,
        stop_price=stop_price,
        take_profit_price=take_profit_price,
        size=(notional / entry_price).quantize(AMOUNT_STEP, rounding=ROUND_DOWN),
        costs=costs,
    )


def funding_charges(candles: Candles, rates: float | Floats) -> Floats:
    """Return what is paid for what was held into each bar's open, as a ratio of its value there.

    `rates` are the ratios of one funding, which is at 00, 08 and 16 h UTC: one for all, or one a
    bar. Where they are above zero longs pay and shorts receive. A bar is charged for every funding
    since the open before, so one after a gap or of a day for several. Raises `InvalidInput` for
    rates that are not finite, not below one tenth, or not as many as the bars.

    >>> from learners.market.candles import shipped_candles
    >>> candles = shipped_candles()
    >>> charges = funding_charges(candles, 0.0001)
    >>> [(candles.opening(bar).hour, float(charges[bar])) for bar in range(3, 6)]
    [(7, 0.0), (8, 0.0001), (9, 0.0)]
    """
    rates = np.asarray(rates, dtype=np.float64)
    if rates.shape not in {(), (len(candles),)}:
        rule = f"must be one for all or one for each of {len(candles)} bars"
        raise InvalidInput(field="funding", rule=rule, found=f"{rates.shape}")
    usual = np.abs(rates) < 0.1
    if not usual.all():
        found = rates[~usual].flat[0]
        raise InvalidInput(field="funding", rule="must be in (-0.1, 0.1)", found=found)
    ordinals = (candles.opened_at - np.datetime64(0, "us")) // _FUNDING_EVERY
    return np.asarray(rates * np.diff(ordinals, prepend=ordinals[:1]), dtype=np.float64)


def settle(
    candles: Candles,
    position: PaperPosition,
    *,
    left_at: int | None = None,
    funding: Floats | None = None,
) -> ClosedPosition | None:
    """Live a position to its end; None when the candles end before it: its outcome is not known.

    With `left_at`, a decision at the close of that bar ends it at the open of the next, unless it
    ended before. `funding` is what `funding_charges` gives, and none where it is None. Raises
    `InvalidInput` where `left_at` is a bar before the entry or outside the candles.

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
    if left_at is not None:
        _require_bar(candles, left_at, lowest=position.entry_bar)
    for bar in range(position.entry_bar, min(position.time_bar + 1, len(candles))):
        leaves = left_at is not None and bar == left_at + 1
        end = _exit(candles, position, bar, leaves=leaves)
        if end is not None:
            return _closed(candles, position, bar=bar, end=end, funding=funding)
    return None


def mark(
    candles: Candles, position: PaperPosition, *, bar: int, funding: Floats | None = None
) -> Mark:
    """Value a position that is still open at the close of `bar`.

    Raises `InvalidInput` for a bar before the entry or outside the candles.
    """
    _require_bar(candles, bar, lowest=position.entry_bar)
    booked = _booked(candles, position, funding, until=bar)
    worst = _worst_pnl(candles, position, booked, before=bar + 1)
    paid = sum(booked.values(), Decimal(0))
    return Mark(
        marked_at=candles.closing(bar),
        pnl=_value(position, _exact(candles.close[bar]), paid=paid).pnl,
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


def _exit(candles: Candles, position: PaperPosition, bar: int, *, leaves: bool) -> _End | None:
    sign = position.side.sign
    opening = float(candles.open[bar])
    stop, take_profit = float(position.stop_price), float(position.take_profit_price)
    timed_out, gapped = bar == position.time_bar, sign * opening <= sign * stop
    if timed_out or gapped or leaves:
        reason = ExitReason.STOP if gapped else ExitReason.DECISION
        reason = ExitReason.TIME if timed_out else reason
        return _End(reason, _exact(opening), at_open=True)
    adverse, favourable = candles.low[bar], candles.high[bar]
    if position.side is Side.SHORT:
        adverse, favourable = favourable, adverse
    if sign * adverse <= sign * stop:
        return _End(ExitReason.STOP, position.stop_price, at_open=False)
    if sign * favourable >= sign * take_profit:
        return _End(ExitReason.TAKE_PROFIT, position.take_profit_price, at_open=False)
    return None


def _closed(
    candles: Candles, position: PaperPosition, *, bar: int, end: _End, funding: Floats | None
) -> ClosedPosition:
    # A take-profit may have lived through its bar's adverse extreme first; the others end at once.
    lived = bar + 1 if end.reason is ExitReason.TAKE_PROFIT else bar
    booked = _booked(candles, position, funding, until=bar)
    paid = sum(booked.values(), Decimal(0))
    value = _value(position, end.price, paid=paid)
    worst = _worst_pnl(candles, position, booked, before=lived)
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
        funding=paid,
        pnl=value.pnl,
        return_ratio=value.return_ratio,
        r_multiple=_ratio(value.pnl, risk),
        worst_excursion=_loss_ratio(position, min(worst, value.pnl)),
    )


def _booked(
    candles: Candles, position: PaperPosition, funding: Floats | None, *, until: int
) -> dict[int, Decimal]:
    """What the position paid at the opens of bars that charge, each booked by itself."""
    if funding is None:
        return {}
    held = slice(position.entry_bar + 1, until + 1)
    charged = position.entry_bar + 1 + np.flatnonzero(funding[held])
    signed_size = position.side.sign * position.size
    return {
        bar: (signed_size * _exact(candles.open[bar]) * _exact(funding[bar])).quantize(AMOUNT_STEP)
        for bar in charged.tolist()
    }


def _worst_pnl(
    candles: Candles, position: PaperPosition, booked: dict[int, Decimal], *, before: int
) -> Decimal:
    """The least that leaving would have left, from the entry until the bar `before`."""
    edges = [position.entry_bar, *(bar for bar in booked if bar < before), before]
    paid, worst = Decimal(0), []
    for first, last in pairwise(edges):
        paid += booked.get(first, Decimal(0))
        price = _worst_price(candles, position, slice(first, last))
        worst.append(_value(position, price, paid=paid).pnl)
    return min(worst)


def _value(position: PaperPosition, price: Decimal, *, paid: Decimal) -> PaperFill:
    """What closing at this market price leaves, after `paid` for funding."""
    costs = position.costs
    fill = filled(
        position.side,
        entry=position.market_price,
        leave=price,
        size=position.size,
        fee_ratio=_exact(costs.fee_ratio),
        slippage_ratio=_exact(costs.slippage_ratio),
    )
    if paid == 0:
        return fill
    pnl = fill.pnl - paid
    return_ratio = checked_return(_ratio(pnl, position.notional), field="return")
    return replace(fill, pnl=pnl, return_ratio=return_ratio)


def _worst_price(candles: Candles, position: PaperPosition, lived: slice) -> Decimal:
    if lived.start >= lived.stop:
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
