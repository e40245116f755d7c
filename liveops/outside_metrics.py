"""What `/metrics` shows of what the service calls outside itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bandit.core.heartbeat import BreakerState
from liveops.breakers import BreakerReport
from liveops.health_metrics import Sample


def of_breakers(reports: Iterable[BreakerReport]) -> Iterator[Sample]:
    """Yield one series for each breaker and state, and its trips."""
    for report in reports:
        for state in BreakerState:
            labels = (report.name, state.value)
            yield "liveops_breaker_state", labels, float(report.state is state)
        yield "liveops_breaker_trips_total", (report.name,), report.trips
