"""An arm's statistics: sums of the set of its outcomes, and a fold of it in closing order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, localcontext
from itertools import islice

from bandit.core.equity import EquityState
from bandit.core.outcomes import Flags, Outcome
from bandit.core.performance import ClosedTrade, Streaks
from bandit.core.profit_factor import ProfitFactor

CHECKPOINT_EVERY = 256
"""Trades between two places where the fold over a history can be taken up again."""

_ZERO = Decimal(0)
# The square of a return has up to 30 digits, and a sum of them more: nothing may be rounded.
_EXACT_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Exact sums: the same for every order, batching and repetition of the same outcomes.

    Money in the experiment's currency; gains, losses and squares of returns at nominal size.
    """

    n_outcomes: int = 0
    n_trades: int = 0
    n_wins: int = 0
    n_losses: int = 0
    n_expired: int = 0
    n_unclaimed: int = 0
    gross_profit: Decimal = _ZERO
    gross_loss: Decimal = _ZERO
    fees: Decimal = _ZERO
    return_gain: Decimal = _ZERO
    return_loss: Decimal = _ZERO
    return_squares: Decimal = _ZERO

    def plus(self, outcome: Outcome, flags: Flags) -> Sums:
        """Count one more outcome.

        >>> from uuid import UUID
        >>> from bandit.core.outcomes import declined
        >>> Sums().plus(declined(UUID(int=1)), Flags()).n_trades
        0
        """
        return self.plus_all([(outcome, flags)])

    def plus_all(self, outcomes: Iterable[tuple[Outcome, Flags]]) -> Sums:
        """Count more outcomes, each with its flags."""
        n_outcomes, n_trades = self.n_outcomes, self.n_trades
        n_expired, n_unclaimed = self.n_expired, self.n_unclaimed
        n_wins, n_losses, fees = self.n_wins, self.n_losses, self.fees
        gross_profit, gross_loss = self.gross_profit, self.gross_loss
        gain, loss, squares = self.return_gain, self.return_loss, self.return_squares
        with localcontext(prec=_EXACT_DIGITS):
            for outcome, (expired, unclaimed) in outcomes:
                earned, pnl = outcome.return_ratio, outcome.pnl
                n_outcomes += 1
                n_expired += expired
                n_unclaimed += unclaimed
                if not outcome.no_trade:
                    n_trades += 1
                if pnl > 0:
                    gross_profit += pnl
                elif pnl < 0:
                    gross_loss -= pnl
                if earned > 0:
                    n_wins += 1
                    gain += earned
                elif earned < 0:
                    n_losses += 1
                    loss -= earned
                squares += earned * earned
                if outcome.fees is not None:
                    fees += outcome.fees
        return Sums(
            n_outcomes=n_outcomes,
            n_trades=n_trades,
            n_wins=n_wins,
            n_losses=n_losses,
            n_expired=n_expired,
            n_unclaimed=n_unclaimed,
            gross_profit=gross_profit,
            gross_loss=gross_loss,
            fees=fees,
            return_gain=gain,
            return_loss=loss,
            return_squares=squares,
        )

    def plus_sums(self, other: Sums) -> Sums:
        """Return the sums of two sets that share no outcome.

        >>> Sums(n_outcomes=2, fees=Decimal(1)).plus_sums(Sums(n_outcomes=1)).n_outcomes
        3
        """
        with localcontext(prec=_EXACT_DIGITS):
            both = {name: getattr(self, name) + getattr(other, name) for name in self.__slots__}
        return Sums(**both)

    def minus(self, outcome: Outcome, flags: Flags) -> Sums:
        """Take back an outcome that was counted: the sums of the set without it.

        >>> from uuid import UUID
        >>> from bandit.core.outcomes import declined
        >>> once = Sums().plus(declined(UUID(int=1)), Flags(expired=True))
        >>> once.minus(declined(UUID(int=1)), Flags(expired=True)) == Sums()
        True
        """
        counted = Sums().plus(outcome, flags)
        with localcontext(prec=_EXACT_DIGITS):
            left = {name: getattr(self, name) - getattr(counted, name) for name in self.__slots__}
        return Sums(**left)

    @property
    def profit_factor(self) -> ProfitFactor:
        """The profit factor of every trade, on returns at nominal size."""
        return ProfitFactor.from_sums(
            gross_profit=self.return_gain,
            gross_loss=self.return_loss,
            n=self.n_trades,
            n_losses=self.n_losses,
        )

    @property
    def pnl(self) -> Decimal:
        """Net money earned."""
        return self.gross_profit - self.gross_loss


@dataclass(slots=True, kw_only=True)
class DaySums:
    """Exact sums of an arm's trades that closed on one UTC day in one instrument."""

    n_trades: int = 0
    n_wins: int = 0
    n_losses: int = 0
    pnl: Decimal = _ZERO
    fees: Decimal = _ZERO
    return_gain: Decimal = _ZERO
    return_loss: Decimal = _ZERO

    def add(self, trade: Outcome) -> None:
        """Count one more trade."""
        earned = trade.return_ratio
        self.n_trades += 1
        self.pnl += trade.pnl
        if trade.fees is not None:
            self.fees += trade.fees
        if earned > 0:
            self.n_wins += 1
            self.return_gain += earned
        elif earned < 0:
            self.n_losses += 1
            self.return_loss -= earned


def by_day(trades: Iterable[tuple[Outcome, str]]) -> dict[tuple[date, str], DaySums]:
    """Sum trades, each with its instrument, by the UTC day they closed on and the instrument."""
    days: dict[tuple[date, str], DaySums] = {}
    with localcontext(prec=_EXACT_DIGITS):
        for trade, instrument in trades:
            assert trade.closed_at is not None
            key = (trade.closed_at.date(), instrument)
            day = days.get(key)
            if day is None:
                day = days[key] = DaySums()
            day.add(trade)
    return days


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What depends on the order of trades: equity at nominal size, drawdown, streaks.

    `equity` starts at 1.0, the whole account, and each trade adds its return times the nominal
    equity fraction. `last` is the place of the newest trade folded in.
    """

    n: int = 0
    equity: EquityState = field(default_factory=lambda: EquityState.start(1.0))
    streaks: Streaks = field(default_factory=Streaks)
    last: tuple[datetime, str] | None = None

    def after(self, *trades: ClosedTrade, equity_fraction: float) -> Fold:
        """Return the fold one trade later, or several, which must come in closing order."""
        last = self.last
        for trade in trades:
            place = (trade.closed_at, trade.unit)
            assert last is None or place > last
            last = place
        results = [trade.result for trade in trades]
        return Fold(
            n=self.n + len(trades),
            equity=self.equity.after(*(equity_fraction * result for result in results)),
            streaks=self.streaks.after(*results),
            last=last,
        )

    def continues_with(self, trades: Sequence[ClosedTrade]) -> bool:
        """Say whether every trade closed after the newest one folded in."""
        return self.last is None or all((t.closed_at, t.unit) > self.last for t in trades)


def folded(start: Fold, trades: Iterable[ClosedTrade], *, equity_fraction: float) -> Iterator[Fold]:
    """Yield the fold at each checkpoint on the way through `trades`, and after the last of them.

    They must come in closing order.
    """
    state, left = start, iter(trades)
    while some := list(islice(left, CHECKPOINT_EVERY - state.n % CHECKPOINT_EVERY)):
        state = state.after(*some, equity_fraction=equity_fraction)
        yield state


def is_checkpoint(fold: Fold) -> bool:
    """Say whether the fold is kept as a place to start again from."""
    return fold.n % CHECKPOINT_EVERY == 0
