"""Batches of outcomes: one result per line, in order, and no line at the cost of another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from api_service import CheckedClient, ndjson, outcome_body, post, row_counts, service
from ledger import open_btc
from sqlalchemy import Engine

from liveops.api.batches import BATCH_BYTES_MAX

BATCH = "/v1/outcomes/batch"


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine) as client:
        yield client


def assigned(client: CheckedClient, count: int) -> list[dict[str, Any]]:
    path = "/v1/experiments/btc/assignments"
    bodies = [{"unit_id": f"u{n}", "instrument": "BTCUSD"} for n in range(count)]
    return [client.post(path, json=body).json() for body in bodies]


def results(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_poison_lines_take_no_other_line_with_them(client: CheckedClient, engine: Engine) -> None:
    first, second, third = assigned(client, 3)
    body = ndjson(
        outcome_body(first),
        b'{"assignment_id": "' + second["assignment_id"].encode() + b'", "pnl": NaN}',
        outcome_body(second, pnl="-1"),
        b"",
        b"\xff\xfe",
        outcome_body(second),
        outcome_body(second),
        outcome_body(second, pnl="99"),
        outcome_body(third, assignment_id="01234567-89ab-8def-8123-456789abcdef"),
        outcome_body(third),
    )
    response = post(client, BATCH, body, "x-ndjson")
    assert response.headers["content-type"] == "application/x-ndjson"
    found = results(response.text)
    assert [line["line"] for line in found] == list(range(1, 11))
    assert [line["status"] for line in found] == [201, 400, 422, 400, 400, 201, 200, 409, 404, 201]
    assert [line["problem"]["field"] for line in found[1:5]] == ["pnl", "return", "body", "body"]
    assert found[5]["outcome"] == found[6]["outcome"]
    assert row_counts(engine)["outcomes"] == 3


def test_a_batch_sent_again_changes_nothing(client: CheckedClient, engine: Engine) -> None:
    body = ndjson(*map(outcome_body, assigned(client, 3)))
    first = results(post(client, BATCH, body, "x-ndjson").text)
    before = row_counts(engine)
    again = results(post(client, BATCH, body, "x-ndjson").text)
    assert [line["status"] for line in first] == [201] * 3
    assert [line["status"] for line in again] == [200] * 3
    assert [line["outcome"] for line in again] == [line["outcome"] for line in first]
    assert row_counts(engine) == before


def test_a_json_array_is_answered_by_an_array(client: CheckedClient) -> None:
    (made,) = assigned(client, 1)
    response = client.post(BATCH, json=[outcome_body(made), 7, {"pnl": "1"}])
    assert response.headers["content-type"] == "application/json"
    assert [(line["line"], line["status"]) for line in response.json()] == [
        (1, 201),
        (2, 422),
        (3, 422),
    ]


def test_the_last_line_may_end_without_a_line_feed(client: CheckedClient) -> None:
    (made,) = assigned(client, 1)
    body = ndjson(outcome_body(made)).removesuffix(b"\n") + b"\r"
    assert [line["status"] for line in results(post(client, BATCH, body, "x-ndjson").text)] == [201]


def test_a_line_may_hold_the_line_separators_of_unicode(client: CheckedClient) -> None:
    (made,) = assigned(client, 1)
    body = ndjson(outcome_body(made), '{"note": "\u2028\x85"}'.encode())
    assert [line["status"] for line in results(post(client, BATCH, body, "x-ndjson").text)] == [
        201,
        422,
    ]


@pytest.mark.parametrize(
    ("kind", "body", "status", "field"),
    [
        ("x-ndjson", b"", 422, "batch"),
        ("x-ndjson", b"{}\n" * 1001, 422, "batch"),
        ("json", b"[]", 422, "batch"),
        ("json", b"{}", 422, "batch"),
        ("json", b"[" + b"{}," * 1000 + b"{}]", 422, "batch"),
        ("json", b'[{"pnl": NaN}]', 400, "[0].pnl"),
        ("json", b'[{"pnl": 1}', 400, "body"),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(
    client: CheckedClient, kind: str, body: bytes, status: int, field: str
) -> None:
    response = post(client, BATCH, body, kind)
    assert (response.status_code, response.json()["field"]) == (status, field)


def test_a_batch_over_four_megabytes_is_refused(client: CheckedClient) -> None:
    response = post(client, BATCH, b" " * (BATCH_BYTES_MAX + 1), "x-ndjson")
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_full_batch_is_taken(client: CheckedClient) -> None:
    made = assigned(client, 1)[0]
    body = ndjson(*[outcome_body(made)] * 1000)
    statuses = [line["status"] for line in results(post(client, BATCH, body, "x-ndjson").text)]
    assert statuses == [201] + [200] * 999
