"""Bodies made to break things: a typed answer that names field and rule, and no row (SPEC C5)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from liveops.clock import VirtualClock

ASSIGN = "/v1/experiments/btc/assignments"
HALT = "/v1/experiments/btc/arms/eee02a74/halt"
ROUTES = (
    "/v1/policies",
    "/v1/experiments",
    "/v1/experiments/btc/arms",
    ASSIGN,
    HALT,
    "/v1/outcomes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service that many attacks share, with one assignment that has no outcome."""

    engine: Engine
    client: CheckedClient
    made: dict[str, Any]


@pytest.fixture(scope="module")
def target(postgres_server: PostgresServer) -> Iterator[Target]:
    with postgres_server.database() as url:
        engine = connect(url)
        open_btc(engine)
        with service(engine) as client:
            body = {"unit_id": "target", "instrument": "BTCUSD"}
            yield Target(engine=engine, client=client, made=client.post(ASSIGN, json=body).json())
        engine.dispose()


@pytest.fixture(autouse=True)
def no_row_is_written(request: pytest.FixtureRequest) -> Iterator[None]:
    if "target" not in request.fixturenames:
        yield
        return
    engine = request.getfixturevalue("target").engine
    before = row_counts(engine)
    yield
    assert row_counts(engine) == before


def refusal(response: httpx.Response, *, field: str | None = None) -> dict[str, Any]:
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["rule"]
    assert field is None or problem["field"] == field
    return problem


def raw_outcome(target: Target, field: str, token: str) -> bytes:
    """An outcome in which `field` is exactly `token`."""
    fields = {
        "assignment_id": f'"{target.made["assignment_id"]}"',
        "pnl": '"12.34"',
        "return": "0.0012",
        "opened_at": '"2026-03-01T12:00:00Z"',
        "closed_at": '"2026-03-01T12:00:00Z"',
        field: token,
    }
    return ("{" + ", ".join(f'"{k}": {v}' for k, v in fields.items()) + "}").encode()


NUMBERS = {
    "nan": "NaN",
    "infinity": "Infinity",
    "minus_infinity": "-Infinity",
    "1e400": "1e400",
    "denormal": "5e-324",
    "5000_digits": "9" * 5000,
    "2_to_63": str(2**63),
    "text_1e5": '"1e5"',
    "text_nan": '"NaN"',
    "text_infinity": '"-Infinity"',
    "text_underscore": '"1_000"',
    "text_spaces": '" 1"',
    "text_arabic_digits": '"\\u0661"',
    "text_empty": '""',
    "hexadecimal": "0x10",
    "leading_zero": "007",
    "boolean": "true",
    "array": "[1]",
    "object": '{"value": 1}',
    "null": "null",
}


@pytest.mark.parametrize("token", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("field", ["pnl", "return"])
def test_what_is_no_lawful_number_is_refused(target: Target, field: str, token: str) -> None:
    body = raw_outcome(target, field, token)
    single = refusal(post(target.client, "/v1/outcomes", body))
    # A token that is no JSON at all has no field to blame.
    assert single["field"] == (field if token not in ("0x10", "007") else "body")

    (line,) = post(target.client, "/v1/outcomes/batch", body, "x-ndjson").text.splitlines()
    assert f'"code":"{single["code"]}"' in line


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("pnl", '"0.12345678901"'),
        ("pnl", "0.12345678901"),
        ("pnl", '"10000000000000000"'),
        ("return", "1001"),
        ("fees", '"0.000000001"'),
        ("size", "0"),
        ("size", '"-1"'),
        ("worst_excursion", "-0.1"),
        ("r_multiple", "1000.1"),
        ("return", "-0.0012"),
    ],
)
def test_a_number_outside_its_domain_is_refused(target: Target, field: str, token: str) -> None:
    refusal(post(target.client, "/v1/outcomes", raw_outcome(target, field, token)), field=field)


@pytest.mark.parametrize(
    ("field", "moment"),
    [
        ("opened_at", "2026-03-01T12:00:00"),
        ("opened_at", "2026-03-01 12:00:00Z"),
        ("opened_at", "2026-03-01"),
        ("opened_at", "infinity"),
        ("opened_at", "294276-12-31T23:59:59Z"),
        ("opened_at", "0001-01-01T00:00:00+14:00"),
        ("opened_at", "2026-02-29T12:00:00Z"),
        ("opened_at", "2026-03-01T12:00:60Z"),
        ("opened_at", "2026-03-01T11:54:59Z"),
        ("closed_at", "2026-03-01T11:59:59Z"),
        ("closed_at", "2026-03-01T12:05:01Z"),
        ("closed_at", "2100-01-01T00:00:00Z"),
    ],
)
def test_an_impossible_time_is_refused(target: Target, field: str, moment: str) -> None:
    body = raw_outcome(target, field, f'"{moment}"')
    refusal(post(target.client, "/v1/outcomes", body), field=field)


