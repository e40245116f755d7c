"""Requests are counted where their time lies between the edges."""

from __future__ import annotations

import threading

import pytest

from alerts.http_metrics import EDGES, LATENCY_LIMIT, AnswerClass, RouteGroup
from liveops.request_times import RequestTimes, class_of, group_of


def test_what_takes_just_the_limit_is_within_it() -> None:
    times = RequestTimes()
    for seconds in (LATENCY_LIMIT, LATENCY_LIMIT + 1e-9, 9.0):
        times.count(RouteGroup.CLAIMS, status=200, seconds=seconds)
    counts = times.read()[RouteGroup.CLAIMS].counts
    limit = EDGES.index(LATENCY_LIMIT)
    assert sum(counts[: limit + 1]) == 1
    assert (counts[limit + 1], counts[-1]) == (1, 1)
    assert times.read()[RouteGroup.READS].counts == [0] * (len(EDGES) + 1)


def test_edges_ascend_and_have_the_limit() -> None:
    assert list(EDGES) == sorted(set(EDGES))
    assert LATENCY_LIMIT == 0.2


def test_threads_lose_no_request() -> None:
    times, n = RequestTimes(), 5_000

    def ask() -> None:
        for _ in range(n):
            times.count(RouteGroup.READS, status=404, seconds=0.25)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = times.read()[RouteGroup.READS]
    assert sum(found.counts) == found.answers[AnswerClass.REFUSED] == 4 * n
    assert found.seconds == n


@pytest.mark.parametrize(
    ("method", "path", "group"),
    [
        ("POST", "/v1/experiments/{experiment}/assignments", RouteGroup.ASSIGNMENTS),
        ("POST", "/v1/experiments/btc/decide", RouteGroup.DECISIONS),
        ("POST", "/v1/assignments/7/claim", RouteGroup.CLAIMS),
        ("POST", "/v1/outcomes/7/revisions", RouteGroup.INGEST),
        ("POST", "/v1/marks", RouteGroup.INGEST),
        ("POST", "/v1/webhooks/alertmanager", RouteGroup.WEBHOOKS),
        ("POST", "/v1/experiments/btc/assignments/more", RouteGroup.OPERATIONS),
        ("DELETE", "/v1/experiments/btc/assignments", RouteGroup.OPERATIONS),
        ("HEAD", "/v1/experiments", RouteGroup.READS),
        ("GET", "/metrics", RouteGroup.PROBES),
    ],
)
def test_each_address_belongs_to_one_group(method: str, path: str, group: RouteGroup) -> None:
    assert group_of(method, path) is group


def test_statuses_have_three_classes() -> None:
    assert {class_of(status) for status in range(100, 600)} == set(AnswerClass)
