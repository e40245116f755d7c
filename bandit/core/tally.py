"""An arm's statistics: sums of the set of its outcomes, and a fold of it in closing order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, localcontext

from bandit.core.equity import EquityState
from bandit.core.outcomes import Outcome
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
    gross_profit: Decimal = _ZERO
    gross_loss: Decimal = _ZERO
    fees: Decimal = _ZERO
    return_gain: Decimal = _ZERO
    return_loss: Decimal = _ZERO
    return_squares: Decimal = _ZERO

    def plus(self, outcome: Outcome, *, expired: bool) -> Sums:
        """Count one more outcome.

        >>> from uuid import UUID
        >>> from bandit.core.outcomes import declined
        >>> Sums().plus(declined(UUID(int=1)), expired=False).n_trades
        0
        """
        earned = outcome.return_ratio
        with localcontext(prec=_EXACT_DIGITS):
            return replace(
                self,
                n_outcomes=self.n_outcomes + 1,
                n_trades=self.n_trades + (not outcome.no_trade),
                n_wins=self.n_wins + (earned > 0),
                n_losses=self.n_losses + (earned < 0),
                n_expired=self.n_expired + expired,
                gross_profit=self.gross_profit + max(outcome.pnl, _ZERO),
                gross_loss=self.gross_loss - min(outcome.pnl, _ZERO),
                fees=self.fees + (outcome.fees or _ZERO),
                return_gain=self.return_gain + max(earned, _ZERO),
                return_loss=self.return_loss - min(earned, _ZERO),
                return_squares=self.return_squares + earned * earned,
            )

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

    def after(self, trade: ClosedTrade, *, equity_fraction: float) -> Fold:
        """Return the fold one trade later."""
        return Fold(
            n=self.n + 1,
            equity=self.equity.after(equity_fraction * trade.result),
            streaks=self.streaks.after(trade.result),
            last=(trade.closed_at, trade.unit),
        )

    def continues_with(self, trades: Sequence[ClosedTrade]) -> bool:
        """Say whether every trade closed after the newest one folded in."""
        return self.last is None or all((t.closed_at, t.unit) > self.last for t in trades)


def folded(start: Fold, trades: Iterable[ClosedTrade], *, equity_fraction: float) -> Iterator[Fold]:
    """Yield the fold after each of `trades`, which must come in closing order."""
    state = start
    for trade in trades:
        assert state.last is None or (trade.closed_at, trade.unit) > state.last
        state = state.after(trade, equity_fraction=equity_fraction)
        yield state


def is_checkpoint(fold: Fold) -> bool:
    """Say whether the fold is kept as a place to start again from."""
    return fold.n % CHECKPOINT_EVERY == 0
