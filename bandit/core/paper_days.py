"""Results on paper by day: what an arm's trades would have earned (SPEC B6).

Each is told once and never revised, so that a day is a plain sum of what was told of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from operator import attrgetter

from bandit.core.errors import InvalidInput
from bandit.core.profit_factor import ProfitFactor

_ZERO = Decimal(0)
# The square of a return has up to 30 digits, and a sum of them more: nothing may be rounded.
_EXACT_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSums:
    """Exact sums over trades on paper, as returns: the same for every order and batching.

    >>> sums = PaperSums.of([Decimal("0.003"), Decimal("-0.001")])
    >>> sums.n_trades, sums.n_losses, sums.return_sum, sums - sums == PaperSums()
    (2, 1, Decimal('0.002'), True)
    """

    n_trades: int = 0
    n_losses: int = 0
    return_sum: Decimal = _ZERO
    return_squares: Decimal = _ZERO
    return_gain: Decimal = _ZERO
    return_loss: Decimal = _ZERO

    @classmethod
    def of(cls, returns: Iterable[Decimal]) -> PaperSums:
        """Count trades by their returns."""
        found = list(returns)
        losses = [earned for earned in found if earned < 0]
        with localcontext(prec=_EXACT_DIGITS):
            gain = sum((earned for earned in found if earned > 0), _ZERO)
            loss = -sum(losses, _ZERO)
            return cls(
                n_trades=len(found),
                n_losses=len(losses),
                return_sum=gain - loss,
                return_squares=sum((earned * earned for earned in found), _ZERO),
                return_gain=gain,
                return_loss=loss,
            )

    def __add__(self, other: PaperSums) -> PaperSums:
        """Count the trades of both, which must have none in common."""
        with localcontext(prec=_EXACT_DIGITS):
            both = {name: getattr(self, name) + getattr(other, name) for name in self.__slots__}
        return PaperSums(**both)

    def __sub__(self, other: PaperSums) -> PaperSums:
        """Take back trades that were counted."""
        with localcontext(prec=_EXACT_DIGITS):
            left = {name: getattr(self, name) - getattr(other, name) for name in self.__slots__}
        return PaperSums(**left)

    @property
    def profit_factor(self) -> ProfitFactor:
        """The profit factor of these trades."""
        return ProfitFactor.from_sums(
            gross_profit=self.return_gain,
            gross_loss=self.return_loss,
            n=self.n_trades,
            n_losses=self.n_losses,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperDay:
    """An arm's trades on paper of the decisions of one UTC day."""

    day: date
    sums: PaperSums


def newest_factor(days: Iterable[PaperDay], *, window: int, reaching: date) -> ProfitFactor | None:
    """Return the profit factor of an arm's newest trades on paper, `window` of them or more.

    Days are taken whole, the newest first, until they have enough trades; None where all have
    fewer, and where none is of the day `reaching` or later: what ended before says nothing of now.

    >>> newest = [PaperDay(day=date(2026, 3, day), sums=PaperSums.of(map(Decimal, earned)))
    ...           for day, earned in ((1, ["9"]), (2, ["1", "-2"]), (3, ["3", "-1"]))]
    >>> newest_factor(newest, window=3, reaching=date(2026, 3, 2)).value
    1.3333333333333333
    >>> newest_factor(newest, window=3, reaching=date(2026, 3, 4)) is None
    True

    Raises `InvalidInput` for a window of less than one trade.
    """
    if window < 1:
        raise InvalidInput(field="window", rule="must be >= 1", found=window)
    sums = PaperSums()
    newest = sorted(days, key=attrgetter("day"), reverse=True)
    if not newest or newest[0].day < reaching:
        return None
    for day in newest:
        sums += day.sums
        if sums.n_trades >= window:
            return sums.profit_factor
    return None
