"""How a position ends that is opened at any bar, worked out for all bars at once.

How far a bracket lives depends on the bar of its entry and on its side alone. So what would take a
loop over bars for each position is a table, made with the comparisons of the paper market.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core.paper_fills import Side
from learners.market.candles import Candles
from learners.market.paper_market import ExitReason, Proposal
from learners.market.validation import Floats

REASONS = tuple(ExitReason)
_STOPPED, _TAKEN, _TIMED_OUT = map(
    REASONS.index, (ExitReason.STOP, ExitReason.TAKE_PROFIT, ExitReason.TIME)
)


class BracketEnds(NamedTuple):
    """Where a position ends that filled at each bar's open, if nobody decides before.

    `bar` counts from the first bar of the table and is -1 where the bars end before; `at_open` says
    whether it leaves at that bar's open or inside it, `price` the market price it leaves at, and
    `reason` is an index of `REASONS`.
    """

    bar: NDArray[np.intp]
    at_open: NDArray[np.bool_]
    price: Floats
    reason: NDArray[np.int8]


def bracket_ends(candles: Candles, proposal: Proposal, *, bars: range) -> BracketEnds:
    """Live through the bracket of every bar at once, one bar of its holding after the other.

    Only the candles of `bars` are read.

    >>> from learners.market.candles import shipped_candles
    >>> wish = Proposal(
    ...     side=Side.LONG, stop_ratio=0.02, take_profit_ratio=0.03, holding_bars_max=24
    ... )
    >>> ends = bracket_ends(shipped_candles(), wish, bars=range(1, 100))
    >>> int(ends.bar[0]), bool(ends.at_open[0]), REASONS[ends.reason[0]].value
    (0, False, 'stop')
    """
    here, sign = slice(bars.start, bars.stop), proposal.side.sign
    opens = candles.open[here]
    adverse, favourable = candles.low[here], candles.high[here]
    if proposal.side is Side.SHORT:
        adverse, favourable = favourable, adverse
    stop, take_profit = _levels(opens, proposal)
    ends = _no_ends(len(bars))
    entry = np.arange(len(bars))
    for held in range(proposal.holding_bars_max + 1):
        entry = entry[entry + held < len(bars)]
        bar, timed_out = entry + held, held == proposal.holding_bars_max
        at_open = (sign * opens[bar] <= sign * stop[entry]) | timed_out
        stopped = sign * adverse[bar] <= sign * stop[entry]
        taken = sign * favourable[bar] >= sign * take_profit[entry]
        inside = np.where(stopped, stop[entry], take_profit[entry])
        reason = np.where(at_open | stopped, _STOPPED, _TAKEN)
        over = at_open | stopped | taken
        at = entry[over]
        ends.bar[at] = bar[over]
        ends.at_open[at] = at_open[over]
        ends.price[at] = np.where(at_open, opens[bar], inside)[over]
        ends.reason[at] = _TIMED_OUT if timed_out else reason[over]
        entry = entry[~over]
    return ends


def _no_ends(bars: int) -> BracketEnds:
    return BracketEnds(
        np.full(bars, -1, dtype=np.intp),
        np.zeros(bars, dtype=np.bool_),
        np.zeros(bars),
        np.zeros(bars, dtype=np.int8),
    )


def _levels(opens: Floats, proposal: Proposal) -> tuple[Floats, Floats]:
    """Return stop and take-profit of a fill at each open, rounded as the paper market rounds."""
    levels = [proposal.levels(Decimal(repr(price))) for price in opens.tolist()]
    stops, take_profits = zip(*levels, strict=True)
    return np.array([float(price) for price in stops]), np.array([float(p) for p in take_profits])
