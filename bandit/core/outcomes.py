"""What a decision earned: validated, normalised, and hashed so that the same body is one body."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Protocol
from uuid import UUID

from bandit.core.errors import InvalidInput
from bandit.core.model import (
    CLOCK_TOLERANCE,
    checked_amount,
    checked_instant,
    checked_return,
    require_past,
)


class Flags(NamedTuple):
    """What is odd about an outcome that counts all the same: its money was won or lost.

    `expired`: the position was opened after its decision had expired. `unclaimed`: it was opened
    without asking whether the decision still stood.
    """

    expired: bool = False
    unclaimed: bool = False


class Timed(Protocol):
    """Whatever says when a trade was open; nothing where there was none."""

    @property
    def opened_at(self) -> datetime | None:
        """When it was opened."""

    @property
    def closed_at(self) -> datetime | None:
        """When it was closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one assignment.

    `pnl` is net money in the experiment's currency, fees and funding included. `return_ratio` is
    the net result over the position's notional at entry, so -0.0012 lost 0.12 % of it.
    `worst_excursion` is how far the position stood against its entry at worst, as a positive ratio
    of the notional; `r_multiple` the result in units of the risk planned before entry. A policy
    that declined earned nothing and has no times: build it with `declined`.
    """

    assignment_id: UUID
    no_trade: bool
    pnl: Decimal
    return_ratio: Decimal
    opened_at: datetime | None = None
    closed_at: datetime | None = None
    fees: Decimal | None = None
    slippage: Decimal | None = None
    size: Decimal | None = None
    r_multiple: Decimal | None = None
    worst_excursion: Decimal | None = None

    def body_hash(self) -> bytes:
        """Return the hash of the normalised body: 12.340 and 12.34 are one body.

        >>> made = dict(opened_at=datetime.fromisoformat("2026-01-01T00:00:00Z"),
        ...             closed_at=datetime.fromisoformat("2026-01-01T01:00:00Z"),
        ...             return_ratio=Decimal("0.001"))
        >>> a = trade(UUID(int=1), pnl=Decimal("12.340"), **made)
        >>> b = trade(UUID(int=1), pnl=Decimal("12.34"), **made)
        >>> a.body_hash() == b.body_hash()
        True
        """
        # The bytes that json.dumps(sort_keys=True) made of it since the first release: stored
        # hashes stay true. Nothing in it can need an escape.
        body = (
            f'{{"assignment_id": "{self.assignment_id}", "closed_at": {_moment(self.closed_at)}, '
            f'"fees": {_decimal(self.fees)}, "no_trade": {"true" if self.no_trade else "false"}, '
            f'"opened_at": {_moment(self.opened_at)}, "pnl": "{self.pnl:f}", '
            f'"r_multiple": {_decimal(self.r_multiple)}, "return_ratio": "{self.return_ratio:f}", '
            f'"size": {_decimal(self.size)}, "slippage": {_decimal(self.slippage)}, '
            f'"worst_excursion": {_decimal(self.worst_excursion)}}}'
        )
        return hashlib.sha256(body.encode()).digest()


def declined(assignment_id: UUID) -> Outcome:
    """Return the outcome of a policy that answered `no_trade`: evidence, but no trade.

    >>> declined(UUID(int=1)).pnl
    Decimal('0E-8')
    """
    nothing = checked_amount(Decimal(0), field="pnl")
    flat = checked_return(Decimal(0), field="return")
    return Outcome(assignment_id=assignment_id, no_trade=True, pnl=nothing, return_ratio=flat)


def trade(
    assignment_id: UUID,
    *,
    pnl: Decimal,
    return_ratio: Decimal,
    opened_at: datetime,
    closed_at: datetime,
    fees: Decimal | None = None,
    slippage: Decimal | None = None,
    size: Decimal | None = None,
    r_multiple: Decimal | None = None,
    worst_excursion: Decimal | None = None,
) -> Outcome:
    """Return the outcome of a closed trade, every field checked and normalised.

    Raises `InvalidInput` naming the field and the rule.
    """
    outcome = Outcome(
        assignment_id=assignment_id,
        no_trade=False,
        pnl=checked_amount(pnl, field="pnl"),
        return_ratio=checked_return(return_ratio, field="return"),
        opened_at=checked_instant(opened_at, field="opened_at"),
        closed_at=checked_instant(closed_at, field="closed_at"),
        fees=None if fees is None else checked_amount(fees, field="fees"),
        slippage=None if slippage is None else checked_amount(slippage, field="slippage"),
        size=None if size is None else checked_amount(size, field="size"),
        r_multiple=None if r_multiple is None else checked_return(r_multiple, field="r_multiple"),
        worst_excursion=None
        if worst_excursion is None
        else checked_return(worst_excursion, field="worst_excursion"),
    )
    _check_together(outcome)
    return outcome


def _check_together(outcome: Outcome) -> None:
    assert outcome.opened_at is not None
    assert outcome.closed_at is not None
    require_order(outcome.opened_at, outcome.closed_at)
    if outcome.pnl * outcome.return_ratio < 0:
        rule = f"must have the sign of pnl {outcome.pnl:f}"
        raise InvalidInput(field="return", rule=rule, found=outcome.return_ratio)
    if outcome.size is not None and outcome.size <= 0:
        raise InvalidInput(field="size", rule="must be positive", found=outcome.size)
    if outcome.worst_excursion is not None and outcome.worst_excursion < 0:
        found = outcome.worst_excursion
        raise InvalidInput(field="worst_excursion", rule="must not be negative", found=found)


def require_order(opened_at: datetime, closed_at: datetime) -> None:
    """Raise `InvalidInput` for a trade that closed before it opened."""
    if closed_at < opened_at:
        rule = f"must not be before opened_at {opened_at.isoformat()}"
        raise InvalidInput(field="closed_at", rule=rule, found=closed_at.isoformat())


def check_times(outcome: Timed, *, decided_at: datetime, now: datetime) -> None:
    """Raise `InvalidInput` when a trade opened before its decision or closes in the future.

    Both allow `CLOCK_TOLERANCE`, the most two honest clocks differ.
    """
    if outcome.opened_at is None or outcome.closed_at is None:
        return
    require_past(outcome.closed_at, field="closed_at", now=now)
    if outcome.opened_at < decided_at - CLOCK_TOLERANCE:
        rule = f"must not be before the decision at {decided_at.isoformat()}"
        raise InvalidInput(field="opened_at", rule=rule, found=outcome.opened_at.isoformat())


def flags_of(outcome: Outcome, *, expires_at: datetime, claimed: bool) -> Flags:
    """Return what is odd about an outcome, given its decision's end and whether it was claimed.

    >>> flags_of(declined(UUID(int=1)), expires_at=datetime(2026, 1, 1), claimed=False)
    Flags(expired=False, unclaimed=False)
    """
    if outcome.opened_at is None:
        return Flags()
    return Flags(expired=outcome.opened_at > expires_at, unclaimed=not claimed)


def _decimal(value: Decimal | None) -> str:
    return "null" if value is None else f'"{value:f}"'


def _moment(value: datetime | None) -> str:
    return "null" if value is None else f'"{value.isoformat()}"'
