"""Alerts about how long the service takes to answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from alerts.http_metrics import LATENCY_LIMIT, WAITED_FOR, RouteGroup
from alerts.rule import (
    STEP,
    AlertRule,
    Case,
    Component,
    Drill,
    Quantile,
    Severity,
    Source,
    duration,
    number,
)

_BUCKETS: Final = "liveops_http_request_duration_seconds_bucket"
_WINDOW: Final = timedelta(minutes=5)
"""As long as the rule waits: one slow request has left the window before it is told of."""

_P99: Final = Quantile(of=_BUCKETS, by=("route",), percent=99, window=_WINDOW)


def http_rules() -> tuple[AlertRule, ...]:
    """Return the alerts about answers."""
    return (_latency_high(),)


def _latency_high() -> AlertRule:
    routes = "|".join(group.value for group in WAITED_FOR)
    limit = number(LATENCY_LIMIT)
    return AlertRule(
        name="LatencyHigh",
        component=Component.SERVICE,
        severity=Severity.WARNING,
        reads=(_P99,),
        expression=f'{_P99}{{route=~"{routes}"}} > {limit}',
        threshold=(
            f"99 of 100 requests take > {limit} s, of {duration(_WINDOW)}; what bots wait for"
        ),
        wait=_WINDOW,
        summary="Bots wait for their answers.",
        description=(
            "Of 100 requests for {{ $labels.route }} the slowest takes "
            '{{ printf "%.3g" $value }} s or more.'
        ),
        sources=(
            Source(document="003", quote="- High latency (p99 > 200ms)"),
            Source(document="003", quote="- Latency p99 > 200ms"),
        ),
        choice="of what a bot waits for before an order; reports and imports may take longer",
        pair="SystemDowntime, ReplicaDown; without requests there is no latency",
        drill=Drill(
            labels={"route": "assignments"},
            description="Of 100 requests for assignments the slowest takes 0.202 s or more.",
            cases=_waits(),
        ),
    )


def _series(
    route: RouteGroup, *within: str, instance: str = "", job: str = ""
) -> Mapping[str, str]:
    """Return the buckets of a route: how many ended within 0.15, 0.2 and 0.25 s, and how many."""
    edges = ("0.15", number(LATENCY_LIMIT), "0.25", "+Inf")
    more = "".join(
        f',{name}="{value}"' for name, value in (("instance", instance), ("job", job)) if value
    )
    return {
        f'{_BUCKETS}{{route="{route.value}",le="{edge}"{more}}}': values
        for edge, values in zip(edges, within, strict=True)
    }


def _waits() -> tuple[Case, ...]:
    """Return requests of which too many are slow, and what is none of that.

    Of 2000 a scrape, 1980 lie within the quantile: with 1979 within 0.2 s and all within 0.25 s it
    is 0.2 + 0.05 / 21 = 0.2024 s.
    """
    many = RouteGroup.ASSIGNMENTS
    slow = ("0+1900x40", "0+1979x40", "0+2000x40", "0+2000x40")
    right = ("0+1900x40", "0+1980x40", "0+2000x40", "0+2000x40")
    # The first scrape has no rate yet.
    fires = {STEP + _WINDOW - STEP: False, STEP + _WINDOW: True, timedelta(minutes=15): True}
    never = {n * _WINDOW: False for n in range(4)}
    once = "0 0 1x38"
    half = ("0+950x40", "0+990x40", "0+1000x40", "0+1000x40")
    slower = ("0+950x40", "0+989x40", "0+1000x40", "0+1000x40")
    ends = ("0+1900x20 stale", "0+1979x20 stale", "0+2000x20 stale", "0+2000x20 stale")
    return (
        Case(name="21 of 2000 are slow", series=_series(many, *slow), fires=fires),
        Case(name="20 of 2000 are slow", series=_series(many, *right), fires=never),
        Case(
            name="of other routes",
            series={
                name: value
                for group in RouteGroup
                if group not in WAITED_FOR
                for name, value in _series(group, *slow).items()
            },
            fires=never,
        ),
        Case(name="of another job", series=_series(many, *slow, job="other"), fires=never),
        Case(
            name="one slow request alone",
            series=_series(many, "0x40", "0x40", once, once),
            fires={n * STEP: False for n in range(30)},
            only_waits=True,
        ),
        Case(
            name="of two replicas together, and told of once",
            series={
                **_series(many, *half, instance="a"),
                **_series(many, *slower, instance="b"),
            },
            fires=fires,
        ),
        Case(name="no requests", series=_series(many, *["5x40"] * 4), fires=never),
        Case(name="absent", series={}, fires=never),
        Case(
            name="NaN",
            series=_series(many, *[" ".join(["NaN"] * 40)] * 4),
            fires=never,
        ),
        Case(
            name="slow, then gone",
            series=_series(many, *ends),
            fires={timedelta(minutes=10): True, timedelta(minutes=16): False},
        ),
    )
