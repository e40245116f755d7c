"""ISO weeks in UTC, which reports are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from bandit.core.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """An ISO week in UTC: from Monday 00:00 up to, and without, the Monday after.

    >>> week = Week(monday=date(2026, 3, 2))
    >>> week.name, f"{week.end:%a %Y-%m-%d %H:%M}"
    ('2026-W10', 'Mon 2026-03-09 00:00')
    >>> Week(monday=date(2026, 3, 1))
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: monday: must be a Monday, found 2026-03-01
    """

    monday: date

    def __post_init__(self) -> None:
        """Refuse another day."""
        if self.monday.weekday():
            raise InvalidInput(field="monday", rule="must be a Monday", found=self.monday)

    @classmethod
    def ended_by(cls, day: date) -> Week:
        """Return the newest week that is over when `day` begins.

        >>> [Week.ended_by(date(2026, 3, day)).name for day in (8, 9, 15, 16)]
        ['2026-W09', '2026-W10', '2026-W10', '2026-W11']
        """
        return cls(monday=day - timedelta(days=day.weekday() + 7))

    @classmethod
    def named(cls, name: str) -> Week:
        """Return the week of an ISO name; raises `InvalidInput`.

        >>> Week.named("2026-W10").monday.isoformat()
        '2026-03-02'
        """
        try:
            year, number = name.split("-W")
            return cls(monday=date.fromisocalendar(int(year), int(number), 1))
        except ValueError:
            rule = "must be an ISO week such as 2026-W10"
            raise InvalidInput(field="week", rule=rule, found=repr(name)) from None

    @property
    def name(self) -> str:
        """Its ISO name."""
        year, number, _ = self.monday.isocalendar()
        return f"{year}-W{number:02}"

    @property
    def days(self) -> tuple[date, ...]:
        """Its seven days."""
        return tuple(self.monday + timedelta(days=i) for i in range(7))

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime.combine(self.monday, time(), UTC)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.start + timedelta(days=7)
