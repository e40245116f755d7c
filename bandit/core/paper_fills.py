"""What a proposed trade would have earned between two market prices, costs included (SPEC B6).

Both fills pay the fee on their value and slip against the trade. Funding is not charged. The paper
market of the demo charges by this too.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import StrEnum

from bandit.core.errors import InvalidInput
from bandit.core.model import AMOUNT_STEP, RETURN_STEP, checked_amount, checked_return

_BPS = Decimal(10_000)
_BPS_LIMIT = 1000
_EXACT_DIGITS = 120


class Side(StrEnum):
    """Which way a position earns."""

    LONG = "long"
    SHORT = "short"

    @property
    def sign(self) -> int:
        """1 where a rising price earns, -1 where a falling one does."""
        return 1 if self is Side.LONG else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTrade:
    """A proposal and the prices it is held against.

    Prices are those of the market when it would have filled, before slippage; `fee_bps` and
    `slippage_bps` are what each fill costs, in basis points of its value.
    """

    side: Side
    entry_price: Decimal
    exit_price: Decimal
    size: Decimal
    fee_bps: Decimal
    slippage_bps: Decimal

    def __post_init__(self) -> None:
        """Refuse what no market trades."""
        for name in ("entry_price", "exit_price", "size"):
            value = checked_amount(getattr(self, name), field=name)
            if value <= 0:
                raise InvalidInput(field=name, rule="must be positive", found=value)
        for name in ("fee_bps", "slippage_bps"):
            value = checked_amount(getattr(self, name), field=name)
            if not 0 <= value < _BPS_LIMIT:
                rule = f"must be in [0, {_BPS_LIMIT})"
                raise InvalidInput(field=name, rule=rule, found=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFill:
    """What a trade would have earned: money of eight decimals, net, and over the value at entry.

    `exit_price` is where it left, after slippage.
    """

    exit_price: Decimal
    fees: Decimal
    slippage: Decimal
    pnl: Decimal
    return_ratio: Decimal


def paper_fill(trade: PaperTrade) -> PaperFill:
    """Return what a trade would have earned, net of fees and slippage.

    Raises `InvalidInput` for a return that the ledger cannot hold.

    >>> trade = PaperTrade(side=Side.LONG, entry_price=Decimal(100), exit_price=Decimal(110),
    ...                    size=Decimal(2), fee_bps=Decimal(10), slippage_bps=Decimal(0))
    >>> fill = paper_fill(trade)
    >>> fill.fees, fill.pnl, fill.return_ratio
    (Decimal('0.42000000'), Decimal('19.58000000'), Decimal('0.097900000000'))
    """
    with localcontext(prec=_EXACT_DIGITS):
        fee, slippage = trade.fee_bps / _BPS, trade.slippage_bps / _BPS
    return filled(
        trade.side,
        entry=trade.entry_price,
        leave=trade.exit_price,
        size=trade.size,
        fee_ratio=fee,
        slippage_ratio=slippage,
    )


def slipped(price: Decimal, side: Side, slippage_ratio: Decimal) -> Decimal:
    """Return what an order that opens a position pays at a market price."""
    return price * (1 + side.sign * slippage_ratio)


def filled(
    side: Side,
    *,
    entry: Decimal,
    leave: Decimal,
    size: Decimal,
    fee_ratio: Decimal,
    slippage_ratio: Decimal,
) -> PaperFill:
    """Return what a position of `size` earns between two market prices, exact to the last digit.

    Raises `InvalidInput` for a return that the ledger cannot hold.
    """
    with localcontext(prec=_EXACT_DIGITS):
        entered = slipped(entry, side, slippage_ratio)
        left = leave * (1 - side.sign * slippage_ratio)
        notional = size * entered
        # Each is booked by itself, as an exchange does.
        fees = (notional * fee_ratio).quantize(AMOUNT_STEP)
        fees += (size * left * fee_ratio).quantize(AMOUNT_STEP)
        lost = abs(entered - entry) + abs(left - leave)
        pnl = (side.sign * size * (left - entered)).quantize(AMOUNT_STEP) - fees
        return PaperFill(
            exit_price=left,
            fees=fees,
            slippage=(size * lost).quantize(AMOUNT_STEP),
            pnl=pnl,
            return_ratio=checked_return((pnl / notional).quantize(RETURN_STEP), field="return"),
        )
