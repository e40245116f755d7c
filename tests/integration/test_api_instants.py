"""A time in a body is an instant of UTC, or is refused by field and rule (attacks T1 to T8)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from api_service import CheckedClient, ndjson, outcome_body, post, row_counts, service
from ledger import NOON, open_btc
from postgres_server import PostgresServer
from sqlalchemy import Engine

from bandit.storage.engine import connect

FORM = "must be an RFC 3339 time with its offset, such as 2026-03-01T12:00:00Z"
BOUNDS = "must lie in 2000-01-01 to 2100-01-01 UTC"
FUTURE = "must not lie more than 5 minutes after now 2026-03-01T12:00:00+00:00"
EARLY = "must not be before the decision at 2026-03-01T12:00:00+00:00"
AHEAD = "must not be after sent_at"
BACKWARDS = "must not be before opened_at 2026-03-01T12:00:00+00:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service that all bodies go to, with one decision that is open and one that is not."""

    engine: Engine
    client: CheckedClient
    open: dict[str, Any]
    closed: dict[str, Any]


@pytest.fixture(scope="module")
def target(postgres_server: PostgresServer) -> Iterator[Target]:
    with postgres_server.database() as url:
        engine = connect(url)
        open_btc(engine)
        with service(engine) as client:
            path = "/v1/experiments/btc/assignments"
            made = [
                client.post(path, json={"unit_id": unit, "instrument": "BTCUSD"}).json()
                for unit in ("open", "closed")
            ]
            assert client.post("/v1/outcomes", json=outcome_body(made[1])).status_code == 201
            yield Target(engine=engine, client=client, open=made[0], closed=made[1])
        engine.dispose()


def alone(path: str, body: dict[str, Any], target: Target) -> httpx.Response:
    return target.client.post(path.format(**target.closed), json=body)


def as_ndjson(path: str, body: dict[str, Any], target: Target) -> httpx.Response:
    return post(target.client, path, ndjson(body), "x-ndjson")


