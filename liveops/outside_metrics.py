"""What `/metrics` shows of what the service calls outside itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from bandit.core.heartbeat import BreakerState
from bandit.core.notices import DeliveryState
from bandit.service.noticing import ChannelCount
from liveops.breakers import BreakerReport
from liveops.health_metrics import Sample


def of_breakers(reports: Iterable[BreakerReport]) -> Iterator[Sample]:
    """Yield one series for each breaker and state, and its trips."""
    for report in reports:
        for state in BreakerState:
            labels = (report.name, state.value)
            yield "liveops_breaker_state", labels, float(report.state is state)
        yield "liveops_breaker_trips_total", (report.name,), report.trips


def of_notices(counts: Iterable[ChannelCount], *, now: datetime) -> Iterator[Sample]:
    """Yield what ended and what waits, a channel each."""
    open_states = (DeliveryState.PENDING, DeliveryState.HELD)
    for count in counts:
        for state, number in count.by_state.items():
            if state not in open_states:
                yield "liveops_notices_total", (count.channel, state.value), number
        labels, since = (count.channel,), count.waits_since
        waiting = sum(count.by_state[state] for state in open_states)
        yield "liveops_notices_waiting", labels, waiting
        age = 0.0 if since is None else max((now - since).total_seconds(), 0.0)
        yield "liveops_notices_oldest_waiting_seconds", labels, age
