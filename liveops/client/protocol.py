"""What is sent, and what an answer means: no socket, no file and no clock in here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from liveops.client.errors import (
    Expired,
    InvalidInput,
    Killed,
    NotSelected,
    Paused,
    PositionLimit,
    Problem,
    RequestRefused,
    Revoked,
    SizeLimit,
    Unreconciled,
)
from liveops.client.values import (
    RATIO_LIMIT,
    Acted,
    Action,
    Assignment,
    AssignmentId,
    Champion,
    Fallback,
    Reason,
    Sizing,
)

JSON = "application/json"

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_UNIT = re.compile(r"[!-~]{1,128}")
_INSTRUMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,31}")
_ID = re.compile(r"[0-9a-fA-F-]{36}")
_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What goes to the service."""

    method: str
    path: str
    body: bytes = b""
    media_type: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back; where nothing did, None stands for it."""

    status: int
    body: bytes
    retry_after_seconds: float = 0.0
    watch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request's end: `reply` is None when there was none, and then `reason` says why."""

    reply: Reply | None
    sent_at: datetime
    reason: Reason = Reason.NO_ANSWER


def checked_url(url: str) -> str:
    """Return the service's base address without a slash at its end.

    >>> checked_url("http://127.0.0.1:8800/")
    'http://127.0.0.1:8800'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(field="url", rule="must be an http or https address", found=parts.scheme)
    if parts.username is not None or parts.query or parts.fragment:
        # Not shown: it may hold a password.
        rule = "must have no user, query or fragment"
        raise InvalidInput(field="url", rule=rule, found=parts.hostname)
    return url.rstrip("/")


def checked_key(key: str | None) -> str | None:
    """Return the API key, or say what is wrong with it without showing it."""
    if key is not None and _KEY.fullmatch(key) is None:
        rule = "must be printable ASCII without spaces"
        raise InvalidInput(field="key", rule=rule, found=f"{len(key)} characters")
    return key


def checked_name(experiment: str) -> str:
    """Return the experiment's name; it becomes part of addresses and of a file's name."""
    return _matching(_NAME, experiment, field="experiment")


def assignment_request(
    experiment: str,
    *,
    unit_id: str,
    instrument: str,
    context: object = None,
    proposed_actions: object = None,
    position: AssignmentId | None = None,
    sight: Mapping[str, object] | None = None,
) -> Request:
    """Return the question which policy decides a unit, and with a `sight`, what it does."""
    body = {
        "unit_id": _matching(_UNIT, unit_id, field="unit_id"),
        "instrument": _matching(_INSTRUMENT, instrument, field="instrument"),
        "context": context,
        "proposed_actions": proposed_actions,
        "position": position,
    }
    told = {name: value for name, value in body.items() if value is not None}
    route = "assignments" if sight is None else "decide"
    return post(f"/v1/experiments/{experiment}/{route}", encoded({**told, **(sight or {})}))


def claim_request(assignment: AssignmentId, told: Mapping[str, float]) -> Request:
    """Return the question whether an order may be placed on a decision, and of which size."""
    path = f"/v1/assignments/{checked_id(assignment)}/claim"
    return post(path, encoded(told) if told else b"")


def claim_fields(
    *, position_size: Decimal | float | None, leverage: Decimal | float | None
) -> dict[str, float]:
    """Return what is told of a position that is about to open, checked; nothing of what is None.

    >>> claim_fields(position_size=Decimal("0.02"), leverage=None)
    {'position_size': 0.02}
    """
    told = {"position_size": position_size, "leverage": leverage}
    fields = {name: float(value) for name, value in told.items() if value is not None}
    for name, value in fields.items():
        if not 0 < value <= RATIO_LIMIT:
            rule = f"must be above 0 and at most {RATIO_LIMIT}"
            raise InvalidInput(field=name, rule=rule, found=value)
    return fields


def champion_request(experiment: str) -> Request:
    """Return the question who the champion is."""
    return Request(method="GET", path=f"/v1/experiments/{experiment}")


def report_request(experiment: str, body: str) -> Request:
    """Return the report of a decision that the client took alone, as it is sent."""
    return post(f"/v1/experiments/{experiment}/fallbacks", body.encode())


def fallback_body(fallback: Fallback) -> str:
    """Return the report of a decision that the client took alone."""
    body = {
        "unit_id": fallback.unit_id,
        "instrument": fallback.instrument,
        "decided_at": fallback.decided_at.isoformat(),
        "reason": fallback.reason.value,
        "policy": fallback.policy,
    }
    return encoded(body).decode()


def report_body(fields: Mapping[str, object], assignment: AssignmentId | None) -> str:
    """Return an outcome or a mark; without the id of a decision the service does not know yet.

    >>> report_body({"no_trade": True}, None)
    '{"no_trade":true}'
    """
    known = {} if assignment is None else {"assignment_id": checked_id(assignment)}
    return encoded({**known, **fields}).decode()


def with_assignment(body: str, assignment: AssignmentId) -> str:
    """Return the body of a report whose decision the service has come to know."""
    return encoded({"assignment_id": assignment, **json.loads(body)}).decode()


def checked_id(assignment: AssignmentId) -> AssignmentId:
    """Return the id; it becomes part of an address."""
    return AssignmentId(_matching(_ID, assignment, field="assignment"))


def is_unreachable(reply: Reply | None) -> bool:
    """Say whether the service is away: no answer, or one of a server that failed."""
    return reply is None or reply.status >= 500


def is_blocked(reply: Reply) -> bool:
    """Say whether the answer to a heartbeat tells that nothing new opens on its account.

    >>> is_blocked(Reply(status=200, body=b'{"bot":"alpha","blocked":true}'))
    True
    """
    answer = parsed(reply.body)
    return isinstance(answer, dict) and answer.get("blocked") is True


def may_retry(reply: Reply | None) -> bool:
    """Say whether the same request may do better at once."""
    return reply is None or reply.status == 503


def require_granted(reply: Reply) -> dict[str, Any]:
    """Return the object that the service answered with, or raise what it refused."""
    answer = granted(reply)
    if not isinstance(answer, dict):
        raise refusal_of(problem_of(reply))
    return answer


def granted(reply: Reply) -> Any:
    """Return what the service answered, or raise what it refused."""
    if 200 <= reply.status < 300:
        return parsed(reply.body)
    raise refusal_of(problem_of(reply))


def refusal_of(problem: Problem) -> RequestRefused:
    """Return the error that stands for a problem."""
    if problem.code == "paused":
        return Paused(problem)
    if problem.code == "unreconciled":
        return Unreconciled(problem)
    if problem.status == 423 or problem.code == "killed":
        return Killed(problem)
    by_code = {
        "not_selected": NotSelected,
        "revoked": Revoked,
        "expired": Expired,
        "position_limit": PositionLimit,
        "size_limit": SizeLimit,
    }
    return by_code.get(problem.code, RequestRefused)(problem)


def problem_of(reply: Reply) -> Problem:
    """Return what a reply complains of, even where a proxy sent it and it is no document.

    >>> problem_of(Reply(status=502, body=b"<html>")).code
    'unexpected_answer'
    """
    said = parsed(reply.body)
    return problem_from(said if isinstance(said, dict) else {}, status=reply.status)


def assignment_of(answer: Mapping[str, Any]) -> tuple[Assignment, int]:
    """Return a decision of the service and the epoch it was made in."""
    try:
        made = Assignment(
            id=AssignmentId(str(answer["assignment_id"])),
            experiment=str(answer["experiment"]),
            unit_id=str(answer["unit_id"]),
            policy=str(answer["policy"]),
            policy_sha=str(answer["policy_sha"]),
            role=str(answer["role"]),
            propensity=float(answer["propensity"]),
            mode=str(answer["mode"]),
            size_multiplier=float(answer["size_multiplier"]),
            confidence_bump=float(answer["confidence_bump"]),
            decided_at=datetime.fromisoformat(answer["decided_at"]),
            expires_at=datetime.fromisoformat(answer["expires_at"]),
            sizing=_sizing_of(answer.get("sizing")),  # a service of before has none
        )
        return made, int(answer["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise unexpected("an assignment") from error


def _sizing_of(told: Mapping[str, Any] | None) -> Sizing | None:
    if told is None:
        return None
    most = told["max_open_positions"]
    return Sizing(
        base_position_size=float(told["base_position_size"]),
        max_position_size=float(told["max_position_size"]),
        max_leverage=float(told["max_leverage"]),
        max_open_positions=None if most is None else int(most),
        stop_loss_pct=float(told["stop_loss_pct"]),
        take_profit_pct=float(told["take_profit_pct"]),
    )


def acted_of(made: Assignment, answer: Mapping[str, Any]) -> Acted:
    """Return a decision with the action that the service answered beside it, if any."""
    try:
        told, reason = answer["action"], answer["no_action_reason"]
        action = None
        if told is not None:
            action = Action(
                move=str(told["move"]),
                position=float(told["position"]),
                size=float(told["size"]),
                choice=str(told["choice"]),
                confidence=float(told["confidence"]),
                reasons=tuple(dict(check) for check in told["reasons"]),
            )
    except (KeyError, TypeError, ValueError) as error:
        raise unexpected("an action") from error
    return Acted(assignment=made, action=action, no_action_reason=reason)


def champion_of(answer: Mapping[str, Any]) -> Champion:
    """Return who the champion of an experiment is."""
    try:
        policy = str(answer["champion"])
        return Champion(
            policy=policy,
            policy_sha=next(a["policy_sha"] for a in answer["arms"] if a["policy"] == policy),
            epoch=int(answer["epoch"]),
            decision_seconds_valid=float(answer["decision_seconds_valid"]),
        )
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise unexpected("an experiment") from error


def claimed_at_of(answer: Mapping[str, Any]) -> datetime:
    """Return when a decision was claimed first."""
    try:
        return datetime.fromisoformat(answer["claimed_at"])
    except (KeyError, TypeError, ValueError) as error:
        raise unexpected("a claim") from error


def post(path: str, body: bytes, *, media_type: str = JSON) -> Request:
    """Return what is sent to an address."""
    return Request(method="POST", path=path, body=body, media_type=media_type)


def parsed(body: bytes) -> Any:
    """Return a JSON document, or None for what is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def problem_from(said: Mapping[str, Any], *, status: int) -> Problem:
    """Return the problem of a document that may lack every field."""
    field, rule, paused = said.get("field"), said.get("rule"), said.get("paused")
    open_ = said.get("open")
    return Problem(
        status=status,
        code=str(said.get("code", "unexpected_answer")),
        detail=str(said.get("detail", f"the service answered {status}"))[:1000],
        field=None if field is None else str(field),
        rule=None if rule is None else str(rule),
        paused={str(name): str(told) for name, told in paused.items()}
        if isinstance(paused, dict)
        else None,
        limit=_number(said.get("limit")),
        found=_number(said.get("found")),
        open=[dict(each) for each in open_ if isinstance(each, dict)]
        if isinstance(open_, list)
        else None,
    )


def _number(told: object) -> float | None:
    return float(told) if isinstance(told, int | float) else None


def encoded(value: object, *, field: str = "context") -> bytes:
    """Return what is sent of a value; raises `InvalidInput`, naming `field`, where it is no JSON.

    >>> encoded({"a": 1})
    b'{"a":1}'
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        rule = "must be JSON: text, finite numbers, true, false, null, lists and objects"
        raise InvalidInput(field=field, rule=rule, found=error) from None


def _matching(pattern: re.Pattern[str], value: str, *, field: str) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidInput(field=field, rule=f"must match {pattern.pattern}", found=value)
    return value


def unexpected(expected: str) -> RequestRefused:
    """Return the error of an answer that is something else than it should be."""
    detail = f"the service answered with something else than {expected}"
    return RequestRefused(Problem(status=200, code="unexpected_answer", detail=detail))