@pytest.mark.parametrize(
    "identity",
    ['"1"', "1", '"{01234567-89ab-8def-8123-456789abcdef}"', '"urn:uuid:0"', '"\\u0000"', "null"],
)
def test_an_assignment_id_that_is_none_is_refused(target: Target, identity: str) -> None:
    body = raw_outcome(target, "assignment_id", identity)
    refusal(post(target.client, "/v1/outcomes", body), field="assignment_id")


DOCUMENTS = {
    "nothing": b"",
    "white_space": b"  \n",
    "duplicate_key": b'{"reason": "a", "reason": "b"}',
    "duplicate_key_inside": b'{"context": {"a": 1, "a": 1}}',
    "nested_30000_deep": b"[" * 30_000,
    "nested_33_deep": b'{"context": ' + b"[" * 32 + b"]" * 32 + b"}",
    "zero_character": b'{"reason": "a\\u0000b"}',
    "zero_byte": b'{"reason": "a\x00b"}',
    "lone_surrogate": b'{"reason": "\\ud800"}',
    "surrogate_in_key": b'{"\\udc00": 1}',
    "byte_order_mark": b'\xef\xbb\xbf{"reason": "a"}',
    "utf_16": '{"reason": "a"}'.encode("utf-16"),
    "latin_1": '{"reason": "ä"}'.encode("latin-1"),
    "trailing_garbage": b'{"reason": "a"} {}',
    "trailing_comma": b'{"reason": "a",}',
    "single_quotes": b"{'reason': 'a'}",
    "comment": b'{"reason": "a"} // why',
    "not_closed": b'{"reason": "a"',
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("path", ROUTES)
def test_what_is_not_strict_json_is_refused(target: Target, path: str, document: bytes) -> None:
    problem = refusal(post(target.client, path, document))
    assert (problem["status"], problem["code"]) == (400, "malformed_json")


NAMES = [
    "%",
    "_",
    "prod_v%",
    "PROD",
    "pröd",
    "\uff50\uff52\uff4f\uff44",
    "'; DROP TABLE policies; --",
    "$$",
    "../etc/passwd",
    "a" * 64,
    "",
    "prod\n",
    "-prod",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_outside_ascii_words_is_refused(target: Target, name: str) -> None:
    policy = {"name": name, "kind": "external", "sha": "cccccccc"}
    refusal(target.client.post("/v1/policies", json=policy), field="name")
    experiment = {"name": name, "champion": "prod", "capital": "1"}
    refusal(target.client.post("/v1/experiments", json=experiment), field="name")


@pytest.mark.parametrize("name", ["%25", "%00", "prod%0d%0a", "PROD", "%E2%80%A8", "a" * 65])
def test_a_name_in_the_address_is_held_to_the_same_rule(target: Target, name: str) -> None:
    refusal(target.client.get(f"/v1/policies/{name}"), field="policy")
    refusal(target.client.get(f"/v1/experiments/{name}/report"), field="experiment")
    body = {"reason": "drill"}
    refusal(target.client.post(f"/v1/experiments/btc/arms/{name}/halt", json=body), field="policy")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"capital": "0"}, "capital"),
        ({"capital": "-1"}, "capital"),
        ({"capital": None}, "capital"),
        ({"currency": "usd"}, "currency"),
        ({"equity_fraction": 0}, "equity_fraction"),
        ({"equity_fraction": 1.01}, "equity_fraction"),
        ({"equity_fraction": "0.1"}, "equity_fraction"),
        ({"equity_fraction": True}, "equity_fraction"),
        ({"decision_seconds_valid": 0}, "decision_seconds_valid"),
        ({"decision_seconds_valid": 1e300}, "decision_seconds_valid"),
        ({"profile": "reckless"}, "profile"),
        ({"strategy": 1}, "strategy"),
        ({"challengers": ["prod"]}, "challengers"),
        ({"challengers": ["eee0", "eee02a74"]}, "challengers"),
        ({"challengers": "eee02a74"}, "challengers"),
        ({"challengers": [1]}, "challengers.0"),
        ({"salt": "00"}, "salt"),
    ],
)
def test_an_unlawful_experiment_is_refused(
    target: Target, fields: dict[str, Any], field: str
) -> None:
    body = {"name": "eth", "champion": "prod", "capital": "1"} | fields
    refusal(target.client.post("/v1/experiments", json=body), field=field)


