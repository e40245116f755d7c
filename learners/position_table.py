"""What a position is worth at any bar, and where it ends, for every bar it could be opened at.

A training environment looks up here what the paper market works out bar by bar.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core.paper_fills import Side
from learners.environment_spec import EnvironmentSpec, Target
from learners.market.brackets import REASONS, BracketEnds, bracket_ends
from learners.market.candles import Candles
from learners.market.paper_market import ExitReason, funding_charges
from learners.market.validation import Floats

SIDES = {Target.LONG: Side.LONG, Target.SHORT: Side.SHORT}

TERMS = tuple(range(12))
(
    SLOPE,  # leaving at a quote returns `SLOPE * quote - OFFSET` of the value at entry
    OFFSET,
    END_AT_OPEN,  # the bar at whose open the bracket ends, -1 where it does not
    END_INSIDE,  # the bar inside which it does, -1 where it does not
    END_VALUE,  # what it returns then
    FIRST_VALUE,  # what it would return at the close of its first bar
    ROW,  # where these terms stand in the table
    TARGET,
    SHARE,  # of its longest holding that one bar is
    SIGN,  # from here on: what is observed; the environment keeps the last two
    MARK,
    HELD,
) = TERMS


class PositionTable(NamedTuple):
    """Rows target after target, as many of each as there are bars; those of flat are zeros.

    A row of `terms` is a position that fills at the bar's open, its columns are named above.
    `opens` and `closes` are quotes, in the rows of the target that leaves at them: prices less what
    one coin paid for funding by then, so that returns are net of every cost and of the funding
    since the entry. `reasons` say why the bracket ends, as indices of `REASONS`.
    """

    terms: Floats
    opens: Floats
    closes: Floats
    reasons: NDArray[np.int8]

    def reason(self, row: int) -> ExitReason:
        """Return why the bracket of a row ends."""
        return REASONS[int(self.reasons[row])]


def position_table(
    candles: Candles, spec: EnvironmentSpec, *, bars: range, rates: float | Floats
) -> PositionTable:
    """Work the table out for `bars`; `rates` are those of `funding_charges`."""
    here, count = slice(bars.start, bars.stop), len(bars)
    prices = candles.open[here], candles.close[here]
    paid = np.cumsum(funding_charges(candles, rates)[here] * prices[0])
    terms = np.zeros((len(Target), count, len(TERMS)))
    quotes = np.zeros((2, len(Target), count))
    reasons = np.zeros((len(Target), count), dtype=np.int8)
    for target, side in SIDES.items():
        ends = bracket_ends(candles, spec.proposal(side), bars=bars)
        _fill(terms[target], quotes[:, target], prices, paid, spec, side, ends)
        terms[target, :, ROW] = target * count + np.arange(count)
        terms[target, :, TARGET] = target
        reasons[target] = ends.reason
    return PositionTable(
        terms.reshape(-1, len(TERMS)),
        quotes[0].ravel(),
        quotes[1].ravel(),
        reasons.ravel(),
    )


def _fill(
    terms: Floats,
    quotes: Floats,
    prices: tuple[Floats, Floats],
    paid: Floats,
    spec: EnvironmentSpec,
    side: Side,
    ends: BracketEnds,
) -> None:
    """Write the terms and quotes of one side."""
    sign, fee, slippage = side.sign, spec.costs.fee_ratio, spec.costs.slippage_ratio
    entered = prices[0] * (1 + sign * slippage)
    # What is left of a price by whoever leaves at it: the slippage and the fee are taken.
    kept = (1 - sign * slippage) * (1 - sign * fee)
    quotes[:] = prices - paid / kept
    slope = sign * kept / entered
    offset = sign + fee - sign * paid / entered
    terms[:, SLOPE], terms[:, OFFSET] = slope, offset
    terms[:, END_AT_OPEN] = np.where(ends.at_open, ends.bar, -1)
    terms[:, END_INSIDE] = np.where(ends.at_open, -1, ends.bar)
    terms[:, END_VALUE] = slope * (ends.price - paid[ends.bar] / kept) - offset
    terms[:, FIRST_VALUE] = slope * quotes[1] - offset
    terms[:, SHARE] = 1 / spec.holding_bars_max
    terms[:, SIGN] = sign