def in_array(path: str, body: dict[str, Any], target: Target) -> httpx.Response:
    return target.client.post(path, json=[body])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A field of a body that holds a time; `model` is what OpenAPI calls the body."""

    model: str
    field: str
    path: str
    send: Callable[[str, dict[str, Any], Target], httpx.Response] = alone

    def __str__(self) -> str:
        return f"{self.path} {self.field} {self.send.__name__}"

    @property
    def named(self) -> str:
        """What a problem calls the time."""
        return "candles.BTCUSDT" if self.field == "candles" else self.field

    def refused(self, target: Target, value: object) -> dict[str, Any]:
        """Send a body that is lawful but for `value`, and return the problem it was answered."""
        told = {"BTCUSDT": value} if self.field == "candles" else value
        answer = self.send(self.path, self.body(target) | {self.field: told}, target)
        if self.send is not alone:
            assert answer.status_code == 200
            [line] = [json.loads(answer.text)] if self.send is as_ndjson else answer.json()
            assert line["status"] == line["problem"]["status"]
            return line["problem"]
        problem = answer.json()
        assert answer.status_code == problem["status"]
        return problem

    def body(self, target: Target) -> dict[str, Any]:
        noon = NOON.isoformat()
        match self.model:
            case "NewPolicy":
                return {"name": "new", "kind": "tabnet", "sha": "dddddddd", "data_cutoff": noon}
            case "NewFallback":
                known = {"unit_id": "f", "instrument": "BTCUSD", "reason": "no_answer"}
                return known | {"decided_at": noon}
            case "NewMark":
                known = {"assignment_id": target.open["assignment_id"], "unrealised_pnl": "1"}
                return known | {"marked_at": noon}
            case "NewHeartbeat":
                known = {"bot": "alpha", "running": True, "api_connected": True, "candles": {}}
                known |= {"api_errors_total": 0, "open_positions": 0}
                return known | {"sent_at": noon, "started_at": noon}
            case "NewRevision":
                return outcome_body(target.closed, pnl="5", reason="statement")
            case "NewShadowOutcome":
                return outcome_body(target.open, pnl=..., policy="prod")
            case _:
                return outcome_body(target.open)


OUTCOMES, BATCH, MARKS = "/v1/outcomes", "/v1/outcomes/batch", "/v1/marks"
ON_PAPER = "/v1/shadow-outcomes"
REVISIONS = "/v1/outcomes/{assignment_id}/revisions"
PLACES = [
    Place(model="NewPolicy", field="data_cutoff", path="/v1/policies"),
    Place(model="NewFallback", field="decided_at", path="/v1/experiments/btc/fallbacks"),
    Place(model="NewMark", field="marked_at", path=MARKS),
    Place(model="NewMark", field="marked_at", path=MARKS, send=in_array),
    *(
        Place(model="NewHeartbeat", field=field, path="/v1/heartbeats")
        for field in ("sent_at", "started_at", "candles", "last_trade_at")
    ),
    *(
        Place(model=model, field=field, path=path, send=send)
        for field in ("opened_at", "closed_at")
        for model, path, send in (
            ("NewOutcome", OUTCOMES, alone),
            ("NewOutcome", BATCH, as_ndjson),
            ("NewOutcome", BATCH, in_array),
            ("NewRevision", REVISIONS, alone),
            ("NewShadowOutcome", ON_PAPER, alone),
            ("NewShadowOutcome", f"{ON_PAPER}/batch", as_ndjson),
            ("NewShadowOutcome", f"{ON_PAPER}/batch", in_array),
        )
    ),
]

NO_INSTANTS: dict[str, object] = {
    "naive": "2026-03-01T12:00:00",
    "absent in Berlin, naive": "2027-03-28T02:30:00",
    "twice in Berlin, naive": "2026-10-25T02:30:00",
    "zone in brackets": "2026-10-25T02:30:00+02:00[Europe/Berlin]",
    "zone by name": "2026-10-25T02:30:00 Europe/Berlin",
    "leap second": "2016-12-31T23:59:60Z",
    "hour 24": "2026-03-01T24:00:00Z",
    "no such day": "2026-02-29T12:00:00Z",
    "offset of a day": "2026-03-01T12:00:00+24:00",
    "offset of sixty minutes": "2026-03-01T12:00:00+00:60",
    "offset without colon": "2026-03-01T12:00:00+0000",
    "lower case": "2026-03-01t12:00:00z",
    "space": "2026-03-01 12:00:00Z",
    "comma": "2026-03-01T12:00:00,5Z",
    "nanoseconds": "2026-03-01T12:00:00.123456789Z",
    "date": "2026-03-01",
    "week": "2026-W09-7T12:00:00Z",
    "year 294276": "294276-12-31T23:59:59Z",
    "negative year": "-0001-03-01T12:00:00Z",
    "year 0": "0000-03-01T12:00:00Z",
    "infinity": "infinity",
    "minus infinity": "-infinity",
    "now": "now",
    "empty": "",
    "digits of another script": "\u0662026-03-01T12:00:00Z",
    "line feed": "2026-03-01T12:00:00Z\n",
    "seconds": 1_772_366_400,
    "milliseconds": 1_772_366_400_000.5,
    "true": True,
    "list": ["2026-03-01T12:00:00Z"],
}
OUT_OF_BOUNDS = {
    "last of 1999": "1999-12-31T23:59:59.999999Z",
    "2000 by its offset alone": "2000-01-01T00:59:59+01:00",
    "first of 2100": "2100-01-01T00:00:00Z",
    "2099 by its offset alone": "2099-12-31T23:30:00-00:30",
    "before year 1": "0001-01-01T00:00:00+14:00",
    "after year 9999": "9999-12-31T23:59:59-14:00",
}
# Where it may stand in time: of the past, the present, and other times of its body.
OUT_OF_PLACE = {
    "data_cutoff": {"12:05:00.000001": FUTURE},
    "decided_at": {"12:05:00.000001": FUTURE},
    "marked_at": {"12:05:00.000001": FUTURE, "11:54:59.999999": EARLY},
    "sent_at": {"12:05:00.000001": FUTURE, "11:59:59.999999": AHEAD},
    "started_at": {"12:00:00.000001": AHEAD},
    "candles": {"12:05:00.000001": FUTURE},
    "last_trade_at": {"12:05:00.000001": FUTURE},
    "opened_at": {"11:54:59.999999": EARLY},
    "closed_at": {"12:05:00.000001": FUTURE, "11:59:59.999999": BACKWARDS},
}
# An hour, a day and 400 days on, the end of 32 bits, and the last lawful moment.
MUCH_LATER = (
    "2026-03-01T13:00:00Z",
    "2026-03-02T12:00:00Z",
    "2027-04-05T12:00:00Z",
    "2038-01-19T03:14:08Z",
    "2099-12-31T23:59:59.999999Z",
)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_is_no_instant_is_refused_by_field_and_rule(target: Target, place: Place) -> None:
    before = row_counts(target.engine)
    answered = {name: place.refused(target, value) for name, value in NO_INSTANTS.items()}
    answered |= {name: place.refused(target, value) for name, value in OUT_OF_BOUNDS.items()}
    assert {name: (p["status"], p["field"], p["rule"]) for name, p in answered.items()} == {
        **dict.fromkeys(NO_INSTANTS, (422, place.named, FORM)),
        **dict.fromkeys(OUT_OF_BOUNDS, (422, place.named, BOUNDS)),
    }
    assert row_counts(target.engine) == before


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_instant_that_cannot_have_been_is_refused(target: Target, place: Place) -> None:
    before = row_counts(target.engine)
    for time, rule in OUT_OF_PLACE[place.field].items():
        problem = place.refused(target, f"2026-03-01T{time}Z")
        # A heartbeat that began after it was sent is told as the beginning.
        field = "started_at" if rule == AHEAD else place.named
        assert (problem["status"], problem["field"], problem["rule"]) == (422, field, rule)
    for value in MUCH_LATER:
        problem = place.refused(target, value)
        # An opening after its end is told as the end before its opening.
        backwards = place.field == "opened_at"
        assert problem["field"] == ("closed_at" if backwards else place.named)
        begins = {"opened_at": "must not be before opened_at", "started_at": AHEAD}
        assert problem["rule"].startswith(begins.get(place.field, FUTURE))
    assert row_counts(target.engine) == before


def test_every_time_in_a_body_has_its_place_here(target: Target) -> None:
    document = target.client.document
    asked = json.dumps([route.get("requestBody") for route in _routes(document)])
    bodies = {name for name in document["components"]["schemas"] if f"schemas/{name}" in asked}
    times = {
        (name, field)
        for name in bodies
        for field, schema in document["components"]["schemas"][name]["properties"].items()
        if "date-time" in json.dumps(schema)
    }
    assert {(place.model, place.field) for place in PLACES} == times


def _routes(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for routes in document["paths"].values():
        yield from routes.values()


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    """The control: lawful times of the same fields, on a ledger of their own."""
    open_btc(engine)
    with service(engine) as client:
        yield client


@pytest.mark.parametrize(
    "noon",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00.000000-00:00",
        "2026-03-01T13:00:00+01:00",
        "2026-03-02T11:59:00+23:59",
    ],
)
def test_one_instant_in_every_offset_is_one_body(client: CheckedClient, noon: str) -> None:
    body = {"unit_id": "u", "instrument": "BTCUSD"}
    made = client.post("/v1/experiments/btc/assignments", json=body).json()
    mark = {"assignment_id": made["assignment_id"], "unrealised_pnl": "1", "marked_at": noon}
    assert client.post(MARKS, json=mark).json()["marked_at"] == NOON.isoformat()
    told = outcome_body(made, opened_at=noon, closed_at=noon)
    assert client.post(OUTCOMES, json=told).status_code == 201
    assert client.post(OUTCOMES, json=outcome_body(made)).status_code == 200
    policy = {"name": "new", "kind": "tabnet", "sha": "dddddddd", "data_cutoff": noon}
    assert client.post("/v1/policies", json=policy).json()["data_cutoff"] == NOON.isoformat()
    told = {"unit_id": "f", "instrument": "BTCUSD", "reason": "no_answer", "decided_at": noon}
    first, again = (client.post("/v1/experiments/btc/fallbacks", json=told) for _ in range(2))
    assert first.json()["decided_at"] == NOON.isoformat()
    assert first.content == again.content


def test_five_minutes_are_what_two_clocks_may_differ(client: CheckedClient) -> None:
    ahead = (NOON + timedelta(minutes=5)).isoformat()
    policy = {"name": "new", "kind": "tabnet", "sha": "dddddddd", "data_cutoff": ahead}
    assert client.post("/v1/policies", json=policy).status_code == 201
    told = {"unit_id": "f", "instrument": "BTCUSD", "reason": "no_answer", "decided_at": ahead}
    made = client.post("/v1/experiments/btc/fallbacks", json=told).json()
    assert client.post(OUTCOMES, json=outcome_body(made)).status_code == 201
