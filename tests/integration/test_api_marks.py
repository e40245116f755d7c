"""Marks and accounts over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from api_service import CheckedClient, outcome_body, post, service
from ledger import NOON, open_btc
from sqlalchemy import Engine

MARKS = "/v1/marks"
NOON_TEXT = NOON.isoformat()


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine) as client:
        yield client


def assigned(client: CheckedClient, unit: str = "u") -> dict[str, Any]:
    body = {"unit_id": unit, "instrument": "BTCUSD"}
    return client.post("/v1/experiments/btc/assignments", json=body).json()


def mark_body(made: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "assignment_id": made["assignment_id"],
        "unrealised_pnl": "-12.5",
        "marked_at": NOON_TEXT,
    } | fields


def account(client: CheckedClient) -> dict[str, Any]:
    (found,) = client.get("/v1/accounts").json()
    return found


def test_mark_is_answered_with_what_stands(client: CheckedClient) -> None:
    made = assigned(client)
    first = client.post(MARKS, json=mark_body(made))
    assert first.status_code == 200
    assert first.json() == {
        "assignment_id": made["assignment_id"],
        "unrealised_pnl": "-12.50000000",
        "marked_at": NOON_TEXT,
        "worst_pnl": "-12.50000000",
        "worst_at": NOON_TEXT,
    }
    older = (NOON - timedelta(minutes=1)).isoformat()
    again = client.post(MARKS, json=mark_body(made, unrealised_pnl=-99, marked_at=older))
    assert again.content == first.content
    assert account(client)["unrealised_pnl"] == "-12.50000000"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"assignment_id": "01234567-89ab-8def-8123-456789abcdef"}, 404, None),
        ({"assignment_id": "x"}, 422, "assignment_id"),
        ({"unrealised_pnl": "1e5"}, 422, "unrealised_pnl"),
        ({"unrealised_pnl": "0.000000001"}, 422, "unrealised_pnl"),
        ({"unrealised_pnl": 10**16}, 422, "unrealised_pnl"),
        ({"marked_at": (NOON + timedelta(seconds=301)).isoformat()}, 422, "marked_at"),
        ({"marked_at": (NOON - timedelta(seconds=301)).isoformat()}, 422, "marked_at"),
        ({"marked_at": "2026-03-01T12:00:00"}, 422, "marked_at"),
        ({"price": 1}, 422, "price"),
    ],
)
def test_bad_mark_is_refused_by_name_alone_and_in_an_array(
    client: CheckedClient, fields: dict[str, Any], status: int, field: str | None
) -> None:
    made = assigned(client)
    bad = mark_body(made, **fields)
    alone = client.post(MARKS, json=bad)
    assert alone.status_code == status
    assert alone.json().get("field") == field
    lines = client.post(MARKS, json=[bad, mark_body(made)]).json()
    assert [(line["line"], line["status"]) for line in lines] == [(1, status), (2, 200)]
    assert lines[0]["problem"] == alone.json()
    assert account(client)["unrealised_pnl"] == "-12.50000000"


def test_not_a_number_is_no_json(client: CheckedClient) -> None:
    body = b'{"assignment_id": "x", "unrealised_pnl": NaN, "marked_at": "x"}'
    assert post(client, MARKS, body).status_code == 400


@pytest.mark.parametrize("body", [[], [1] * 1001])
def test_array_has_one_to_a_thousand_marks(client: CheckedClient, body: list[int]) -> None:
    refused = client.post(MARKS, json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, "batch")


def test_closed_position_takes_no_mark(client: CheckedClient) -> None:
    made = assigned(client)
    assert client.post("/v1/outcomes", json=outcome_body(made)).status_code == 201
    refused = client.post(MARKS, json=mark_body(made))
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_account_shows_its_money_its_limits_and_who_killed_it(client: CheckedClient) -> None:
    made, other = assigned(client), assigned(client, "v")
    shown = account(client)
    assert (shown["name"], shown["currency"], shown["killed"]) == ("usd", "USD", False)
    assert (shown["equity"], shown["cause"], shown["since"]) == ("10000.00000000", None, None)
    client.post(MARKS, json=mark_body(other, unrealised_pnl="-200"))
    client.post("/v1/outcomes", json=outcome_body(made, pnl="-120", **{"return": -0.001}))
    shown = account(client)
    assert shown["equity"] == "9680.00000000"
    assert (shown["realised_pnl"], shown["peak"]) == ("-120.00000000", "10000.00000000")
    assert (shown["drawdown_percent"], shown["daily_loss_percent"]) == (3.2, 3.2)
    assert [limit["verdict"] for limit in shown["limits"]] == ["FAIL", "PASS", "PASS"]
    assert (shown["killed"], shown["cause"]) == (True, "daily_loss")
    assert (shown["actor"], shown["since"]) == ("rule:loss_limit", NOON_TEXT)
    assert shown["reason"] == "daily loss of 3.2 % exceeds its limit of 3 %"
    report = client.get("/v1/experiments/btc/report").json()
    assert (report["account"], report["killed"]) == ("usd", True)


def test_metrics_show_the_account(client: CheckedClient) -> None:
    made = assigned(client)
    client.post("/v1/outcomes", json=outcome_body(made, pnl="-320", **{"return": -0.001}))
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'liveops_account_equity{account="usd"} 9680.0',
        'liveops_account_drawdown_ratio{account="usd"} 0.032',
        'liveops_account_daily_loss_ratio{account="usd"} 0.032',
        'liveops_account_killed{account="usd"} 1.0',
    ):
        assert line in lines
