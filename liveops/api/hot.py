"""Routes that bots wait for: the same contract as every other, without the general machinery.

FastAPI describes them in OpenAPI from the same models as the others, and would answer the same; at
run time their handler gets the request before any middleware does. Bodies of the usual shape are
read by msgspec, and whatever it does not take by the strict reader, whose word is final.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alerts.http_metrics import RouteGroup
from bandit.core.errors import InvalidInput
from bandit.core.model import Assignment, UnitId
from bandit.service.routing_table import Opportunity
from liveops.api.answers import assignment_values
from liveops.api.bodies import NewAssignment, is_uuid, read
from liveops.api.problems import answer_to
from liveops.api.strict_json import parse
from liveops.clock import monotonic
from liveops.request_times import RequestTimes, group_of

Endpoint = Callable[..., Awaitable[Response]]


class _HotRoute(NamedTuple):
    pattern: re.Pattern[str]
    endpoint: Endpoint
    guarded: ASGIApp
    group: RouteGroup


class HotApi(FastAPI):
    """An application whose hot routes get their request before any middleware sees it.

    `enter_by` says which; to everything else FastAPI answers. Every request is counted.
    """

    def __init__(self, times: RequestTimes, **options: Any) -> None:
        """Count requests in `times`; `options` are FastAPI's."""
        super().__init__(**options)
        self._times = times
        self._hot: tuple[_HotRoute, ...] = ()

    def enter_by(self, guard: Callable[[ASGIApp], ASGIApp], routes: Sequence[BaseRoute]) -> None:
        """Serve the POST routes among `routes` behind `guard` alone."""
        guarded = guard(_answered)
        self._hot += tuple(
            _HotRoute(route.path_regex, route.endpoint, guarded, group_of("POST", route.path))
            for route in routes
            if isinstance(route, APIRoute)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        began, status = monotonic(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        serve, group = self._entry(scope)
        try:
            await serve(scope, receive, told)
        finally:
            self._times.count(group, status=status, seconds=monotonic() - began)

    def _entry(self, scope: Scope) -> tuple[ASGIApp, RouteGroup]:
        """Return who answers, and what the request is for."""
        method, path = scope["method"], scope["path"]
        if method == "POST":
            for hot in self._hot:
                found = hot.pattern.match(path)
                if found is not None:
                    scope["app"] = self
                    scope["hot"] = hot.endpoint, found.groupdict()
                    return hot.guarded, hot.group
        return super().__call__, group_of(method, path)


class QuickJson(Response):
    """An answer of ready JSON, its headers made in one go."""

    def __init__(
        self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with `body`."""
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]
        for name, value in (headers or {}).items():
            self.raw_headers.append((name.lower().encode(), value.encode()))


async def _answered(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive, send)
    endpoint, parameters = scope["hot"]
    try:
        response = await endpoint(request, **parameters)
    except Exception as error:
        response = await answer_to(request, error)
        await response(scope, receive, send)
        if response.status_code == 500:
            raise  # the server logs it
        return
    await response(scope, receive, send)


# Text fields only: what may hold any JSON is read strictly.
_TEXT_FIELDS = tuple(
    name for name in NewAssignment.model_fields if name not in ("context", "proposed_actions")
)
_Usual = msgspec.defstruct(
    "_Usual",
    [(name, str | msgspec.UnsetType, msgspec.UNSET) for name in _TEXT_FIELDS],
    forbid_unknown_fields=True,
)
_decode = msgspec.json.Decoder(_Usual).decode
encoded = msgspec.json.Encoder().encode


def opportunity_in(body: bytes) -> Opportunity:
    """Return the opportunity that a body tells of, or refuse it as every other route would."""
    values = _usual(body)
    if values is not None:
        return Opportunity(
            unit_id=UnitId(values["unit_id"]),
            instrument=values["instrument"],
            position=UUID(values["position"]) if "position" in values else None,
        )
    return opportunity_of(read(NewAssignment, parse(body)))


def opportunity_of(asked: NewAssignment) -> Opportunity:
    """Return the opportunity that a strictly read body tells of."""
    return Opportunity(
        unit_id=UnitId(asked.unit_id),
        instrument=asked.instrument,
        context=asked.context,
        proposed_actions=asked.proposed_actions,
        position=asked.position,
    )


def assignment_json(made: Assignment) -> bytes:
    """Return an assignment as callers read it, in the fields of `AssignmentAnswer`."""
    return encoded(assignment_values(made))


def uuid_in(text: str, *, field: str) -> UUID:
    """Return the UUID of an address.

    >>> uuid_in("12", field="assignment")
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: assignment: must be a UUID, found '12'
    """
    if not is_uuid(text):
        raise InvalidInput(field=field, rule="must be a UUID", found=repr(text))
    return UUID(text)


def _usual(body: bytes) -> dict[str, str] | None:
    """Return the fields of a body that nobody could read in two ways; None for any other.

    Without a backslash, every quotation mark opens or closes a key or a text: four a field, and
    more where a key comes twice, of which msgspec would take the last.
    """
    if b"\\" in body:
        return None
    try:
        found = _decode(body)
    except msgspec.DecodeError:
        return None
    values = {
        name: value for name in _TEXT_FIELDS if (value := getattr(found, name)) is not msgspec.UNSET
    }
    is_plain = body.count(b'"') == 4 * len(values)
    is_whole = "unit_id" in values and "instrument" in values
    has_uuid = "position" not in values or is_uuid(values["position"])
    return values if is_plain and is_whole and has_uuid else None
