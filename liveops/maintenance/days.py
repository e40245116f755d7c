"""Which moment a day means."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from bandit.core.errors import InvalidInput


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
