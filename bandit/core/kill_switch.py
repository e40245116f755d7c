"""The kill switch of an account: who turned it, why, and who may turn it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class KillKind(StrEnum):
    """What an event does to the account."""

    KILL = "KILL"
    RELEASE = "RELEASE"


class KillCause(StrEnum):
    """Why an event happened. Values are never reused."""

    HAND = "hand"
    LATCH = "latch"
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    NEXT_DAY = "next_day"


class DailyLossRelease(StrEnum):
    """How a kill for the day's loss ends: by a person only, or when the next UTC day begins."""

    MANUAL = "manual"
    NEXT_DAY = "next_day"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillEvent:
    """One turn of the switch."""

    kind: KillKind
    cause: KillCause
    at: datetime
    actor: str
    reason: str


def is_released_by_day(newest: KillEvent | None, *, now: datetime, rule: DailyLossRelease) -> bool:
    """Say whether `rule` releases an account whose newest event this is.

    Only a kill for the day's loss ends with its day: a later kill by hand, or one for the
    drawdown, waits for a person.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> lost = KillEvent(kind=KillKind.KILL, cause=KillCause.DAILY_LOSS, at=noon,
    ...                  actor="guard", reason="daily loss 3.4 % over 3 %")
    >>> rule = DailyLossRelease.NEXT_DAY
    >>> is_released_by_day(lost, now=noon + timedelta(hours=11), rule=rule)
    False
    >>> is_released_by_day(lost, now=noon + timedelta(hours=12), rule=rule)
    True
    """
    return (
        rule is DailyLossRelease.NEXT_DAY
        and newest is not None
        and newest.kind is KillKind.KILL
        and newest.cause is KillCause.DAILY_LOSS
        and now.date() > newest.at.date()
    )