@pytest.mark.parametrize(
    ("left_out", "field"),
    [("pnl", "pnl"), ("return", "return"), ("opened_at", "opened_at"), ("closed_at", "closed_at")],
)
def test_a_trade_needs_its_numbers_and_times(target: Target, left_out: str, field: str) -> None:
    body = outcome_body(target.made, **{left_out: ...})
    refusal(target.client.post("/v1/outcomes", json=body), field=field)


def test_a_declined_opportunity_earns_nothing(target: Target) -> None:
    body = {"assignment_id": target.made["assignment_id"], "no_trade": True, "fees": "0"}
    refusal(target.client.post("/v1/outcomes", json=body), field="fees")


def test_an_outcome_of_an_assignment_nobody_made_is_unknown(target: Target) -> None:
    body = outcome_body(target.made, assignment_id="01234567-89ab-8def-8123-456789abcdef")
    response = target.client.post("/v1/outcomes", json=body)
    assert (response.status_code, response.json()["code"]) == (404, "unknown_name")


def test_a_position_that_is_not_open_is_refused(target: Target) -> None:
    body = {
        "unit_id": "exit",
        "instrument": "BTCUSD",
        "position": "01234567-89ab-8def-8123-456789abcdef",
    }
    refusal(target.client.post(ASSIGN, json=body), field="position")


def test_minus_zero_is_zero(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        made = client.post(ASSIGN, json={"unit_id": "u", "instrument": "BTCUSD"}).json()
        body = outcome_body(made, pnl="-0.00", **{"return": -0.0})
        assert client.post("/v1/outcomes", json=body).status_code == 201
        body = outcome_body(made, pnl=0, **{"return": 0})
        assert client.post("/v1/outcomes", json=body).status_code == 200


def test_an_outcome_of_an_expired_decision_is_money_and_flagged(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        made = client.post(ASSIGN, json={"unit_id": "u", "instrument": "BTCUSD"}).json()
        clock.advance_to(NOON + timedelta(hours=1))
        late = (NOON + timedelta(seconds=3)).isoformat()
        response = client.post(
            "/v1/outcomes", json=outcome_body(made, opened_at=late, closed_at=late)
        )
    assert (response.status_code, response.json()["expired"]) == (201, True)


@pytest.mark.parametrize("bodies", [("1", "1"), ("1", "2")], ids=["same", "different"])
def test_of_two_outcomes_racing_on_two_replicas_one_counts(
    engine: Engine, bodies: tuple[str, str]
) -> None:
    open_btc(engine)
    with service(engine) as here, service(engine) as there:
        for n in range(10):
            body = {"unit_id": f"u{n}", "instrument": "BTCUSD"}
            made = here.post(ASSIGN, json=body).json()
            start = threading.Barrier(2)

            def send(client: CheckedClient, pnl: str) -> httpx.Response:
                start.wait()  # noqa: B023 - both calls end within this turn of the loop
                return client.post("/v1/outcomes", json=outcome_body(made, pnl=pnl))  # noqa: B023

            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(send, (here, there), bodies))
            expected = [200, 201] if bodies[0] == bodies[1] else [201, 409]
            assert sorted(a.status_code for a in answers) == expected
            if bodies[0] == bodies[1]:
                assert answers[0].content == answers[1].content
    assert row_counts(engine)["outcomes"] == 10


def test_the_order_of_a_batch_does_not_matter(postgres_server: PostgresServer) -> None:
    reports = []
    for step in (1, -1):
        with postgres_server.database() as url:
            engine = connect(url)
            open_btc(engine)
            clock = VirtualClock(NOON)
            with service(engine, clock=clock) as client:
                lines = [
                    outcome_body(
                        client.post(ASSIGN, json={"unit_id": f"u{n}", "instrument": "X"}).json(),
                        closed_at=(NOON + timedelta(minutes=n)).isoformat(),
                        pnl=f"{n - 20}",
                        **{"return": (n - 20) / 1000},
                    )
                    for n in range(60)
                ]
                clock.advance_to(NOON + timedelta(days=1))
                post(client, "/v1/outcomes/batch", ndjson(*lines[::step]), "x-ndjson")
                reports.append(client.get("/v1/experiments/btc/report").json())
            engine.dispose()
    assert sum(arm["trades"] for arm in reports[0]["arms"]) == 60
    # The account's own drawdown is a guard's: of money in the order in which it was told.
    drawdowns = [report.pop("dd_total") for report in reports]
    assert drawdowns[0] == 0 < drawdowns[1]
    # So are the performance guards: they read the trades that came last.
    guards = [report.pop("guards") for report in reports]
    assert [guard["state"] for guard in guards[0]] == ["NORMAL", "NORMAL"]
    assert [guard["state"] for guard in guards[1]] == ["PAUSED", "PAUSED"]
    assert reports[0] == reports[1]
