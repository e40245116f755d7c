"""Close orders over HTTP: who may give them, what bots are told, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from api_service import CheckedClient, outcome_body, post, service
from ledger import NOON, count, open_btc
from sqlalchemy import Engine

from bandit.service import closing
from config.scopes import KeyScope
from liveops.api.access import digest_of
from liveops.clock import VirtualClock

CLOSE_ALL = "/v1/experiments/btc/close-all"
CLOSE_ORDERS = "/v1/experiments/btc/close-orders"
WHY = {"reason": "drill"}


def hold(client: httpx.Client, unit: str = "held") -> dict[str, object]:
    body = {"unit_id": unit, "instrument": "BTCUSD"}
    made: dict[str, object] = client.post("/v1/experiments/btc/assignments", json=body).json()
    assert client.post(f"/v1/assignments/{made['assignment_id']}/claim").status_code == 200
    return made


def waiting(client: CheckedClient) -> list[str]:
    return [target["unit_id"] for target in client.get(CLOSE_ORDERS).json()]


def test_from_the_order_to_the_outcome(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        made = hold(client)
        order = client.post(CLOSE_ALL, json=WHY).json()
        [target] = order["positions"]
        assert target == {
            "order_id": order["order_id"],
            "reason": "drill",
            "since": NOON.isoformat(),
            "assignment_id": made["assignment_id"],
            "unit_id": "held",
            "instrument": "BTCUSD",
            "policy": made["policy"],
            "closed": False,
            "failure": None,
        }
        assert (order["actor"], order["waiting"], order["killed"]) == ("local", 1, False)
        assert "new positions may open" in order["note"]
        assert "liveops kill" in order["note"]
        assert client.get(CLOSE_ORDERS).json() == [target]

        failure = {"assignment_id": made["assignment_id"], "reason": "no bid"}
        failed = client.post(f"/v1/close-orders/{order['order_id']}/failures", json=failure)
        told = {"at": NOON.isoformat(), "actor": "local", "reason": "no bid"}
        assert (failed.status_code, failed.json()) == (200, target | {"failure": told})
        assert client.get(CLOSE_ORDERS).json() == [failed.json()]

        assert client.post("/v1/outcomes", json=outcome_body(made)).status_code == 201
        assert client.get(CLOSE_ORDERS).json() == []


def test_again_is_harmless_and_concerns_what_is_new(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        hold(client)
        assert len(client.post(CLOSE_ALL, json=WHY).json()["positions"]) == 1
        again = client.post(CLOSE_ALL, json=WHY).json()
        assert (again["positions"], again["waiting"]) == ([], 1)
        assert waiting(client) == ["held"]


def test_a_killed_account_is_still_closed(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        hold(client)
        assert client.post("/v1/kill", json=WHY).status_code == 200
        order = client.post(CLOSE_ALL, json=WHY)
        assert (order.status_code, order.json()["killed"]) == (200, True)
        assert order.json()["note"] == "account usd is killed: nothing new opens"
        assert waiting(client) == ["held"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CLOSE_ALL, b"{}", 422, "invalid_input"),
        (CLOSE_ALL, b'{"reason": ""}', 422, "invalid_input"),
        (CLOSE_ALL, b'{"reason": " "}', 422, "invalid_input"),
        (CLOSE_ALL, b'{"reason": "x", "force": true}', 422, "invalid_input"),
        (CLOSE_ALL, b"{", 400, "malformed_json"),
        ("/v1/experiments/none/close-all", b'{"reason": "x"}', 404, "unknown_name"),
        ("/v1/close-orders/1/failures", b'{"reason": "x"}', 422, "invalid_input"),
        ("/v1/close-orders/0/failures", b"{}", 422, "invalid_input"),
        (
            "/v1/close-orders/1/failures",
            b'{"assignment_id": "00000000-0000-8000-8000-000000000000", "reason": "x"}',
            404,
            "unknown_name",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused_and_stores_nothing(
    engine: Engine, path: str, body: bytes, status: int, code: str
) -> None:
    open_btc(engine)
    with service(engine) as client:
        hold(client)
        answer = post(client, path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (count(engine, "close_orders"), count(engine, "close_failures")) == (0, 0)


def test_orders_of_nothing_that_is_open_are_not_there(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        missing = client.get("/v1/experiments/none/close-orders")
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_name")
        assert waiting(client) == []


@pytest.mark.parametrize("scope", list(KeyScope))
def test_only_operators_order_and_only_bots_are_told(engine: Engine, scope: KeyScope) -> None:
    open_btc(engine)
    entry = {"name": "one", "scopes": [scope.value], "sha256": digest_of(b"secret")}
    nothing = {"assignment_id": "00000000-0000-8000-8000-000000000000", "reason": "x"}
    with (
        service(engine, keys=[entry]) as served,
        httpx.Client(
            base_url=served.base_url, headers={"Authorization": "Bearer secret"}
        ) as client,
    ):
        found = {
            "order": client.post(CLOSE_ALL, json=WHY).status_code,
            "told": client.get(CLOSE_ORDERS).status_code,
            "failed": client.post("/v1/close-orders/1/failures", json=nothing).status_code,
        }
    assert found == {
        "order": 200 if scope is KeyScope.OPERATE else 403,
        "told": 200 if scope is KeyScope.TRADE else 403,
        "failed": 404 if scope is KeyScope.TRADE else 403,
    }


def test_an_order_that_waits_too_long_is_an_issue_of_health(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        hold(client)
        client.post(CLOSE_ALL, json=WHY)
        clock.advance_to(NOON + timedelta(seconds=60))
        codes = [finding["code"] for finding in client.get("/status").json()["findings"]]
        assert "close_pending" not in codes
        clock.advance_to(NOON + timedelta(seconds=61))
        [found] = [
            finding
            for finding in client.get("/status").json()["findings"]
            if finding["code"] == "close_pending"
        ]
        assert (found["level"], found["subject"], found["value"]) == (
            "DEGRADED",
            "experiment btc",
            61.0,
        )
        assert "liveops_close_orders_pending 1.0" in client.get("/metrics").text.splitlines()


def test_a_kill_may_name_an_experiment_instead_of_its_account(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        [killed] = client.post("/v1/kill", json={"experiment": "btc", **WHY}).json()
        assert (killed["name"], killed["killed"]) == ("usd", True)
        both = client.post("/v1/kill", json={"experiment": "btc", "accounts": ["usd"], **WHY})
        assert (both.status_code, both.json()["field"]) == (422, "experiment")
        missing = client.post("/v1/kill", json={"experiment": "none", **WHY})
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_name")
        [back] = client.request("DELETE", "/v1/kill", json={"experiment": "btc", **WHY}).json()
        assert not back["killed"]
    assert closing.waiting_by_experiment(engine) == []
