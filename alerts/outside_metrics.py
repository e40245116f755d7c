"""Metrics of what the service calls outside itself."""

from __future__ import annotations

from typing import Final

from alerts.metric import Metric, MetricKind

_NO_BREAKER: Final = "for a breaker that nothing has named yet in this process"

OUTSIDE_METRICS: Final = (
    Metric(
        name="liveops_breaker_state",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether a circuit breaker of this process is in the state; of its states, one is 1.",
        labels=("breaker", "state"),
        absent=_NO_BREAKER,
    ),
    Metric(
        name="liveops_breaker_trips_total",
        kind=MetricKind.COUNTER,
        unit="trips",
        help="How often a circuit breaker opened since the process began.",
        labels=("breaker",),
        absent=_NO_BREAKER,
    ),
)
