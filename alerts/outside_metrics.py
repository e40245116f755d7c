"""Metrics of what the service calls outside itself."""

from __future__ import annotations

from typing import Final

from alerts.metric import Metric, MetricKind

_NO_BREAKER: Final = "for a breaker that nothing has named yet in this process"

_NO_CHANNEL: Final = "for a channel that was never sent anything; while the ledger does not answer"

OUTSIDE_METRICS: Final = (
    Metric(
        name="liveops_breaker_state",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether a circuit breaker of this process is in the state; of its states, one is 1.",
        labels=("breaker", "state"),
        absent=_NO_BREAKER,
        is_own=True,
    ),
    Metric(
        name="liveops_breaker_trips_total",
        kind=MetricKind.COUNTER,
        unit="trips",
        help="How often a circuit breaker opened since the process began.",
        labels=("breaker",),
        absent=_NO_BREAKER,
        is_own=True,
    ),
    Metric(
        name="liveops_notices_total",
        kind=MetricKind.COUNTER,
        unit="notices",
        help=(
            "Notices that have ended on a channel: sent, digested (told of in one notice for many) "
            "or given_up."
        ),
        labels=("channel", "state"),
        absent=_NO_CHANNEL,
    ),
    Metric(
        name="liveops_notices_waiting",
        kind=MetricKind.GAUGE,
        unit="notices",
        help="Notices that wait for a channel: to be sent (again), or for the hour's end.",
        labels=("channel",),
        absent=_NO_CHANNEL,
    ),
    Metric(
        name="liveops_notices_oldest_waiting_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="For how long the oldest of them has waited; 0 where none waits.",
        labels=("channel",),
        absent=_NO_CHANNEL,
    ),
)
