"""Metrics of the requests that the service answers: how long each took, and what it came to."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from alerts.metric import Metric, MetricKind

LATENCY_LIMIT: Final = 0.2
"""Seconds within which 99 of 100 requests are to be answered; an edge of the histogram."""

EDGES: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15),
    LATENCY_LIMIT,
    *(0.25, 0.5, 1.0, 2.5),
)
"""Seconds up to which requests are counted together, ascending; the last are counted apart."""


class RouteGroup(StrEnum):
    """What a request is for; each address belongs to one, so that series stay few."""

    ASSIGNMENTS = "assignments"
    DECISIONS = "decisions"
    CLAIMS = "claims"
    INGEST = "ingest"
    WEBHOOKS = "webhooks"
    OPERATIONS = "operations"
    READS = "reads"
    PROBES = "probes"


WAITED_FOR: Final = (RouteGroup.ASSIGNMENTS, RouteGroup.DECISIONS, RouteGroup.CLAIMS)
"""What a bot waits for before it sends an order."""


class AnswerClass(StrEnum):
    """What a request came to, by the first digit of its status; below 400 it is served."""

    SERVED = "2xx"
    REFUSED = "4xx"
    FAILED = "5xx"


HTTP_METRICS: Final = (
    Metric(
        name="liveops_http_request_duration_seconds",
        kind=MetricKind.HISTOGRAM,
        unit="seconds",
        help=(
            "Time from the head of a request to its whole answer, in this process, on every "
            "listener; `route` is what it was for, docs/http.md."
        ),
        labels=("route",),
        absent="never",
        is_own=True,
    ),
    Metric(
        name="liveops_http_requests_total",
        kind=MetricKind.COUNTER,
        unit="requests",
        help=(
            "Requests that this process answered: `2xx` served, `4xx` refused, `5xx` failed; what "
            "was refused before it reached a route, 408 and 431, is not counted."
        ),
        labels=("route", "status"),
        absent="never",
        is_own=True,
    ),
    Metric(
        name="liveops_reading_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="For how long this process has had what it tells of the ledger here.",
        absent="never",
        is_own=True,
    ),
)
