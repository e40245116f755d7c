"""The links of the OpenAPI document lead somewhere, with what the answer has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from api_service import application, documented

from bandit.storage.engine import connect
from liveops.api.access import ADMIN_SCOPES
from liveops.api.application import create_api
from liveops.api.links import LINKS, Link, link

Document = dict[str, Any]


def faults(document: Document) -> Iterator[str]:
    """Links that leave an address open, or promise what answer or request does not have."""
    routes = {r["operationId"]: r for path in document["paths"].values() for r in path.values()}
    for name, route in routes.items():
        for answer in route["responses"].values():
            for to, given in answer.get("links", {}).items():
                parameters, body = given.get("parameters", {}), given.get("requestBody", {})
                target = routes[given["operationId"]]
                if set(parameters) != _in_address(target):
                    yield f"{name} -> {to}: the address is not whole"
                if not all(_has(document, target["requestBody"], [field]) for field in body):
                    yield f"{name} -> {to}: the request has no such field"
                for value in re.findall(r'"(\$[^"]+)"', json.dumps([parameters, body])):
                    if not _gives(document, route, answer, value):
                        yield f"{name} -> {to}: there is no {value}"


def _in_address(route: Document) -> set[str]:
    return {value["name"] for value in route.get("parameters", ()) if value["in"] == "path"}


def _gives(document: Document, route: Document, answer: Document, value: str) -> bool:
    source, _, path = value.partition("#/")
    if source == "$response.body":
        return _has(document, answer, path.split("/"))
    if source == "$request.body":
        return _has(document, route["requestBody"], path.split("/"))
    return source.removeprefix("$request.path.") in _in_address(route)


def _has(document: Document, schema: Document, path: Sequence[str]) -> bool:
    if "content" in schema:
        schema = schema["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if not path:
        return True
    if "type" not in schema:
        return any(_has(document, either, path) for either in schema["anyOf"])
    inside = schema["items"] if schema["type"] == "array" else schema["properties"].get(path[0])
    return inside is not None and _has(document, inside, path[1:])


def test_links_give_what_the_answer_has_to_a_request_that_takes_it() -> None:
    assert list(faults(documented(with_key=False))) == []


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (Link(to="claim"), "the address is not whole"),
        (Link(to="claim", parameters={"assignment": "$response.body#/id"}), "there is no"),
        (Link(to="show_report", parameters={"experiment": "$request.path.policy"}), "there is no"),
        (Link(to="record_outcome", body={"id": "$response.body#/unit_id"}), "no such field"),
    ],
)
def test_link_that_leads_nowhere_is_found(
    monkeypatch: pytest.MonkeyPatch, planted: Link, fault: str
) -> None:
    document = json.loads(json.dumps(documented(with_key=False)))
    monkeypatch.setitem(LINKS, "assign", (planted,))  # type: ignore[arg-type]
    link(document["paths"])
    (found,) = faults(document)
    assert fault in found


def test_made_assignment_leads_to_all_that_becomes_of_it() -> None:
    assign = documented(with_key=False)["paths"]["/v1/experiments/{experiment}/assignments"]["post"]
    assert set(assign["responses"]["200"]["links"]) == {
        *("claim", "record_outcome", "mark_positions", "assign", "halt_arm")
    }


def test_links_of_a_listener_lead_only_where_it_serves() -> None:
    nowhere = connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    paths = create_api(application(nowhere), served=ADMIN_SCOPES).openapi()["paths"]
    answers = (a for path in paths.values() for r in path.values() for a in r["responses"].values())
    targets = {to for answer in answers for to in answer.get("links", {})}
    assert "show_report" in targets
    assert not targets & {"assign", "claim", "report_fallback", "record_outcome", "revise_outcome"}
