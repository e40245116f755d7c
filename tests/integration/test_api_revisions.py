"""Corrections over HTTP: what counts from then on, and what is refused without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_service import CheckedClient, outcome_body, service
from ledger import count, open_btc
from sqlalchemy import Engine

UNKNOWN = "01234567-89ab-8def-8123-456789abcdef"


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine) as client:
        yield client


def assigned(client: CheckedClient, unit: str) -> dict[str, Any]:
    body = {"unit_id": unit, "instrument": "BTCUSD"}
    made: dict[str, Any] = client.post("/v1/experiments/btc/assignments", json=body).json()
    return made


def path(made: dict[str, Any]) -> str:
    return f"/v1/outcomes/{made['assignment_id']}/revisions"


def corrected(made: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return outcome_body(made, **({"pnl": "-1", "return": -0.0001, "reason": "slip"} | fields))


def test_correction_is_created_once_and_then_the_same_answer(client: CheckedClient) -> None:
    made = assigned(client, "u")
    client.post("/v1/outcomes", json=outcome_body(made))
    first = client.post(path(made), json=corrected(made))
    assert first.status_code == 201
    assert first.json()["revision"] == 1
    again = client.post(path(made), json=corrected(made, pnl="-1.000", reason="other words"))
    assert (again.status_code, again.json()) == (200, first.json())
    back = client.post(path(made), json=outcome_body(made, reason="was right"))
    assert (back.status_code, back.json()["revision"]) == (201, 2)


def test_trade_may_be_corrected_to_no_trade(client: CheckedClient) -> None:
    made = assigned(client, "u")
    client.post("/v1/outcomes", json=outcome_body(made))
    body = {"assignment_id": made["assignment_id"], "no_trade": True, "reason": "never filled"}
    assert client.post(path(made), json=body).status_code == 201
    [arm] = [
        arm
        for arm in client.get("/v1/experiments/btc/report").json()["arms"]
        if arm["policy"] == made["policy"]
    ]
    assert (arm["outcomes"], arm["trades"]) == (1, 0)


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"pnl": "NaN"}, 422, "pnl"),
        ({"pnl": "1"}, 422, "return"),
        ({"reason": ...}, 422, "reason"),
        ({"reason": " "}, 422, "reason"),
        ({"note": 1}, 422, "note"),
        ({"closed_at": "2026-03-01T12:05:00.000001Z"}, 422, "closed_at"),
        ({"opened_at": "2026-03-01T11:54:59Z"}, 422, "opened_at"),
        ({"size": 0}, 422, "size"),
        ({"no_trade": True}, 422, "pnl"),
        ({"assignment_id": UNKNOWN}, 422, "assignment_id"),
    ],
)
def test_unlawful_correction_is_refused_by_name(
    client: CheckedClient, engine: Engine, fields: dict[str, Any], status: int, field: str
) -> None:
    made = assigned(client, "u")
    client.post("/v1/outcomes", json=outcome_body(made))
    response = client.post(path(made), json=corrected(made, **fields))
    assert (response.status_code, response.json()["field"]) == (status, field)
    assert count(engine, "outcome_revisions") == 0


def test_what_was_never_told_cannot_be_corrected(client: CheckedClient) -> None:
    made = assigned(client, "u")
    response = client.post(path(made), json=corrected(made))
    assert (response.status_code, response.json()["code"]) == (404, "unknown_name")
    nobody = made | {"assignment_id": UNKNOWN}
    assert client.post(path(nobody), json=corrected(nobody)).status_code == 404
    body = corrected(made)
    assert client.post("/v1/outcomes/7/revisions", json=body).status_code == 422
