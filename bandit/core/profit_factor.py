"""The profit factor: gross profit over gross loss, in three states, with an interval."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from statistics import NormalDist
from typing import Any

from bandit.core.equity import checked_result, checked_results
from bandit.core.errors import InvalidInput


def quotient(numerator: float, denominator: float) -> float:
    """Divide; what exceeds a double reads the largest one, because JSON has no Infinity.

    >>> quotient(3.0, 2.0)
    1.5
    """
    return min(numerator / denominator, sys.float_info.max)


class ProfitFactorState(StrEnum):
    """The three states of a profit factor."""

    FINITE = "finite"
    NO_LOSSES = "no_losses"
    NO_TRADES = "no_trades"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfitFactor:
    """Gross profit over gross loss, with what it was computed from.

    Without a loss there is no quotient and `value` is None: neither the best nor the worst arm,
    but one that is not judged yet. Hence no ordering; ask `at_least`. Trades that all ended at
    exactly 0 are `no_losses` too, with a gross profit of 0.

    >>> ProfitFactor(gross_profit=30.0, gross_loss=20.0, n=5, n_losses=2).value
    1.5
    """

    gross_profit: float
    gross_loss: float
    n: int
    n_losses: int

    def __post_init__(self) -> None:
        for field in ("gross_profit", "gross_loss"):
            gross = getattr(self, field)
            if not 0.0 <= gross < math.inf:
                raise InvalidInput(field=field, rule="must be finite and not negative", found=gross)
        if not 0 <= self.n_losses <= self.n:
            raise InvalidInput(
                field="n_losses", rule=f"must lie between 0 and n = {self.n}", found=self.n_losses
            )
        if (self.gross_loss > 0.0) != (self.n_losses > 0):
            raise InvalidInput(
                field="gross_loss",
                rule=f"must be positive exactly when there are losses ({self.n_losses})",
                found=self.gross_loss,
            )
        if self.gross_profit > 0.0 and self.n == self.n_losses:
            raise InvalidInput(
                field="gross_profit", rule="must be 0 without a winner", found=self.gross_profit
            )

    @classmethod
    def from_sums(
        cls,
        *,
        gross_profit: Decimal | int,
        gross_loss: Decimal | int,
        n: int,
        n_losses: int,
        scale: int = 1,
    ) -> ProfitFactor:
        """From exact sums: money as `Decimal`, or integers that count steps of 1 / `scale`.

        >>> sums = {"gross_profit": 3_000_000, "gross_loss": 2_000_000, "scale": 1_000_000}
        >>> ProfitFactor.from_sums(**sums, n=5, n_losses=2).to_json()["gross_loss"]
        2.0
        """
        return cls(
            gross_profit=float(gross_profit / scale),
            gross_loss=float(gross_loss / scale),
            n=n,
            n_losses=n_losses,
        )

    @property
    def state(self) -> ProfitFactorState:
        """Finite as soon as one trade lost; a profit factor of 0 means that nothing was won."""
        if self.n == 0:
            return ProfitFactorState.NO_TRADES
        return ProfitFactorState.FINITE if self.n_losses else ProfitFactorState.NO_LOSSES

    @property
    def value(self) -> float | None:
        """The quotient; None unless the state is finite."""
        if self.state is not ProfitFactorState.FINITE:
            return None
        return quotient(self.gross_profit, self.gross_loss)

    def at_least(self, limit: float) -> bool | None:
        """Whether the value reaches `limit`; None (inconclusive) where there is no value.

        >>> ProfitFactor(gross_profit=9.0, gross_loss=0.0, n=3, n_losses=0).at_least(1.6) is None
        True
        """
        value = self.value
        return None if value is None else value >= limit

    def to_json(self) -> dict[str, float | int | str | None]:
        """Never NaN or Infinity: `{"value": null, "state": "no_losses", …}`."""
        return {
            "value": self.value,
            "state": self.state.value,
            "gross_profit": self.gross_profit,
            "gross_loss": self.gross_loss,
            "n": self.n,
            "n_losses": self.n_losses,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ProfitFactor:
        """Return what `to_json` gave.

        >>> factor = ProfitFactor(gross_profit=9.0, gross_loss=0.0, n=3, n_losses=0)
        >>> ProfitFactor.from_json(factor.to_json()) == factor
        True
        """
        return cls(
            gross_profit=float(stored["gross_profit"]),
            gross_loss=float(stored["gross_loss"]),
            n=stored["n"],
            n_losses=stored["n_losses"],
        )


def profit_factor(results: Iterable[float]) -> ProfitFactor:
    """Sum of the winners over the size of the sum of the losers, whatever the order.

    >>> profit_factor([30.0, -10.0, 0.0, -10.0]).value
    1.5
    >>> profit_factor([]).state.value, profit_factor([1.0]).state.value
    ('no_trades', 'no_losses')
    """
    checked = checked_results(results)
    losses = [r for r in checked if r < 0.0]
    return ProfitFactor(
        gross_profit=math.fsum(r for r in checked if r > 0.0),
        gross_loss=math.fsum(-r for r in losses),
        n=len(checked),
        n_losses=len(losses),
    )


def worst_block(results_in_closing_order: Sequence[float], *, blocks: int) -> float | None:
    """The lowest profit factor among consecutive blocks of equally many trades, give or take one.

    None where any block has none: a third of the time without a loss is not known to be good.

    >>> worst_block([3.0, -1.0, 2.0, -4.0], blocks=2)
    0.5
    >>> worst_block([3.0, -1.0, 2.0, 4.0], blocks=2) is None
    True
    """
    if blocks < 1:
        raise InvalidInput(field="blocks", rule="must be >= 1", found=blocks)
    n = len(results_in_closing_order)
    edges = [n * block // blocks for block in range(blocks + 1)]
    factors = [profit_factor(results_in_closing_order[a:b]).value for a, b in pairwise(edges)]
    known = [factor for factor in factors if factor is not None]
    return min(known) if len(known) == blocks else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Two-sided bounds of a number, and how often such bounds hold it in the long run."""

    low: float
    high: float
    confidence: float


