"""What arms would have earned, told over HTTP: alone, in batches, worked out by the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from api_service import CheckedClient, ndjson, outcome_body, post, service
from ledger import CHALLENGER, count, open_btc
from sqlalchemy import Engine, text

ONE, BATCH = "/v1/shadow-outcomes", "/v1/shadow-outcomes/batch"
PAPER = {
    "side": "short",
    "entry_price": "100",
    "exit_price": "99",
    "size": "2",
    "fee_bps": 10,
    "slippage_bps": 0,
}


@pytest.fixture
def client(engine: Engine) -> Iterator[CheckedClient]:
    open_btc(engine)
    with service(engine) as client:
        yield client


def assigned(client: CheckedClient, unit: str = "u") -> dict[str, Any]:
    asked = {"unit_id": unit, "instrument": "BTCUSD"}
    return client.post("/v1/experiments/btc/assignments", json=asked).json()


def body(made: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A lawful result of the challenger that `fields` may spoil."""
    told = outcome_body(made, pnl=..., policy=CHALLENGER)
    return {name: value for name, value in (told | fields).items() if value is not ...}


def test_a_result_is_recorded_and_told_again_gives_the_same(client: CheckedClient) -> None:
    told = body(assigned(client))
    first = client.post(ONE, json=told)
    assert first.status_code == 201
    assert first.json() == {
        "assignment_id": told["assignment_id"],
        "policy": CHALLENGER,
        "source": "reported",
        "return": 0.0012,
        "recorded_at": "2026-03-01T12:00:00+00:00",
    }
    again = client.post(ONE, json=told | {"policy": "eee02a74"})
    assert (again.status_code, again.json()) == (200, first.json())
    other = client.post(ONE, json=told | {"return": 0.5})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_a_proposal_is_worked_out_by_the_service(client: CheckedClient, engine: Engine) -> None:
    # 2 * (100 - 99) less fees of 0.1 % of 200 and of 198: 1.602 of 200.
    answer = client.post(ONE, json=body(assigned(client), paper=PAPER, **{"return": ...}))
    assert answer.status_code == 201
    assert (answer.json()["source"], answer.json()["return"]) == ("paper", 0.00801)
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT source, return_ratio::text FROM shadow_outcomes"))
        assert [tuple(row) for row in stored] == [("paper", "0.008010000000")]


def test_a_policy_that_would_have_declined_says_nothing_else(client: CheckedClient) -> None:
    made = assigned(client)
    silent = {"assignment_id": made["assignment_id"], "policy": CHALLENGER, "no_trade": True}
    for field, value in (("return", 0), ("closed_at", made["decided_at"]), ("paper", PAPER)):
        refused = client.post(ONE, json=silent | {field: value})
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert client.post(ONE, json=silent).json()["return"] == 0


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"return": ...}, 422, "return"),
        ({"opened_at": ...}, 422, "opened_at"),
        ({"policy": ...}, 422, "policy"),
        ({"pnl": "1.00"}, 422, "pnl"),
        ({"return": "0.1"}, 422, "return"),
        ({"paper": PAPER}, 422, "return"),
        ({"paper": PAPER | {"size": "0"}, "return": ...}, 422, "size"),
        ({"paper": PAPER | {"fee_bps": 1000}, "return": ...}, 422, "fee_bps"),
        ({"paper": PAPER | {"side": "up"}, "return": ...}, 422, "paper.side"),
        ({"paper": PAPER | {"exit_price": "200000000"}, "return": ...}, 422, "return"),
        ({"closed_at": "2026-03-01T12:06:00Z"}, 422, "closed_at"),
        ({"policy": "nobody"}, 404, None),
        ({"assignment_id": "01234567-89ab-8def-8123-456789abcdef"}, 404, None),
    ],
)
def test_what_is_wrong_is_named(
    client: CheckedClient, engine: Engine, fields: dict[str, Any], status: int, field: str | None
) -> None:
    refused = client.post(ONE, json=body(assigned(client), **fields))
    assert (refused.status_code, refused.json().get("field")) == (status, field)
    assert count(engine, "shadow_outcomes") == 0


def test_poison_lines_take_no_other_line_with_them(client: CheckedClient, engine: Engine) -> None:
    made = [assigned(client, f"u{n}") for n in range(3)]
    lines = [
        body(made[0]),
        b"\xff",
        body(made[1], **{"return": float("1e9")}),
        body(made[1]),
        body(made[1]),
        body(made[1], **{"return": 0.3}),
        body(made[2], policy="nobody"),
        body(made[2], policy="prod", no_trade=True, **dict.fromkeys(LEFT_OUT, ...)),
    ]
    answer = post(client, BATCH, ndjson(*lines), "x-ndjson")
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["line"] for line in found] == list(range(1, 9))
    assert [line["status"] for line in found] == [201, 400, 422, 201, 200, 409, 404, 201]
    assert found[3]["outcome"] == found[4]["outcome"]
    assert count(engine, "shadow_outcomes") == 3
    array = client.post(BATCH, json=[line for line in lines if isinstance(line, dict)])
    assert [line["status"] for line in array.json()] == [200, 422, 200, 200, 409, 404, 200]
    assert count(engine, "shadow_outcomes") == 3


LEFT_OUT = ("return", "opened_at", "closed_at")


def test_an_empty_batch_is_refused(client: CheckedClient) -> None:
    assert post(client, BATCH, b"", "x-ndjson").status_code == 422
    assert client.post(BATCH, json=[]).status_code == 422
