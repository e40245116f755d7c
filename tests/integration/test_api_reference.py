"""The service is what docs/http.md and its OpenAPI document say it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
from api_service import documented, outcome_body, service
from ledger import NOON
from sqlalchemy import Engine

from bandit.core.errors import InvalidInput
from bandit.core.model import (
    Experiment,
    PolicyName,
    checked_instrument,
    checked_name,
    checked_sha,
    checked_unit,
)
from liveops.api.bodies import NewOutcome, read
from liveops.api.problems import KINDS
from liveops.api.strict_json import parse
from liveops.clock import VirtualClock

NOTHING = dict.fromkeys(("pnl", "return", "opened_at", "closed_at"), ...) | {"no_trade": True}

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_work_in_their_order(engine: Engine) -> None:
    examples = re.findall(r"```http\n(\w+) (\S+) → (\d+)\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 8
    clock, last = VirtualClock(NOON), ""
    with service(engine, clock=clock) as client:
        for method, path, status, body in examples:
            response = client.request(
                method,
                path,
                content=body.replace("ASSIGNMENT_ID", last),
                headers={"Content-Type": "application/json"},
            )
            assert response.status_code == int(status), response.text
            last = response.json().get("assignment_id", last)


def test_every_route_is_on_the_page_and_no_other() -> None:
    on_page = set(re.findall(r"^\| `((?:GET|POST|DELETE) \S+)` \|", PAGE, re.MULTILINE))
    served = {
        f"{method.upper()} {path}"
        for path, routes in documented(with_key=False)["paths"].items()
        for method in routes
    }
    assert on_page == served


def test_every_problem_is_on_the_page_with_its_status() -> None:
    on_page = set(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE))
    assert on_page == {(kind.code, str(kind.status)) for kind in KINDS}


def test_operations_have_names_of_their_own() -> None:
    paths = documented(with_key=True)["paths"]
    names = [route["operationId"] for routes in paths.values() for route in routes.values()]
    assert len(names) == len(set(names))
    assert {"register_policy", "halt_arm", "assign", "record_batch"} <= set(names)


def test_only_probes_are_documented_as_open() -> None:
    paths = documented(with_key=True)["paths"]
    open_paths = {p for p, routes in paths.items() for r in routes.values() if "security" not in r}
    assert open_paths == {"/ping", "/health", "/ready"}


def _checked_currency(value: str) -> None:
    Experiment(
        name="btc",
        champion=PolicyName("prod"),
        capital=Decimal(1),
        currency=value,
        equity_fraction=0.1,
    )


@pytest.mark.parametrize(
    ("model", "field", "check"),
    [
        ("NewPolicy", "name", checked_name),
        ("NewPolicy", "sha", checked_sha),
        ("NewExperiment", "name", checked_name),
        ("NewExperiment", "currency", _checked_currency),
        ("NewAssignment", "unit_id", checked_unit),
        ("NewAssignment", "instrument", checked_instrument),
    ],
)
def test_documented_patterns_are_the_cores_rules(
    model: str, field: str, check: Callable[[str], object]
) -> None:
    schema = documented(with_key=False)["components"]["schemas"][model]["properties"][field]
    pattern = schema.get("pattern") or schema["anyOf"][0]["pattern"]
    samples = ["", "a", "A", "0", "~", "-a", "a-", "é", " ", "a b", "abcdef01", "ABC", "a/b", "U:D"]
    samples += [character * n for character in "aA0!" for n in (2, 10, 11, 32, 33, 63, 64, 65, 129)]
    for sample in samples:
        try:
            check(sample)
            lawful = True
        except InvalidInput:
            lawful = False
        assert (re.search(pattern, sample) is not None) == lawful, sample


@pytest.mark.parametrize(
    ("fields", "is_lawful"),
    [
        ({}, True),
        ({"no_trade": False, "fees": None, "size": "1"}, True),
        ({"return": 1, "pnl": 2}, True),
        ({"pnl": None}, False),
        ({"return": ...}, False),
        ({"opened_at": ...}, False),
        ({"closed_at": None}, False),
        ({"no_trade": True}, False),
        (NOTHING, True),
        (NOTHING | {"pnl": None, "fees": None}, True),
        (NOTHING | {"pnl": "0"}, False),
        (NOTHING | {"worst_excursion": 0}, False),
        (NOTHING | {"no_trade": False}, False),
        (NOTHING | {"no_trade": ...}, False),
    ],
)
def test_documented_outcome_is_a_trade_or_nothing_as_the_core_has_it(
    fields: dict[str, Any], is_lawful: bool
) -> None:
    made = {"assignment_id": str(UUID(int=1)), "decided_at": NOON.isoformat()}
    body = outcome_body(made, **fields)
    components = documented(with_key=False)["components"]
    schema = components["schemas"]["NewOutcome"] | {"components": components}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(body) == is_lawful
    try:
        read(NewOutcome, parse(json.dumps(body).encode())).outcome()
    except InvalidInput:
        assert not is_lawful
    else:
        assert is_lawful
