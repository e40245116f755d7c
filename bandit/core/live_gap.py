"""The gap between what a policy's backtest promised and what it does live (SPEC F12).

Three differences, live less backtest: return of a trade, share of winners, slippage. Each has an
interval for one look at samples that know nothing of each other; whoever looks every night finds a
gap by chance the sooner. Trades are taken as independent, and fewer than `TRADES_MIN` say nothing:
with a stop and a take-profit the first few often end alike, and have no spread to judge them by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any, Final

from scipy.special import stdtrit

from bandit.core.equity import mean_and_deviation
from bandit.core.errors import InvalidInput
from bandit.core.model import AMOUNT_STEP, RETURN_STEP
from bandit.core.profit_factor import Interval

TRADES_MIN: Final = 30
"""Trades that an interval takes, live and in the backtest."""

# Rounding is at most half a step, so that with these many steps a quotient is right to 1 %.
_STEPS_MIN: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeSample:
    """What is compared of a set of closed trades.

    `mean` is that of the returns and `error` its standard error, None below two trades. `slippage`
    and its error are ratios of the value at entry, of the `n_slippage` trades that report one; a
    backtest assumes its slippage: no trade, and no error.
    """

    n: int
    wins: int
    mean: float | None
    error: float | None
    n_slippage: int
    slippage: float | None
    slippage_error: float | None

    def __post_init__(self) -> None:
        """Refuse what no trades make."""
        if not 0 <= self.wins <= self.n:
            raise InvalidInput(field="wins", rule=f"must lie in 0..{self.n}", found=self.wins)
        for name in ("error", "slippage_error"):
            error = getattr(self, name)
            if error is not None and not 0.0 <= error < math.inf:
                raise InvalidInput(field=name, rule="must be finite and not negative", found=error)

    @classmethod
    def of(cls, returns: Sequence[float], slippages: Sequence[float]) -> TradeSample:
        """Count live trades; `slippages` of those that report one, adverse ones positive.

        >>> TradeSample.of([0.01, -0.01, 0.03], [0.5, 0.25]).slippage
        0.375
        """
        mean, error = _mean(returns)
        slippage, slippage_error = _mean(slippages)
        wins = sum(earned > 0.0 for earned in returns)
        return cls(
            n=len(returns),
            wins=wins,
            mean=mean,
            error=error,
            n_slippage=len(slippages),
            slippage=slippage,
            slippage_error=slippage_error,
        )

    @classmethod
    def promised(cls, returns: Sequence[float], *, slippage: float) -> TradeSample:
        """Count a backtest's trades, of which each is taken to slip by `slippage` in all.

        >>> TradeSample.promised([0.01, -0.01], slippage=0.0004).slippage
        0.0004
        """
        mean, error = _mean(returns)
        return cls(
            n=len(returns),
            wins=sum(earned > 0.0 for earned in returns),
            mean=mean,
            error=error,
            n_slippage=0,
            slippage=slippage,
            slippage_error=None,
        )


UNKNOWN: Final = TradeSample(
    n=0, wins=0, mean=None, error=None, n_slippage=0, slippage=None, slippage_error=None
)
"""Of whom nothing is known, such as a backtest that was recorded without these numbers."""


def slippage_ratio(slippage: Decimal, *, pnl: Decimal, return_ratio: Decimal) -> float | None:
    """Return a trade's slippage over its value at entry, which is `pnl` over `return_ratio`.

    All three as an outcome tells them. None where the result is so near to 0 that the value at
    entry cannot be told from it.

    >>> slippage_ratio(Decimal("0.4"), pnl=Decimal("-12"), return_ratio=Decimal("-0.012"))
    0.0004
    >>> slippage_ratio(Decimal("0.4"), pnl=Decimal(0), return_ratio=Decimal(0)) is None
    True
    """
    if abs(pnl) < _STEPS_MIN * AMOUNT_STEP or abs(return_ratio) < _STEPS_MIN * RETURN_STEP:
        return None
    return float(slippage * return_ratio / pnl)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One difference, live less backtest; None where either is not known.

    `is_worse` says whether the whole interval lies on the bad side: None without an interval.
    """

    live: float | None
    backtest: float | None
    difference: float | None
    interval: Interval | None
    is_worse: bool | None

    def to_json(self) -> dict[str, float | bool | None]:
        """Return it as a JSON document."""
        ends = (None, None) if self.interval is None else (self.interval.low, self.interval.high)
        return {
            "live": self.live,
            "backtest": self.backtest,
            "difference": self.difference,
            "low": ends[0],
            "high": ends[1],
            "is_worse": self.is_worse,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveGap:
    """How a policy's live trades differ from those of its backtest."""

    return_mean: Gap
    win_rate: Gap
    slippage: Gap

    @property
    def by_name(self) -> dict[str, Gap]:
        """The three under the names that reports and metrics give them."""
        return {
            "return_mean": self.return_mean,
            "win_rate": self.win_rate,
            "slippage": self.slippage,
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {name: gap.to_json() for name, gap in self.by_name.items()}


def live_gap(live: TradeSample, backtest: TradeSample, *, confidence: float = 0.95) -> LiveGap:
    """Compare live trades with a backtest's.

    Return of a trade: Welch's interval. Win rate: Newcombe's hybrid of two Wilson intervals (1998,
    method 10). Slippage: Student's t around what the backtest assumed. No interval with fewer than
    `TRADES_MIN` trades.

    >>> live = TradeSample.of([0.01, -0.02] * 50, [0.0009, 0.0011] * 50)
    >>> promised = TradeSample(
    ...     n=100, wins=60, mean=0.002, error=0.001,
    ...     n_slippage=0, slippage=0.0004, slippage_error=None)
    >>> gap = live_gap(live, promised)
    >>> gap.return_mean.is_worse, gap.win_rate.is_worse, gap.slippage.is_worse
    (True, False, True)
    """
    if not 0.0 < confidence < 1.0:
        raise InvalidInput(field="confidence", rule="must be between 0 and 1", found=confidence)
    return LiveGap(
        return_mean=_return_gap(live, backtest, confidence),
        win_rate=_rate_gap(live, backtest, confidence),
        slippage=_slippage_gap(live, backtest, confidence),
    )


def wilson_interval(wins: int, n: int, *, confidence: float = 0.95) -> Interval | None:
    """Return Wilson's interval of a share, which stays within 0 and 1; None of nothing.

    >>> found = wilson_interval(2, 3)
    >>> round(found.low, 4), round(found.high, 4)
    (0.2077, 0.9385)
    """
    if n == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    rate, z2_n = wins / n, z * z / n
    middle = (rate + z2_n / 2) / (1 + z2_n)
    half = z * math.sqrt(rate * (1 - rate) / n + z2_n / (4 * n)) / (1 + z2_n)
    # A share of 0 or 1 is inside, whatever the rounding says.
    return Interval(
        low=min(max(middle - half, 0.0), rate),
        high=max(min(middle + half, 1.0), rate),
        confidence=confidence,
    )


def _return_gap(live: TradeSample, backtest: TradeSample, confidence: float) -> Gap:
    errors = (live.error, backtest.error)
    if errors[0] is None or errors[1] is None or min(live.n, backtest.n) < TRADES_MIN:
        return _gap(live.mean, backtest.mean, None)
    squares = errors[0] ** 2, errors[1] ** 2
    together = sum(squares)
    if together == 0.0:
        return _gap(live.mean, backtest.mean, None)
    # Welch's degrees of freedom, from shares so that no square of a small number vanishes.
    a, b = squares[0] / together, squares[1] / together
    freedom = 1.0 / (a * a / (live.n - 1) + b * b / (backtest.n - 1))
    half = math.sqrt(together) * float(stdtrit(freedom, 0.5 + confidence / 2.0))
    return _gap(live.mean, backtest.mean, (half, half), confidence=confidence)


def _rate_gap(live: TradeSample, backtest: TradeSample, confidence: float) -> Gap:
    ours = wilson_interval(live.wins, live.n, confidence=confidence)
    theirs = wilson_interval(backtest.wins, backtest.n, confidence=confidence)
    if ours is None or theirs is None or min(live.n, backtest.n) < TRADES_MIN:
        rates = [s.wins / s.n if s.n else None for s in (live, backtest)]
        return _gap(rates[0], rates[1], None)
    won, promised = live.wins / live.n, backtest.wins / backtest.n
    below = math.hypot(won - ours.low, theirs.high - promised)
    above = math.hypot(ours.high - won, promised - theirs.low)
    return _gap(won, promised, (below, above), confidence=confidence)


def _slippage_gap(live: TradeSample, backtest: TradeSample, confidence: float) -> Gap:
    halves = None
    if live.slippage_error is not None and live.n_slippage >= TRADES_MIN:
        quantile = float(stdtrit(live.n_slippage - 1, 0.5 + confidence / 2.0))
        half = live.slippage_error * quantile
        halves = (half, half)
    return _gap(live.slippage, backtest.slippage, halves, confidence=confidence, is_cost=True)


def _gap(
    live: float | None,
    backtest: float | None,
    halves: tuple[float, float] | None,
    *,
    confidence: float = 0.95,
    is_cost: bool = False,
) -> Gap:
    if live is None or backtest is None:
        return Gap(live=live, backtest=backtest, difference=None, interval=None, is_worse=None)
    difference = live - backtest
    interval, is_worse = None, None
    if halves is not None:
        low, high = difference - halves[0], difference + halves[1]
        interval = Interval(low=low, high=high, confidence=confidence)
        is_worse = low > 0.0 if is_cost else high < 0.0
    return Gap(
        live=live, backtest=backtest, difference=difference, interval=interval, is_worse=is_worse
    )


def _mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    if not all(map(math.isfinite, values)):
        raise InvalidInput(field="sample", rule="must be finite numbers", found="another")
    moments = mean_and_deviation(values)
    if moments is None:
        return values[0], None
    return moments[0], moments[1] / math.sqrt(len(values))
