"""What went wrong, as `application/problem+json` (RFC 9457) with a code that stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from bandit.core.errors import (
    AmbiguousName,
    BanditError,
    Conflict,
    Expired,
    ForeignProtocol,
    InvalidAllocation,
    InvalidInput,
    InvalidTransition,
    Killed,
    LedgerUnavailable,
    LockHeldElsewhere,
    NotSelected,
    Overloaded,
    Paused,
    PositionLimit,
    Revoked,
    SizeLimit,
    StaleEpoch,
    UnknownName,
    Unreconciled,
)
from learners.sealed_files import ArtifactRefused
from liveops.api.strict_json import MalformedJson

PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = 1

_log = logging.getLogger(__name__)


class PauseProblem(BaseModel):
    """The pause that stands in the way of an opportunity, which may be followed on paper."""

    experiment: str
    scope: str = Field(description="Whose guard it is: `experiment` or `account`.")
    since: str
    reason: str
    assignment_id: str = Field(description="What results on paper are told of.")
    policy: str = Field(description="Whom the opportunity was routed to.")


class OpenPosition(BaseModel):
    """A position that takes a place of its account."""

    assignment_id: str
    experiment: str
    instrument: str
    claimed_at: str


class Problem(BaseModel):
    """Why a request was refused; nothing of it was stored."""

    type: str = Field(examples=["urn:liveops:problem:invalid_input"])
    title: str
    status: int
    code: str = Field(description="Stable: programs may branch on it.")
    detail: str = Field(description="For people: what was expected and what was found.")
    field: str | None = Field(default=None, description="The field that breaks `rule`.")
    rule: str | None = None
    candidates: list[str] | None = Field(default=None, description="Names that would have fit.")
    paused: PauseProblem | None = None
    limit: float | None = Field(default=None, description="The sizing limit that was reached.")
    found: float | None = Field(default=None, description="What was held against it.")
    open: list[OpenPosition] | None = Field(
        default=None, description="What is open in the account, the oldest ten."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A code with the status and title it always has."""

    code: str
    status: int
    title: str


_OF_ERROR: Final[Mapping[type[BanditError], Kind]] = {
    error: Kind(code=error.code, status=status, title=title)
    for error, status, title in (
        (MalformedJson, 400, "The body is not lawful JSON"),
        (InvalidInput, 422, "A value breaks a rule of its field"),
        (UnknownName, 404, "Nothing is registered under this name"),
        (AmbiguousName, 409, "The prefix fits more than one policy"),
        (Conflict, 409, "The key was used before with another body"),
        (InvalidTransition, 409, "The arm cannot go there from its status"),
        (InvalidAllocation, 422, "The allocation would break a limit"),
        (LockHeldElsewhere, 409, "Another process does this now"),
        (StaleEpoch, 503, "The experiment changed meanwhile; try again"),
        (Killed, 423, "The kill switch is on"),
        (Unreconciled, 423, "Bots and ledger differ: nothing new opens"),
        (Paused, 409, "A performance guard lets nothing new open"),
        (NotSelected, 409, "Nothing new opens in this instrument now"),
        (PositionLimit, 409, "As many positions are open as may be"),
        (SizeLimit, 409, "The position would be over a sizing limit"),
        (Revoked, 409, "The arm may not act on the decision any more"),
        (Expired, 409, "The decision was not claimed in time"),
        (ArtifactRefused, 409, "A stored policy is not what its hash says"),
        (ForeignProtocol, 503, "This replica is older or newer than the ledger"),
        (Overloaded, 503, "Too much waits to be stored; try again"),
        (LedgerUnavailable, 503, "The ledger does not answer; try again"),
    )
}

INTERNAL: Final = Kind(code="internal_error", status=500, title="The service failed")
UNAUTHORIZED: Final = Kind(
    code="unauthorized", status=401, title="The API key is missing, wrong or expired"
)
SCOPE_MISSING: Final = Kind(
    code="scope_missing", status=403, title="The API key does not open this route"
)
FOREIGN_HOST: Final = Kind(
    code="foreign_host", status=403, title="Without a key only loopback names are served"
)
NO_SUCH_ROUTE: Final = Kind(code="no_such_route", status=404, title="There is no such route")
MALFORMED_REQUEST: Final = Kind(
    code="malformed_request", status=400, title="The request is not lawful HTTP"
)
REQUEST_TIMEOUT: Final = Kind(
    code="request_timeout", status=408, title="The request arrived too slowly"
)
HEADERS_TOO_LARGE: Final = Kind(
    code="headers_too_large", status=431, title="The headers are too large"
)
TOO_MANY_CONNECTIONS: Final = Kind(
    code="too_many_connections", status=503, title="The service is crowded; try again"
)

_OF_STATUS: Final[Mapping[int, Kind]] = {
    kind.status: kind
    for kind in (
        NO_SUCH_ROUTE,
        Kind(code="method_not_allowed", status=405, title="The route has other methods"),
        Kind(code="body_too_large", status=413, title="The body is too large"),
        Kind(code="unsupported_media_type", status=415, title="The body has another type"),
        INTERNAL,
    )
}

