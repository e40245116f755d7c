"""Labels: what a position would have earned, had it been opened after a bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import Side
from learners.market.candles import Candles
from learners.market.validation import Floats

_COST_MAX = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """One label a bar, read-only: `returns` as ratios, NaN where a label cannot be known.

    `horizon_end` is the last bar that the label of a row reads, `reach_bars` after the row itself;
    it may lie behind the end of the candles.
    """

    returns: Floats
    horizon_end: NDArray[np.int64]
    reach_bars: int


def forward_returns(
    candles: Candles, *, horizon_bars: int, side: Side, fee_ratio: float, slippage_ratio: float
) -> Labels:
    """Return what a position held for `horizon_bars` bars earns, over its value at entry.

    As in the paper market: decided at the close of bar t, filled at the open of t + 1, left at the
    open of t + 1 + `horizon_bars`; both fills pay `fee_ratio` of their value and slip by
    `slippage_ratio` (0.001 is ten basis points). NaN where the candles end before that, and where a
    gap lies between. Raises `InvalidInput` for a horizon under one bar and costs outside [0, 0.1).

    >>> from learners.market.candles import shipped_candles
    >>> candles = shipped_candles()
    >>> labels = forward_returns(
    ...     candles, horizon_bars=24, side=Side.LONG, fee_ratio=0.0005, slippage_ratio=0.0002
    ... )
    >>> float(labels.returns[0].round(6)), int(labels.horizon_end[0])
    (0.013905, 25)
    """
    if horizon_bars < 1:
        raise InvalidInput(field="horizon_bars", rule="must be 1 or more", found=horizon_bars)
    for name, ratio in (("fee_ratio", fee_ratio), ("slippage_ratio", slippage_ratio)):
        if not 0 <= ratio < _COST_MAX:
            raise InvalidInput(field=name, rule=f"must be in [0, {_COST_MAX})", found=ratio)
    reach, bars = horizon_bars + 1, len(candles)
    known = max(bars - reach, 0)
    entered = candles.open[1 : 1 + known] * (1.0 + side.sign * slippage_ratio)
    left = candles.open[reach : reach + known] * (1.0 - side.sign * slippage_ratio)
    moved = left / entered
    returns = np.full(bars, np.nan)
    returns[:known] = side.sign * (moved - 1.0) - fee_ratio - fee_ratio * moved
    spanned = candles.opened_at[reach : reach + known] - candles.opened_at[:known]
    returns[:known][spanned != reach * np.timedelta64(candles.interval, "us")] = np.nan
    horizon_end = np.arange(bars) + reach
    for array in (returns, horizon_end):
        array.flags.writeable = False
    return Labels(returns=returns, horizon_end=horizon_end, reach_bars=reach)
