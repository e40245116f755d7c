"""What a scrape costs: series, and statements of the ledger; and the requests it tells of."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx
import pytest
from api_service import application, service
from ledger import NOON, UNGUARDED, feed, open_btc
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from psycopg import Error, OperationalError
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from told_ledger import CHALLENGER, told_service

from alerts.arm_metrics import ARM_METRICS, SERIES_MAX
from alerts.catalogue import CATALOGUE
from alerts.http_metrics import AnswerClass, RouteGroup
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import PolicyName
from bandit.service import experiments
from liveops.api.application import create_probe_api
from liveops.api.server import serving
from liveops.clock import VirtualClock
from liveops.exposition import Exposition
from liveops.metrics import FRESH

COUNT = "liveops_http_request_duration_seconds_count"
RESULTS = "liveops_http_requests_total"


def samples(text: str) -> list[Sample]:
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def counted(found: list[Sample], name: str) -> dict[tuple[str, ...], float]:
    return {tuple(s.labels.values()): s.value for s in found if s.name == name and s.value}


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that the ledger is asked meanwhile."""
    asked: list[str] = []

    def note(*arguments: object) -> None:
        asked.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_no_arm_has_more_series_than_the_catalogue_lets_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the fullest arm there is: with a backtest, nights, a budget and claims behind it."""
    with told_service(engine, monkeypatch) as client:
        found = samples(client.get("/metrics").text)
    per_arm = Counter(s.labels["policy"] for s in found if "policy" in s.labels)
    assert per_arm.keys() == {"prod", CHALLENGER}
    assert max(per_arm.values()) <= SERIES_MAX
    told = Counter((s.labels["policy"], s.name) for s in found if "policy" in s.labels)
    most = {metric.name: metric.each for metric in ARM_METRICS}
    assert [key for key, n in told.items() if n > most.get(key[1], 1)] == []
    assert {name for _, name in told} == {name for m in ARM_METRICS for name in m.series}


def test_only_metrics_of_arms_name_a_policy() -> None:
    others = [metric for metric in CATALOGUE if metric not in ARM_METRICS]
    assert [m.name for m in others for labels in m.series.values() if "policy" in labels] == []


def test_a_policy_that_is_retired_is_gone_at_the_next_scrape(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        before = {s.labels.get("policy") for s in samples(client.get("/metrics").text)}
        experiments.change_arm(
            engine,
            name="btc",
            policy=PolicyName(CHALLENGER),
            verb=ArmVerb.RETIRE,
            reason="old",
            now=NOON,
            actor="test",
        )
        clock.advance_to(NOON + timedelta(seconds=15))
        after = {s.labels.get("policy") for s in samples(client.get("/metrics").text)}
    assert before == {None, "prod", CHALLENGER}
    assert after == {None, "prod"}


def test_a_scrape_that_was_read_ahead_of_asks_the_ledger_nothing(engine: Engine) -> None:
    open_btc(engine, rules=UNGUARDED)
    clock = VirtualClock(feed(engine, CHALLENGER, ["0.02", "-0.01"]))
    exposition = Exposition(application(engine, clock=clock))
    exposition.read_ahead("")
    clock.advance_to(clock.now() + FRESH / 2)
    with statements(engine) as asked:
        answer = exposition.answer("", encodings="")
    assert asked == []
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.body.decode())
    assert counted(found, "liveops_arm_trades_total") == {("btc", CHALLENGER): 2}
    assert counted(found, "liveops_reading_age_seconds") == {(): FRESH.total_seconds() / 2}

    # What nobody came for in time is read anew.
    feed(engine, CHALLENGER, ["0.02"], prefix="later", now=clock.now())
    clock.advance_to(clock.now() + timedelta(hours=1))
    with statements(engine) as asked:
        found = samples(exposition.answer("", encodings="").body.decode())
    assert asked
    assert counted(found, "liveops_arm_trades_total") == {("btc", CHALLENGER): 3}


def test_a_reading_ahead_that_failed_serves_no_longer_than_any_other(engine: Engine) -> None:
    clock = VirtualClock(NOON)
    app = application(engine, clock=clock)
    exposition = Exposition(app)

    def slow(*_: object) -> None:
        clock.advance_to(clock.now() + timedelta(seconds=1))

    exposition.read_ahead("")
    reader = exposition._ledger
    reader.takes = timedelta(seconds=10)  # of a ledger that is slow, as it is before it fails

    def refuse(*_: object) -> None:
        raise DBAPIError.instance("", None, OperationalError("gone"), Error)

    event.listen(engine, "before_cursor_execute", refuse)
    try:
        exposition.read_ahead("")
    finally:
        event.remove(engine, "before_cursor_execute", refuse)
    assert reader.takes == timedelta(seconds=10)
    assert up(exposition) == 0
    clock.advance_to(clock.now() + FRESH)
    assert up(exposition) == 1, "it was read anew"


def up(exposition: Exposition) -> float:
    found = samples(exposition.answer("", encodings="").body.decode())
    return next(s.value for s in found if s.name == "liveops_up")


def test_the_ledger_is_read_shortly_before_a_scraper_comes_again(engine: Engine) -> None:
    exposition = Exposition(application(engine, clock=VirtualClock(NOON)))
    assert exposition.ahead("prometheus", at=100.0) is None
    # Nothing was read yet, so that a reading takes no time: a tenth of a second is kept in hand.
    assert exposition.ahead("prometheus", at=115.0) == pytest.approx(14.9)
    assert exposition.ahead("another", at=119.0) is None
    assert exposition.ahead("prometheus", at=130.0) == pytest.approx(14.9)
    assert exposition.ahead("another", at=134.0) == pytest.approx(14.9)
    # Somebody who only looks has no rhythm.
    assert exposition.ahead("prometheus", at=130.5) is None
    assert exposition.ahead("prometheus", at=900.0) is None
    for n in range(20):
        assert exposition.ahead(f"passer-by {n}", at=910.0) is None
    assert exposition.ahead("prometheus", at=915.0) is None, "forgotten among so many"


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_who_takes_gzip_is_sent_the_same_packed(engine: Engine, accept: str) -> None:
    open_btc(engine)
    exposition = Exposition(application(engine, clock=VirtualClock(NOON)))
    plain = exposition.answer(accept, encodings="identity")
    for _ in range(2):
        packed = exposition.answer(accept, encodings="gzip, deflate")
        assert packed.headers == plain.headers | {"Content-Encoding": "gzip"}
        assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 4
    assert plain.body.count(b"# EOF") == (1 if accept else 0)


def test_every_request_is_counted_on_every_listener(engine: Engine) -> None:
    open_btc(engine)
    app = application(engine, clock=VirtualClock(NOON))
    body = {"unit_id": "u-1", "instrument": "BTCUSD"}
    with (
        serving(app, host="127.0.0.1", port=0) as public,
        serving(app, host="127.0.0.1", port=0, make=create_probe_api) as health,
        httpx.Client(base_url=public) as client,
    ):
        made = client.post("/v1/experiments/btc/assignments", json=body)
        assert client.post("/v1/experiments/eth/assignments", json=body).status_code == 404
        assert client.post("/v1/experiments/btc/assignments", content="{").status_code == 415
        assert client.post("/v1/experiments/btc/decide", json={}).status_code == 422
        claimed = client.post(f"/v1/assignments/{made.json()['assignment_id']}/claim")
        assert claimed.status_code == 200
        assert client.post("/v1/heartbeats", json={}).status_code == 422
        assert client.post("/v1/webhooks/alertmanager", json={}).status_code == 422
        assert client.post("/v1/experiments/btc/scale").status_code == 200
        assert client.get("/v1/experiments/btc/report").status_code == 200
        assert client.get("/nowhere").status_code == 404
        httpx.get(f"{health}/ping")
        found = samples(httpx.get(f"{health}/metrics").text)
    assert counted(found, RESULTS) == {
        ("assignments", "2xx"): 1,
        ("assignments", "4xx"): 2,
        ("decisions", "4xx"): 1,
        ("claims", "2xx"): 1,
        ("ingest", "4xx"): 1,
        ("webhooks", "4xx"): 1,
        ("operations", "2xx"): 1,
        ("reads", "2xx"): 1,
        ("reads", "4xx"): 1,
        ("probes", "2xx"): 1,
    }
    times = {s.labels["route"]: s.value for s in found if s.name == COUNT}
    assert times == {
        "assignments": 3,
        "decisions": 1,
        "claims": 1,
        "ingest": 1,
        "webhooks": 1,
        "operations": 1,
        "reads": 2,
        "probes": 1,
    }


def test_whatever_is_asked_the_series_of_requests_stay_as_many(engine: Engine) -> None:
    names = {COUNT, RESULTS, "liveops_http_request_duration_seconds_bucket"}
    with service(engine) as client:
        before = [s.name for s in samples(client.get("/metrics").text) if s.name in names]
        for n in range(30):
            client.request("PUT", f"/v1/experiments/{n}/anything")
        after = [s.name for s in samples(client.get("/metrics").text) if s.name in names]
    assert Counter(before) == Counter(after)
    assert before.count(RESULTS) == len(RouteGroup) * len(AnswerClass)


def test_what_fails_inside_is_counted_as_failed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(experiments, "listed", breaks)
    with service(engine) as client, httpx.Client(base_url=client.base_url) as other:
        assert other.get("/v1/experiments").status_code == 500
        monkeypatch.undo()
        found = samples(client.get("/metrics").text)
    assert counted(found, RESULTS) == {("reads", "5xx"): 1}
