"""How long requests took and what they came to, counted for every listener of the process."""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from alerts.http_metrics import EDGES, AnswerClass, RouteGroup

_PROBES: Final = frozenset({"/ping", "/ready", "/health", "/status", "/metrics"})
_POSTED: Final = (
    (RouteGroup.ASSIGNMENTS, re.compile(r"/v1/experiments/[^/]+/assignments")),
    (RouteGroup.DECISIONS, re.compile(r"/v1/experiments/[^/]+/decide")),
    (RouteGroup.CLAIMS, re.compile(r"/v1/assignments/[^/]+/claim")),
    (RouteGroup.INGEST, re.compile(r"/v1/(outcomes|shadow-outcomes|marks|heartbeats)(/.*)?")),
    (RouteGroup.WEBHOOKS, re.compile(r"/v1/webhooks/.+")),
)


def group_of(method: str, path: str) -> RouteGroup:
    """Return what a request is for; an address that there is not is a read or an operation.

    >>> group_of("POST", "/v1/experiments/btc/assignments").value
    'assignments'
    >>> group_of("GET", "/v1/experiments/btc/report").value
    'reads'
    """
    if path in _PROBES:
        return RouteGroup.PROBES
    if method != "POST":
        return RouteGroup.READS if method in ("GET", "HEAD") else RouteGroup.OPERATIONS
    found = (group for group, pattern in _POSTED if pattern.fullmatch(path))
    return next(found, RouteGroup.OPERATIONS)


def class_of(status: int) -> AnswerClass:
    """Return what a status says a request came to.

    >>> [class_of(status).value for status in (201, 304, 409, 503)]
    ['2xx', '2xx', '4xx', '5xx']
    """
    if status >= 500:
        return AnswerClass.FAILED
    return AnswerClass.REFUSED if status >= 400 else AnswerClass.SERVED


@dataclass(slots=True)
class GroupTimes:
    """The requests of one group: how many ended between two edges, their seconds, their answers.

    `counts` has one more entry than there are edges, for what took longer than the last.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    seconds: float = 0.0
    answers: dict[AnswerClass, int] = field(default_factory=lambda: dict.fromkeys(AnswerClass, 0))


class RequestTimes:
    """Counts requests; listeners in threads of their own count in one.

    >>> times = RequestTimes()
    >>> times.count(RouteGroup.READS, status=200, seconds=0.2)
    >>> times.read()[RouteGroup.READS].counts[EDGES.index(0.2)]
    1
    """

    def __init__(self) -> None:
        """Begin with nothing in any group."""
        self._lock = threading.Lock()
        self._of = {group: GroupTimes() for group in RouteGroup}

    def count(self, group: RouteGroup, *, status: int, seconds: float) -> None:
        """Count a request that took so long and ended with `status`."""
        times, edge = self._of[group], bisect_left(EDGES, seconds)
        with self._lock:
            times.counts[edge] += 1
            times.seconds += seconds
            times.answers[class_of(status)] += 1

    def read(self) -> Mapping[RouteGroup, GroupTimes]:
        """Return what was counted so far."""
        with self._lock:
            return {
                group: GroupTimes(list(times.counts), times.seconds, dict(times.answers))
                for group, times in self._of.items()
            }