def profit_factor_interval(
    results: Sequence[float], *, confidence: float = 0.95
) -> Interval | None:
    """Fieller's interval of the profit factor: every c that gain - c · loss = 0 does not refute.

    Needs no seed and no order, and treats trades as independent. None when even the mean loss
    cannot be told from 0, as after a handful of losses: then no upper bound exists.

    >>> interval = profit_factor_interval([2.0, -1.0] * 50)
    >>> round(interval.low, 2), round(interval.high, 2)
    (1.34, 2.98)
    >>> profit_factor_interval([2.0, -1.0]) is None
    True
    """
    n = len(results)
    if n < 2:
        return None
    z2_n = NormalDist().inv_cdf(0.5 + confidence / 2.0) ** 2 / n
    gain = math.fsum(max(checked_result(r), 0.0) for r in results) / n
    loss = math.fsum(max(-r, 0.0) for r in results) / n
    # Moments of gain and loss per trade; a trade is never both, so the cross moment is 0.
    gain_variance = math.fsum((max(r, 0.0) - gain) ** 2 for r in results) / (n - 1)
    loss_variance = math.fsum((max(-r, 0.0) - loss) ** 2 for r in results) / (n - 1)
    covariance = -gain * loss * n / (n - 1)
    # (gain - c·loss)² <= z²/n · Var(gain - c·loss) is a·c² - 2·b·c + d <= 0.
    a = loss * loss - z2_n * loss_variance
    b = gain * loss - z2_n * covariance
    d = gain * gain - z2_n * gain_variance
    if a <= 0.0:
        return None
    root = math.sqrt(max(b * b - a * d, 0.0))
    return Interval(
        low=max(quotient(b - root, a), 0.0), high=quotient(b + root, a), confidence=confidence
    )
