"""Which moment a day means, and which week it belongs to."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from bandit.core.errors import InvalidInput

WEEKDAY: Final = 6
"""Sunday, as `date.weekday` counts."""

HOUR: Final = 3


def moment_of(day: date | None, *, now: datetime) -> datetime:
    """Return the last moment of a UTC day that has been; now for today, and for None.

    Raises `InvalidInput` for a day to come.

    >>> now = datetime(2026, 3, 4, 12, tzinfo=UTC)
    >>> moment_of(date(2026, 3, 1), now=now).isoformat()
    '2026-03-01T23:59:59.999999+00:00'
    >>> moment_of(date(2026, 3, 4), now=now) == moment_of(None, now=now) == now
    True
    """
    if day is None:
        return now
    if datetime.combine(day, time(), UTC) > now:
        rule = f"must not be after today, {now.astimezone(UTC):%Y-%m-%d} in UTC"
        raise InvalidInput(field="--date", rule=rule, found=day.isoformat())
    return min(now, datetime.combine(day, time.max, UTC))


def week_of(moment: datetime) -> datetime:
    """Return the newest Sunday 03:00 UTC that is not after a moment.

    >>> week_of(datetime(2026, 3, 4, 12, tzinfo=UTC)).isoformat()
    '2026-03-01T03:00:00+00:00'
    >>> week_of(datetime(2026, 3, 1, 2, 59, tzinfo=UTC)).day
    22
    """
    shifted = moment.astimezone(UTC) - timedelta(hours=HOUR)
    sunday = shifted.date() - timedelta(days=(shifted.weekday() - WEEKDAY) % 7)
    return datetime.combine(sunday, time(HOUR), UTC)
