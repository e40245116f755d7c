"""Every way a request can fail, as the problem document it becomes."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from api_service import CheckedClient, outcome_body, post, row_counts, service
from ledger import open_btc, register
from sqlalchemy import Engine, create_engine

from bandit.core.errors import StaleEpoch
from bandit.service.assigning import Router
from bandit.service.routing_table import RoutingTable
from bandit.storage import locks
from bandit.storage.engine import connect
from liveops.api.bodies import JSON_BYTES_MAX

ARM = "/v1/experiments/btc/arms/eee02a74"
ASSIGN = "/v1/experiments/btc/assignments"
EARLIER = {
    "assignment_id": "01234567-89ab-8def-8123-456789abcdef",
    "decided_at": "2026-03-01T12:00:00Z",
}


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine) as client:
        yield client


def refused(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"urn:liveops:problem:{code}"
    assert problem["title"]
    return problem


def test_a_field_that_breaks_its_rule_is_named_with_the_rule(client: CheckedClient) -> None:
    body = {"unit_id": "bar 1", "instrument": "BTCUSD"}
    problem = refused(client.post(ASSIGN, json=body), 422, "invalid_input")
    assert problem["field"] == "unit_id"
    assert problem["rule"] == "must be 1 to 128 visible ASCII characters"
    assert problem["detail"] == f"unit_id: {problem['rule']}, found 'bar 1'"


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ({"instrument": "BTCUSD"}, "unit_id", "is required"),
        ({"unit_id": 7, "instrument": "BTCUSD"}, "unit_id", "must be a valid string"),
        ({"unit_id": "u", "instrument": None}, "instrument", "must be a valid string"),
        ({"unit_id": "u", "instrument": "BTCUSD", "position": "u"}, "position", "must be a UUID"),
        (
            {"unit_id": "u", "instrument": "BTCUSD", "weight": 1},
            "weight",
            "is not one of the fields unit_id, instrument, context, proposed_actions, position",
        ),
        (["u", "BTCUSD"], "body", "must be a JSON object"),
    ],
)
def test_a_body_of_another_shape_is_refused(
    client: CheckedClient, body: object, field: str, rule: str
) -> None:
    problem = refused(client.post(ASSIGN, json=body), 422, "invalid_input")
    assert (problem["field"], problem["rule"]) == (field, rule)


def test_an_unknown_name_comes_with_the_candidates(client: CheckedClient) -> None:
    problem = refused(client.get("/v1/experiments/eth"), 404, "unknown_name")
    assert problem["candidates"] == ["btc"]
    assert "field" not in problem


def test_a_prefix_of_two_policies_is_ambiguous(client: CheckedClient, engine: Engine) -> None:
    register(engine, "other", "aaaabbbb")
    problem = refused(client.get("/v1/policies/aaaa"), 409, "ambiguous_name")
    assert problem["candidates"] == ["prod", "other"]


@pytest.mark.parametrize(
    ("path", "first", "other"),
    [
        (
            "/v1/policies",
            {"name": "new", "kind": "tabnet", "sha": "bbbbbbbb"},
            {"name": "new", "kind": "tabnet", "sha": "cccccccc"},
        ),
        (
            "/v1/experiments",
            {"name": "eth", "champion": "prod", "capital": "1"},
            {"name": "eth", "champion": "prod", "capital": "2"},
        ),
        (
            ASSIGN,
            {"unit_id": "u", "instrument": "BTCUSD"},
            {"unit_id": "u", "instrument": "ETHUSD"},
        ),
    ],
)
def test_another_body_under_the_same_key_is_a_conflict(
    client: CheckedClient, engine: Engine, path: str, first: object, other: object
) -> None:
    assert client.post(path, json=first).is_success
    before = row_counts(engine)
    refused(client.post(path, json=other), 409, "conflict")
    assert row_counts(engine) == before


def test_the_champion_cannot_be_halted(client: CheckedClient) -> None:
    path = "/v1/experiments/btc/arms/prod/halt"
    refused(client.post(path, json={"reason": "drill"}), 409, "invalid_transition")


def test_a_retired_arm_does_not_come_back(client: CheckedClient) -> None:
    assert client.post(f"{ARM}/retire", json={"reason": "old"}).is_success
    refused(client.post(f"{ARM}/resume", json={"reason": "new"}), 409, "invalid_transition")


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
def test_whoever_acts_gives_a_reason(client: CheckedClient, reason: str) -> None:
    problem = refused(client.post(f"{ARM}/halt", json={"reason": reason}), 422, "invalid_input")
    assert problem["field"] == "reason"


def test_the_limit_an_allocation_would_break_is_named(
    client: CheckedClient, engine: Engine
) -> None:
    # Six challengers hold 60 %; the champion's floor leaves a seventh nothing.
    for n in range(5):
        policy = register(engine, f"challenger-{n}", f"{n}{n}{n}{n}0000")
        assert client.post("/v1/experiments/btc/arms", json={"policy": policy}).is_success
    policy = register(engine, "challenger-5", "55550000")
    response = client.post("/v1/experiments/btc/arms", json={"policy": policy})
    assert refused(response, 422, "invalid_allocation")["rule"] == "arm_minimum"


def test_a_night_under_way_elsewhere_is_not_doubled(client: CheckedClient, engine: Engine) -> None:
    with locks.use_case(engine, 1, doing="scaling btc"):
        refused(client.post("/v1/experiments/btc/scale"), 409, "lock_held_elsewhere")


def test_a_route_that_is_not_there_is_said_so(client: CheckedClient) -> None:
    refused(client.get("/v2/policies"), 404, "no_such_route")
    refused(client.post(f"{ARM}/crown", json={"reason": "best"}), 404, "no_such_route")
    refused(client.get("/v1/policies/"), 404, "no_such_route")


def test_another_method_is_told_the_lawful_ones(client: CheckedClient) -> None:
    response = client.delete("/v1/policies")
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"
    assert client.get("/v1/outcomes").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {},
    ],
)
def test_a_body_of_another_type_is_refused(
    client: CheckedClient, engine: Engine, headers: dict[str, str]
) -> None:
    before = row_counts(engine)
    body = b'{"unit_id": "u", "instrument": "BTCUSD"}'
    refused(client.post(ASSIGN, content=body, headers=headers), 415, "unsupported_media_type")
    assert row_counts(engine) == before


def test_a_body_in_declared_utf_8_is_read(client: CheckedClient) -> None:
    body = b'{"unit_id": "u", "instrument": "BTCUSD"}'
    headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    assert client.post(ASSIGN, content=body, headers=headers).status_code == 200


def test_a_body_over_its_limit_is_refused_with_or_without_its_length(client: CheckedClient) -> None:
    big = b'{"reason": "' + b"x" * JSON_BYTES_MAX + b'"}'
    refused(post(client, f"{ARM}/halt", big), 413, "body_too_large")
    chunked = client.post(
        f"{ARM}/halt",
        content=(big[i : i + 1000] for i in range(0, len(big), 1000)),
        headers={"Content-Type": "application/json"},
    )
    refused(chunked, 413, "body_too_large")


class FailingRouter(Router):
    """A router that meets the same error whatever it is asked."""

    def __init__(self, engine: Engine, error: Exception) -> None:
        super().__init__(engine)
        self._error = error

    def table(self, _: str) -> RoutingTable:
        raise self._error


def test_an_experiment_that_keeps_changing_asks_to_try_again(engine: Engine) -> None:
    router = FailingRouter(engine, StaleEpoch("experiment btc changed 5 times"))
    with service(engine, router=router) as client:
        response = client.post(ASSIGN, json={"unit_id": "u", "instrument": "BTCUSD"})
    refused(response, 503, "stale_epoch")
    assert response.headers["retry-after"] == "1"


def test_a_ledger_that_is_away_asks_to_try_again() -> None:
    nowhere = connect("postgresql+psycopg://bot:s3cret@127.0.0.1:1/ledger")
    with service(nowhere) as client:
        response = client.get("/v1/experiments/btc/report")
        away = client.post("/v1/outcomes", json=outcome_body(EARLIER))
        refused(away, 503, "ledger_unavailable")
        assert client.get("/ping").json() == {"status": "ok"}
        refused(client.get("/ready"), 503, "ledger_unavailable")
        health = client.get("/health")
    refused(response, 503, "ledger_unavailable")
    assert response.headers["retry-after"] == "1"
    assert (health.status_code, health.json()["health_status"]) == (503, "UNHEALTHY")
    assert len(health.json()["issues"]) == 1
    assert "s3cret" not in response.text + health.text


def test_a_crowd_at_the_ledger_asks_to_try_again(database_url: str) -> None:
    crowded = create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with service(crowded) as client:
        with crowded.connect():
            refused(client.get("/v1/policies"), 503, "ledger_unavailable")
        assert client.get("/v1/policies").status_code == 200
    crowded.dispose()


def test_a_ledger_with_another_schema_is_not_ready(engine: Engine) -> None:
    with service(engine) as client:
        assert client.get("/ready").status_code == 200
        assert client.get("/health").json()["health_status"] == "HEALTHY"
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
        refused(client.get("/ready"), 503, "ledger_unavailable")
        assert client.get("/health").json()["health_status"] == "UNHEALTHY"


def test_a_fault_inside_shows_nothing_of_the_inside(engine: Engine) -> None:
    router = FailingRouter(engine, RuntimeError("password=s3cret"))
    with service(engine, router=router) as client:
        body = {"unit_id": "u", "instrument": "BTCUSD"}
        # A plain client: no document promises a fault.
        response = httpx.post(client.base_url.join(ASSIGN), json=body)
        problem = refused(response, 500, "internal_error")
        assert client.get("/v1/policies").status_code == 200
    assert "s3cret" not in response.text
    assert "Traceback" not in response.text
    assert problem["detail"] == "the request failed inside the service; its log says why"
