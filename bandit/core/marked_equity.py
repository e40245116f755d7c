"""How deep an account stood while positions were open, as far as a trade log can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from bandit.core.equity import checked_capital, checked_result
from bandit.core.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPosition:
    """A closed position: what it earned, and the money it stood at when it stood worst.

    Nobody closes above the worst, nor opens below it: `worst` is never above `result`, nor above 0.

    >>> opened = datetime.fromisoformat("2026-01-01T00:00:00Z")
    >>> HeldPosition(opened_at=opened, closed_at=opened, result=-3.0, worst=-1.0).worst
    -3.0
    """

    opened_at: datetime
    closed_at: datetime
    result: float
    worst: float

    def __post_init__(self) -> None:
        for field in ("opened_at", "closed_at"):
            if getattr(self, field).utcoffset() != timedelta(0):
                found = getattr(self, field)
                raise InvalidInput(field=field, rule="must be aware UTC", found=found)
        if self.opened_at > self.closed_at:
            rule = f"must not be after {self.closed_at}"
            raise InvalidInput(field="opened_at", rule=rule, found=self.opened_at)
        checked_result(self.result)
        checked_result(self.worst, field="worst")
        object.__setattr__(self, "worst", min(self.worst, self.result, 0.0))


class MarkedDrawdown(NamedTuple):
    """Bounds of the deepest fall of marked equity, in percent of the peak of closed equity.

    A log has the worst of each position, not when it stood there. `low_percent` marks one position
    at a time, the others at their entry; `high_percent` all that are open at their worst at once.
    """

    low_percent: float
    high_percent: float


class _Event(NamedTuple):
    """In the order that decides between events of one instant."""

    at: datetime
    turn: int  # what was open before closes first, then others open, then those close that just did
    closes: bool
    position: HeldPosition


def marked_drawdown(
    positions: Iterable[HeldPosition], *, starting_capital: float
) -> MarkedDrawdown:
    """The marked drawdown that positions allow to conclude; those closed together keep their order.

    Gains that a position gave back before it closed raise no peak: a log does not tell them.

    >>> day = [datetime.fromisoformat(f"2026-01-0{d}T00:00:00Z") for d in range(1, 5)]
    >>> one = HeldPosition(opened_at=day[0], closed_at=day[2], result=1.0, worst=-10.0)
    >>> two = HeldPosition(opened_at=day[1], closed_at=day[3], result=1.0, worst=-20.0)
    >>> bounds = marked_drawdown([one, two], starting_capital=100.0)
    >>> round(bounds.low_percent, 4), bounds.high_percent
    (19.802, 30.0)
    """
    equity = peak = checked_capital(starting_capital)
    at_worst = low = high = 0.0
    for event in _events(positions):
        worst = event.position.worst
        if event.closes:
            # Whenever it stood worst, the peak was no higher than now.
            low = max(low, -100.0 * worst / peak)
            equity += event.position.result
            peak = max(peak, equity)
            low = max(low, 100.0 * (peak - equity) / peak)
        at_worst -= worst if event.closes else -worst
        high = max(high, 100.0 * (peak - equity - at_worst) / peak)
    return MarkedDrawdown(low_percent=low, high_percent=max(low, high))


def _events(positions: Iterable[HeldPosition]) -> list[_Event]:
    events = []
    for position in positions:
        instant = position.opened_at == position.closed_at
        events.append(_Event(position.opened_at, 1, False, position))
        events.append(_Event(position.closed_at, 2 if instant else 0, True, position))
    return sorted(events, key=lambda event: event[:2])