KINDS: Final = (
    *_OF_ERROR.values(),
    UNAUTHORIZED,
    SCOPE_MISSING,
    FOREIGN_HOST,
    *_OF_STATUS.values(),
    MALFORMED_REQUEST,
    REQUEST_TIMEOUT,
    HEADERS_TOO_LARGE,
    TOO_MANY_CONNECTIONS,
)
"""Every kind of problem there is; docs/http.md lists them."""


def kind_of(error: BanditError) -> Kind:
    """Return the kind of problem an error of the product is.

    >>> kind_of(Conflict("taken")).status
    409
    """
    for ancestor in type(error).__mro__:
        kind = _OF_ERROR.get(ancestor)
        if kind is not None:
            return kind
    return INTERNAL


def problem_of(error: BanditError) -> Problem:
    """Return an error of the product as callers read it.

    >>> problem_of(InvalidInput(field="pnl", rule="must be finite", found="NaN")).field
    'pnl'
    """
    kind = kind_of(error)
    match error:
        case InvalidInput():
            return _problem(kind, str(error), field=error.field, rule=error.rule)
        case InvalidAllocation():
            return _problem(kind, str(error), rule=error.limit)
        case UnknownName():
            return _problem(kind, str(error), candidates=error.known)
        case AmbiguousName():
            return _problem(kind, str(error), candidates=error.candidates)
        case Paused():
            return _problem(kind, str(error), paused=_pause(error))
        case PositionLimit():
            named = [OpenPosition.model_validate(each) for each in error.open]
            problem = _problem(kind, str(error))
            return problem.model_copy(
                update={"limit": error.limit, "found": error.found, "open": named}
            )
        case SizeLimit():
            problem = _problem(kind, str(error), field=error.field)
            return problem.model_copy(update={"limit": error.limit, "found": error.found})
        case _:
            return _problem(kind, str(error))


def refused(kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that reached no use case."""
    return _answer(_problem(kind, detail), headers=headers)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the problems a route may answer with."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles: dict[int, list[str]] = {}
    for kind in KINDS:
        titles.setdefault(kind.status, []).append(f"`{kind.code}`: {kind.title}")
    return {
        status: {"description": "; ".join(titles[status]), "content": content}
        for status in statuses
    }


def install(api: FastAPI) -> None:
    """Let every failure leave the API as a problem document."""
    api.add_exception_handler(BanditError, _on_error)
    api.add_exception_handler(RequestValidationError, _on_parameter)
    api.add_exception_handler(HTTPException, _on_refusal)
    api.add_exception_handler(Exception, _on_fault)


async def answer_to(request: Request, error: Exception) -> JSONResponse:
    """Return the problem document of any failure, for what FastAPI does not answer itself."""
    match error:
        case BanditError():
            return await _on_error(request, error)
        case HTTPException():
            return await _on_refusal(request, error)
        case _:
            return await _on_fault(request, error)


def _problem(
    kind: Kind,
    detail: str,
    *,
    field: str | None = None,
    rule: str | None = None,
    candidates: tuple[str, ...] = (),
    paused: PauseProblem | None = None,
) -> Problem:
    return Problem(
        type=f"urn:liveops:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        code=kind.code,
        # A caller chooses the names of its fields, and so their length.
        detail=detail[:1000],
        field=None if field is None else field[:200],
        rule=rule,
        candidates=list(candidates) or None,
        paused=paused,
    )


def _pause(error: Paused) -> PauseProblem:
    return PauseProblem(
        experiment=error.experiment,
        scope=error.scope,
        since=error.since.isoformat(),
        reason=error.reason,
        assignment_id=str(error.assignment_id),
        policy=error.policy,
    )


def _answer(problem: Problem, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    retry = {"Retry-After": str(RETRY_SECONDS)} if problem.status == 503 else {}
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        media_type=PROBLEM_JSON,
        headers={**retry, **(headers or {})},
    )


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BanditError)
    problem = problem_of(error)
    if problem.status >= 500:
        _log.warning(
            "request not served",
            extra={
                "method": request.method,
                # The template: names and ids in an address would make each line one of its own.
                "route": getattr(request.scope.get("route"), "path", None),
                "code": problem.code,
                "cause": _cause(error),
                "detail": problem.detail,
            },
        )
    return _answer(problem)


def _cause(error: BaseException) -> str:
    """Name the error that began it: `LedgerUnavailable` has many causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


async def _on_parameter(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    rule = str(first["msg"]).replace("Input should", "must").replace("String should", "must")
    field = str(first["loc"][-1])
    return _answer(problem_of(InvalidInput(field=field, rule=rule, found=repr(first["input"]))))


async def _on_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = {"Allow": _methods(request)} if error.status_code == 405 else error.headers
    kind = _OF_STATUS.get(error.status_code, INTERNAL)
    return refused(kind, error.detail, headers=headers)


def _methods(request: Request) -> str:
    # Starlette names the methods of the first route of an address; each of ours has one.
    def is_served(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(method for method in ("GET", "POST", "DELETE") if is_served(method))


async def _on_fault(_: Request, __: Exception) -> JSONResponse:
    # The server logs the fault and hangs up; a caller learns nothing of our inside.
    detail = "the request failed inside the service; its log says why"
    return refused(INTERNAL, detail, headers={"Connection": "close"})
