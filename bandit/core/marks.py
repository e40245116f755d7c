"""Marks: what an open position would earn if it were closed now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from bandit.core.errors import InvalidInput
from bandit.core.model import CLOCK_TOLERANCE, checked_amount, checked_instant, require_past


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The money an open position stands at, fees of closing it included.

    >>> Mark(assignment_id=UUID(int=1), unrealised_pnl=Decimal("NaN"),
    ...      marked_at=datetime.fromisoformat("2026-03-01T12:00:00Z"))
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: unrealised_pnl: must be a finite number, found NaN
    """

    assignment_id: UUID
    unrealised_pnl: Decimal
    marked_at: datetime

    def __post_init__(self) -> None:
        """Refuse money or a time that the ledger cannot hold."""
        checked_amount(self.unrealised_pnl, field="unrealised_pnl")
        checked_instant(self.marked_at, field="marked_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionMark:
    """The newest mark of a position and its worst so far."""

    newest: Mark
    worst_pnl: Decimal
    worst_at: datetime


def marked(held: PositionMark | None, mark: Mark) -> PositionMark:
    """Return what stands after `mark`: a mark that is no later than the newest changes nothing."""
    if held is None:
        return PositionMark(newest=mark, worst_pnl=mark.unrealised_pnl, worst_at=mark.marked_at)
    if mark.marked_at <= held.newest.marked_at:
        return held
    is_worse = mark.unrealised_pnl < held.worst_pnl
    return PositionMark(
        newest=mark,
        worst_pnl=mark.unrealised_pnl if is_worse else held.worst_pnl,
        worst_at=mark.marked_at if is_worse else held.worst_at,
    )


def check_time(mark: Mark, *, decided_at: datetime, now: datetime) -> None:
    """Raise `InvalidInput` when a mark lies before its decision or in the future.

    Both allow `CLOCK_TOLERANCE`, the most two honest clocks differ.
    """
    require_past(mark.marked_at, field="marked_at", now=now)
    if mark.marked_at < decided_at - CLOCK_TOLERANCE:
        rule = f"must not be before the decision at {decided_at.isoformat()}"
        raise InvalidInput(field="marked_at", rule=rule, found=mark.marked_at.isoformat())
