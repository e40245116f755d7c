"""Keys with scopes: what each opens, whose name stands in the audit log, how two are exchanged."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_service import application, documented, service
from ledger import NOON, open_btc
from sqlalchemy import Engine, text

from bandit.storage.engine import connect
from config.scopes import KeyScope
from liveops.api.access import Keyring, scope_of, warn_of_ending_keys
from liveops.api.application import create_api
from liveops.clock import VirtualClock

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
NAMES = {
    "account": "usd",
    "assignment": "00000000-0000-8000-8000-000000000000",
    "experiment": "btc",
    "name": "notify.discord",
    "order": "1",
    "policy": "eee02a74",
}


def entry(
    key: str, *scopes: str, name: str = "bot", expires_at: datetime | None = None
) -> dict[str, Any]:
    """A key as the settings hold it."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {"name": name, "scopes": scopes, "sha256": digest, "expires_at": expires_at}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def every_scope() -> Iterator[httpx.Client]:
    """A service whose keys are called as their one scope, and whose ledger is away."""
    nowhere = connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    keys = [entry(scope, scope, name=scope) for scope in KeyScope]
    with service(nowhere, keys=keys) as client, httpx.Client(base_url=client.base_url) as plain:
        yield plain


ROUTES = [
    (method.upper(), path, scope_of(method.upper(), path))
    for path, routes in documented(with_key=True)["paths"].items()
    for method in routes
    if path not in ("/ping", "/health", "/ready")
]


@pytest.mark.parametrize(("method", "path", "needed"), ROUTES)
def test_a_route_opens_to_its_scope_alone(
    every_scope: httpx.Client, method: str, path: str, needed: KeyScope
) -> None:
    for scope in KeyScope:
        answer = every_scope.request(method, path.format(**NAMES), headers=bearer(scope))
        if scope is needed:
            assert answer.status_code not in (401, 403), answer.text
            continue
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (403, "scope_missing")
        assert problem["detail"] == (
            f"the request needs the scope {needed}, the key of {scope} has {scope}"
        )


def test_the_page_and_openapi_tell_the_scope_of_every_route() -> None:
    on_page = re.findall(r"^\| `(\w+) (\S+)` \| (\S+) \|", PAGE, re.MULTILINE)
    for method, path, scope in on_page:
        route = documented(with_key=True)["paths"][path][method.lower()]
        expected = [] if scope == "\N{EN DASH}" else [{"key": [scope]}]
        assert route.get("security", []) == expected, path
        assert (f"Needs the scope `{scope}`." in route["description"]) == bool(expected)
    assert len(on_page) == len(ROUTES) + 3


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/experiments/btc/assignments", "trade"),
        ("POST", "/v1/experiments/btc/decide", "trade"),
        ("POST", "/v1/assignments/01234567/claim", "trade"),
        ("POST", "/v1/outcomes", "ingest"),
        ("POST", "/v1/outcomes/batch", "ingest"),
        ("POST", "/v1/outcomes/01234567/revisions", "ingest"),
        ("POST", "/v1/shadow-outcomes/batch", "ingest"),
        ("POST", "/v1/marks", "ingest"),
        ("POST", "/v1/heartbeats", "ingest"),
        ("POST", "/v1/webhooks/alertmanager", "webhook"),
        ("GET", "/v1/experiments/btc/assignments", "read"),
        ("DELETE", "/v1/outcomes", "operate"),
        ("POST", "/v1/kill", "operate"),
        ("DELETE", "/v1/kill", "operate"),
        ("POST", "/v1/outcomes-of-a-later-release", "operate"),
        ("POST", "/v1/experiments/a/b/assignments", "operate"),
        ("POST", "/v1/experiments/btc/assignments/", "operate"),
        ("POST", "/v1/webhooks/", "operate"),
        ("OPTIONS", "/v1/outcomes", "operate"),
    ],
)
def test_the_scopes_of_the_contract(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path).value == scope


def test_decisions_and_audit_rows_name_the_key(engine: Engine) -> None:
    open_btc(engine)
    keys = [entry("k1", "operate", name="night-desk")]
    with service(engine, keys=keys, key="own") as client:
        halt = "/v1/experiments/btc/arms/eee02a74/halt"
        done = httpx.post(
            client.base_url.join(halt), json={"reason": "drill"}, headers=bearer("k1")
        )
        assert done.status_code == 200
        assert client.post("/v1/experiments/btc/scale").status_code == 200
    with service(engine) as client:
        resume = "/v1/experiments/btc/arms/eee02a74/resume"
        assert client.post(resume, json={"reason": "drill"}).status_code == 200
    with engine.connect() as connection:
        actors = connection.execute(text("SELECT actor FROM audit_log ORDER BY 1")).scalars().all()
    assert {"night-desk", "owner", "local"} <= set(actors)


def test_two_keys_of_a_name_are_valid_while_one_replaces_the_other(engine: Engine) -> None:
    clock = VirtualClock(NOON)
    end = NOON + timedelta(hours=1)
    keys = [entry("old", "read", expires_at=end), entry("new", "read")]
    with service(engine, keys=keys, clock=clock) as client:
        url = client.base_url.join("/v1/policies")
        both = [httpx.get(url, headers=bearer(key)).status_code for key in ("old", "new")]
        clock.advance_to(end)
        old, new = (httpx.get(url, headers=bearer(key)) for key in ("old", "new"))
    assert both == [200, 200]
    assert (old.status_code, old.json()["code"], new.status_code) == (401, "unauthorized", 200)
    assert old.json()["detail"] == "the key of bot expired at 2026-03-01 13:00:00+00:00"


def test_a_service_whose_last_key_has_expired_is_closed(engine: Engine) -> None:
    with service(engine, keys=[entry("k", "read", expires_at=NOON)]) as client:
        url = client.base_url.join("/v1/policies")
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers=bearer("k")).status_code == 401


@pytest.mark.parametrize("presented", ["k1 ", "K1", "k", "k11", "k2", "", "\xff", "k1, k2"])
def test_no_other_text_is_a_key(presented: str) -> None:
    ring = Keyring.of(application(connect("postgresql://"), keys=[entry("k1", "read")]).settings)
    assert ring.find("k1") is not None
    assert ring.find(presented) is None


def test_a_key_beyond_ascii_is_its_utf_8(engine: Engine) -> None:
    with service(engine, keys=[entry("schlüssel", "read")]) as client:
        headers = {"Authorization": "Bearer schlüssel".encode()}
        answer = httpx.get(client.base_url.join("/v1/policies"), headers=headers)
    assert answer.status_code == 200


def test_keys_that_end_within_a_week_are_logged_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    day = timedelta(days=1)
    ends = {"past": -day, "soon": 7 * day, "later": 7 * day + timedelta(seconds=1)}
    keys = [entry(name, "read", name=name, expires_at=NOON + left) for name, left in ends.items()]
    ring = Keyring.of(application(connect("postgresql://"), keys=keys).settings)
    with caplog.at_level(logging.WARNING):
        warn_of_ending_keys(ring, now=NOON)
    said = [
        (record.getMessage(), vars(record)["key_name"], vars(record)["state"])
        for record in caplog.records
    ]
    assert said == [("API key ends", "past", "expired"), ("API key ends", "soon", "expires soon")]


def test_without_a_key_no_security_is_described() -> None:
    api = create_api(application(connect("postgresql://")))
    assert "securitySchemes" not in api.openapi()["components"]
