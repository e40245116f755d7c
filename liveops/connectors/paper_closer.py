"""Closes positions of the paper market, over the candles that were replayed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import numpy as np

from bandit.core.closing import CloseTarget
from bandit.core.model import PolicyName
from bandit.core.outcomes import Outcome, declined, trade
from learners.market.candles import Candles
from learners.market.paper_market import ClosedPosition, Costs, open_position, settle
from liveops.connectors.closing import CannotClose
from liveops.replay_arms import ReplayArm


class PaperCloser:
    """The paper market as a place where positions are closed.

    A position leaves at the first open after its order, unless its bracket ended it before: an
    order that comes between the closes of two bars is acted on at the later one, and filled at the
    open after that. Where the candles have no such open, it leaves at their last close. Costs are
    those of every fill.
    """

    def __init__(
        self,
        candles: Candles,
        *,
        arm_of: Callable[[PolicyName], ReplayArm],
        notional: Decimal,
        costs: Costs,
    ) -> None:
        """Trade `notional` of money at nominal size; `arm_of` raises `CannotClose`."""
        self._candles = candles
        self._arm_of = arm_of
        self._notional = notional
        self._costs = costs
        self._and_after = _with_last_close(candles)

    def bar_of(self, decided_at: datetime) -> int:
        """Return the bar at whose close a decision was made; raises `CannotClose`."""
        bar = self._newest_bar(decided_at)
        if bar < 0 or self._candles.closing(bar) != decided_at:
            raise CannotClose(f"no bar of its candles closes at {decided_at.isoformat()}")
        return bar

    def close(self, target: CloseTarget) -> Outcome:
        """Return what a position earned; nothing, where it was never filled."""
        bar = self.bar_of(target.decided_at)
        wish = self._arm_of(target.policy).wish(
            bar, size_multiplier=target.size_multiplier, confidence_bump=target.confidence_bump
        )
        if wish is None:
            raise CannotClose(f"{target.policy} opens nothing at {target.decided_at.isoformat()}")
        position = open_position(
            self._candles,
            bar=bar,
            proposal=wish.proposal,
            notional=self._notional * wish.share,
            costs=self._costs,
        )
        if position is None:
            return declined(target.assignment_id)
        # Both may have decided to leave: the policy, and whoever gave the order.
        ordered = max(self._newest_bar(target.decided_to) + 1, position.entry_bar)
        left_at = ordered if wish.left_at is None else min(ordered, wish.left_at)
        last = len(self._candles) - 1
        closed = settle(self._and_after, position, left_at=min(left_at, last))
        assert closed is not None, "the bar after the last one ends it"
        return outcome_of(target.assignment_id, closed)

    def _newest_bar(self, moment: datetime) -> int:
        """Return the newest bar that had closed by a moment; -1 before the first."""
        opened_by = np.datetime64((moment - self._candles.interval).replace(tzinfo=None), "us")
        return int(np.searchsorted(self._candles.opened_at, opened_by, side="right")) - 1


def outcome_of(assignment_id: UUID, closed: ClosedPosition) -> Outcome:
    """Return a closed position of the paper market as the outcome of its decision."""
    return trade(
        assignment_id,
        pnl=closed.pnl,
        return_ratio=closed.return_ratio,
        opened_at=closed.opened_at,
        closed_at=closed.closed_at,
        fees=closed.fees,
        slippage=closed.slippage,
        size=closed.size,
        r_multiple=closed.r_multiple,
        worst_excursion=closed.worst_excursion,
    )


def _with_last_close(candles: Candles) -> Candles:
    """Return the candles with one bar more, at which all can leave at the last close."""
    close = candles.close[-1:]
    after = {"volume": candles.volume[-1:]} | dict.fromkeys(("open", "high", "low", "close"), close)
    return Candles(
        instrument=candles.instrument,
        opened_at=np.append(
            candles.opened_at, candles.opened_at[-1] + np.timedelta64(candles.interval)
        ),
        bar_interval=candles.interval,
        **{name: np.append(values, after[name]) for name, values in candles.numbers().items()},
    )
