"""Closing positions of the paper market, by hand: a long of 1000 enters at 100, its size is 10."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from environments import candles_of

from bandit.core.closing import CloseTarget
from bandit.core.model import Policy, PolicyKind, PolicyName, PolicySha
from bandit.core.outcomes import Outcome
from bandit.core.paper_fills import Side
from learners.market.candles import Candles
from learners.market.paper_market import Costs, Proposal
from liveops.connectors.closing import CannotClose
from liveops.connectors.paper_closer import PaperCloser
from liveops.replay_arms import Wish

START = datetime(2024, 1, 1, tzinfo=UTC)
FREE = Costs(fee_ratio=0.0, slippage_ratio=0.0)
HOUR = timedelta(hours=1)
# Bar 1 opens at 100, bar 2 at 101, bar 3 at 102, and the last close is 104.
ROWS = [(99, 100, 99, 100), (100, 101, 98, 101), (101, 102, 100, 102), (102, 105, 97, 104)]


class Holder:
    """An arm that goes long at every bar but the second, and decides when it is told to leave."""

    policy = Policy(name=PolicyName("arm"), kind=PolicyKind.EXTERNAL, sha=PolicySha("a" * 8))

    def __init__(self, *, left_at: int | None = None, take_profit: float = 0.2) -> None:
        self.left_at = left_at
        self.proposal = Proposal(
            side=Side.LONG, stop_ratio=0.2, take_profit_ratio=take_profit, holding_bars_max=9
        )

    def wish(self, bar: int, *, size_multiplier: float, confidence_bump: float) -> Wish | None:
        if bar == 1:
            return None
        share = Decimal(str(size_multiplier)) * Decimal(str(1 - confidence_bump))
        return Wish(proposal=self.proposal, share=share, left_at=self.left_at)


def target(*, bar: int = 0, decided_to: datetime | None = None, bump: float = 0.0) -> CloseTarget:
    closes = START + (bar + 1) * HOUR
    return CloseTarget(
        order_id=1,
        experiment="paper",
        reason="drill",
        since=START + 999 * HOUR,
        decided_to=decided_to or closes,
        assignment_id=UUID(int=1),
        unit_id="u",
        instrument="BTCUSD",
        policy=PolicyName("arm"),
        size_multiplier=1.0,
        confidence_bump=bump,
        decided_at=closes,
        is_closed=False,
    )


def close(
    found: CloseTarget,
    *,
    arm: Holder | None = None,
    candles: Candles | None = None,
    costs: Costs = FREE,
) -> Outcome:
    closer = PaperCloser(
        candles or candles_of(ROWS),
        arm_of=lambda _: arm or Holder(),
        notional=Decimal(1000),
        costs=costs,
    )
    return closer.close(found)


@pytest.mark.parametrize(
    ("decided_to", "price", "hours"),
    [
        (START + HOUR, 101, 2),  # decided at the close of bar 0: heard at that of bar 1
        (START + 2 * HOUR - timedelta(microseconds=1), 101, 2),
        (START + 2 * HOUR, 102, 3),
        (START + 3 * HOUR, 104, 4),  # no open is left: the last close
        (START + 4 * HOUR, 104, 4),
        (START + 9999 * HOUR, 104, 4),
        (START - HOUR, 101, 2),  # never before it was filled
    ],
)
def test_a_position_leaves_at_the_open_after_its_order(
    decided_to: datetime, price: int, hours: int
) -> None:
    made = close(target(decided_to=decided_to))
    assert (made.pnl, made.closed_at) == (10 * (price - 100), START + hours * HOUR)
    assert (made.opened_at, made.size) == (START + HOUR, 10)


def test_leaving_at_the_last_close_has_lived_through_the_last_bar() -> None:
    made = close(target(decided_to=START + 4 * HOUR))
    assert made.worst_excursion == Decimal("0.03")  # the low of bar 3 is 97


def test_closing_costs_what_every_exit_costs() -> None:
    made = close(
        target(decided_to=START + 4 * HOUR), costs=Costs(fee_ratio=0.001, slippage_ratio=0)
    )
    # 1000 and 1040 change hands
    assert (made.fees, made.pnl) == (Decimal("2.04"), Decimal("37.96"))


def test_what_ended_before_the_order_keeps_its_end() -> None:
    taken = close(target(decided_to=START + 3 * HOUR), arm=Holder(take_profit=0.02))
    assert (taken.pnl, taken.closed_at) == (20, START + 3 * HOUR)
    left = close(target(decided_to=START + 3 * HOUR), arm=Holder(left_at=1))
    assert (left.pnl, left.closed_at) == (10, START + 2 * HOUR)
    ordered = close(target(decided_to=START + HOUR), arm=Holder(left_at=2))
    assert (ordered.pnl, ordered.closed_at) == (10, START + 2 * HOUR)


def test_the_size_is_that_of_the_decision() -> None:
    assert close(target(bump=0.5)).size == 5


def test_what_was_never_filled_earned_nothing() -> None:
    assert close(target(bar=3)).no_trade


def test_one_bar_after_the_fill_is_enough() -> None:
    made = close(target(bar=2))
    assert (made.opened_at, made.closed_at) == (START + 3 * HOUR, START + 4 * HOUR)
    assert made.pnl == Decimal("19.60784312")  # 9.80392156 of them at 102


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (target(bar=1), "arm opens nothing at 2024-01-01T02:00:00"),
        (target(bar=4), "no bar of its candles closes at 2024-01-01T05:00:00"),
        (target(bar=-1), "no bar of its candles closes at 2024-01-01T00:00:00"),
    ],
)
def test_what_the_market_does_not_know_it_cannot_close(found: CloseTarget, why: str) -> None:
    with pytest.raises(CannotClose, match=why):
        close(found)


def test_a_gap_in_the_candles_is_passed_over() -> None:
    candles = candles_of(ROWS)
    gapped = Candles(
        instrument="BTCUSD",
        opened_at=candles.opened_at + np.array([0, 0, 3, 3], "timedelta64[h]"),
        bar_interval=HOUR,
        **candles.numbers(),
    )
    made = close(target(decided_to=START + HOUR), candles=gapped)
    assert (made.pnl, made.closed_at) == (10, START + 5 * HOUR)
