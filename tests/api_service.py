"""The service over real HTTP, with a client that holds every answer against OpenAPI."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
from ledger import NOON
from sqlalchemy import Engine, text

from bandit.service.assigning import Router
from bandit.storage.engine import connect
from config.settings import Settings
from liveops.api.application import create_api
from liveops.api.server import serving
from liveops.breakers import Breakers
from liveops.clock import Clock, VirtualClock
from liveops.gpu import GpuWatch
from liveops.latch import Latch
from liveops.wiring import App

TABLES = (
    "policies",
    "experiments",
    "arms",
    "allocations",
    "assignments",
    "outcomes",
    "decisions",
    "audit_log",
)


class CheckedClient(httpx.Client):
    """An HTTP client that fails a test when an answer is not one the service documents."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        super().__init__(base_url=url, headers=headers)
        self.document = documented(with_key=key is not None)

    def request(self, method: str, url: Any, **values: Any) -> httpx.Response:
        response = super().request(method, url, **values)
        routes = self._routes(response.request.url.path)
        if routes is not None and method.lower() in routes:
            self._check(response, routes[method.lower()])
        return response

    def _routes(self, path: str) -> Mapping[str, Any] | None:
        for template, routes in self.document["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
                return routes
        return None

    def _check(self, response: httpx.Response, route: Mapping[str, Any]) -> None:
        documented = route["responses"].get(str(response.status_code))
        assert documented is not None, f"{response.status_code} is not documented: {response.text}"
        media_type = response.headers["content-type"].partition(";")[0]
        schema = documented["content"][media_type].get("schema")
        if schema is None:
            return
        components = {"components": self.document["components"]}
        jsonschema_rs.Draft202012Validator(schema | components).validate(response.json())


@cache
def documented(*, with_key: bool) -> dict[str, Any]:
    """What the service says of itself at /openapi.json; making it takes longer than most tests."""
    nowhere = connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    return create_api(application(nowhere, key="key" if with_key else None)).openapi()


@contextmanager
def service(
    engine: Engine,
    *,
    clock: Clock | None = None,
    key: str | None = None,
    router: Router | None = None,
    keys: Sequence[Mapping[str, Any]] = (),
    latch: Latch | None = None,
    settings: Mapping[str, Any] | None = None,
    gpus: GpuWatch | None = None,
    breakers: Breakers | None = None,
) -> Iterator[CheckedClient]:
    """Serve the ledger of `engine` on a free port, at noon of the tests' day unless told."""
    app = application(
        engine,
        clock=clock,
        key=key,
        router=router,
        keys=keys,
        latch=latch,
        settings=settings,
        gpus=gpus,
        breakers=breakers,
    )
    with serving(app, host="127.0.0.1", port=0) as url, CheckedClient(url, key=key) as client:
        yield client


def application(
    engine: Engine,
    *,
    clock: Clock | None = None,
    key: str | None = None,
    router: Router | None = None,
    keys: Sequence[Mapping[str, Any]] = (),
    latch: Latch | None = None,
    settings: Mapping[str, Any] | None = None,
    gpus: GpuWatch | None = None,
    breakers: Breakers | None = None,
) -> App:
    """An App on the ledger of `engine` with default settings but for those told."""
    told = {"api_key": key, "api_keys": list(keys), **(settings or {})}
    return App(
        settings=Settings.model_validate(told),
        engine=engine,
        router=router or Router(engine),
        clock=clock or VirtualClock(NOON),
        latch=latch or Latch(Path("/nowhere/KILLED")),
        demo=False,
        revive=lambda: None,
        gpus=gpus or GpuWatch(),
        breakers=breakers or Breakers(),
    )


def row_counts(engine: Engine) -> dict[str, int]:
    """How many rows every table has that a request could add to."""
    with engine.connect() as connection:
        return {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in TABLES
        }


def post(client: httpx.Client, path: str, body: bytes, kind: str = "json") -> httpx.Response:
    """Send raw bytes."""
    return client.post(path, content=body, headers={"Content-Type": f"application/{kind}"})


def outcome_body(assignment: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A lawful outcome of an assignment that `fields` may spoil; a field set to ... is left out."""
    at = assignment["decided_at"]
    body = {
        "assignment_id": assignment["assignment_id"],
        "pnl": "12.34",
        "return": 0.0012,
        "opened_at": at,
        "closed_at": at,
    } | fields
    return {name: value for name, value in body.items() if value is not ...}


def ndjson(*lines: Any) -> bytes:
    """Lines of JSON; bytes stand for themselves."""
    encoded = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return b"".join(line + b"\n" for line in encoded)
