"""What an arm would have earned on a decision, whoever took it (SPEC B6).

A result on paper is kept apart from what was earned: it moves no money, no guard and no number of
the arm's trades.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicyName, checked_instant, checked_return
from bandit.core.outcomes import check_times, require_order


class ShadowSource(StrEnum):
    """Who worked the result out: the bot, or the service from a proposal and its prices."""

    REPORTED = "reported"
    PAPER = "paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOutcome:
    """What the policy of one arm would have earned on one decision.

    `return_ratio` is the net result over the position's notional at entry, costs included, as in
    `Outcome`. A policy that would have declined earned nothing and has no times.
    """

    assignment_id: UUID
    policy: PolicyName
    no_trade: bool
    return_ratio: Decimal
    source: ShadowSource
    opened_at: datetime | None = None
    closed_at: datetime | None = None

    def body_hash(self) -> bytes:
        """Return the hash of the normalised body: 0.0010 and 0.001 are one body.

        >>> made = dict(opened_at=datetime.fromisoformat("2026-01-01T00:00:00Z"),
        ...             closed_at=datetime.fromisoformat("2026-01-01T01:00:00Z"))
        >>> a, b = (shadow_trade(UUID(int=1), PolicyName("new"), return_ratio=Decimal(x), **made)
        ...         for x in ("0.0010", "0.001"))
        >>> a.body_hash() == b.body_hash()
        True
        """
        opened, closed = (
            None if moment is None else moment.isoformat()
            for moment in (self.opened_at, self.closed_at)
        )
        # None of these can hold a line break.
        told = (self.assignment_id, self.policy, self.source.value, f"{self.return_ratio:f}")
        return hashlib.sha256("\n".join(map(str, (*told, opened, closed))).encode()).digest()


def shadow_declined(assignment_id: UUID, policy: PolicyName) -> ShadowOutcome:
    """Return what a policy that would have declined is told to have earned: nothing.

    >>> shadow_declined(UUID(int=1), PolicyName("new")).return_ratio
    Decimal('0E-12')
    """
    return ShadowOutcome(
        assignment_id=assignment_id,
        policy=policy,
        no_trade=True,
        return_ratio=checked_return(Decimal(0), field="return"),
        source=ShadowSource.REPORTED,
    )


def shadow_trade(
    assignment_id: UUID,
    policy: PolicyName,
    *,
    return_ratio: Decimal,
    opened_at: datetime,
    closed_at: datetime,
    source: ShadowSource = ShadowSource.REPORTED,
) -> ShadowOutcome:
    """Return a trade that would have been made, every field checked and normalised.

    Raises `InvalidInput` naming the field and the rule.
    """
    opened = checked_instant(opened_at, field="opened_at")
    closed = checked_instant(closed_at, field="closed_at")
    require_order(opened, closed)
    return ShadowOutcome(
        assignment_id=assignment_id,
        policy=policy,
        no_trade=False,
        return_ratio=checked_return(return_ratio, field="return"),
        source=source,
        opened_at=opened,
        closed_at=closed,
    )


def check_shadow(
    told: ShadowOutcome,
    *,
    decided_at: datetime,
    joined_at: datetime,
    is_opportunity: bool,
    now: datetime,
) -> None:
    """Raise `InvalidInput` for a result that no arm can have had on this decision.

    `joined_at` is when the arm joined: one that came later may have been made from what followed.
    `is_opportunity` is false for the next decision of an open position, whose result is that of the
    decision that opened it.
    """
    check_times(told, decided_at=decided_at, now=now)
    if joined_at > decided_at:
        rule = f"must be in the experiment since {decided_at.isoformat()}, when it was decided"
        raise InvalidInput(field="policy", rule=rule, found=told.policy)
    if not is_opportunity:
        rule = "must be of an opportunity, not of an open position's next decision"
        raise InvalidInput(field="assignment_id", rule=rule, found=told.assignment_id)
