"""Routes that bots wait for: the same contract as every other, without the general machinery.

FastAPI describes them in OpenAPI from the same models as the others; at run time their handler gets
the request as it is. Bodies of the usual shape are read by msgspec, and whatever it does not take
by the strict reader, whose word is final.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from bandit.core.errors import InvalidInput
from bandit.core.model import Assignment, UnitId
from bandit.service.routing_table import Opportunity
from liveops.api.answers import AssignmentAnswer, assignment_values
from liveops.api.bodies import NewAssignment, is_uuid, read
from liveops.api.strict_json import parse


class HotRoute(APIRoute):
    """Hands the request to `endpoint(request, **path_parameters)` and sends what it returns."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what any route takes."""
        super().__init__(*arguments, **options)
        endpoint = self.endpoint

        async def bare(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            response = await endpoint(request, **scope["path_params"])
            await response(scope, receive, send)

        self.app = bare


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
_Answer = msgspec.defstruct("_Answer", [(name, Any) for name in AssignmentAnswer.model_fields])
_encode = msgspec.json.Encoder().encode


def opportunity_in(body: bytes) -> Opportunity:
    """Return the opportunity that a body tells of, or refuse it as every other route would."""
    values = _usual(body)
    if values is not None:
        return Opportunity(
            unit_id=UnitId(values["unit_id"]),
            instrument=values["instrument"],
            position=UUID(values["position"]) if "position" in values else None,
        )
    asked = read(NewAssignment, parse(body))
    return Opportunity(
        unit_id=UnitId(asked.unit_id),
        instrument=asked.instrument,
        context=asked.context,
        proposed_actions=asked.proposed_actions,
        position=asked.position,
    )


def assignment_json(made: Assignment) -> bytes:
    """Return an assignment as callers read it, in the fields of `AssignmentAnswer`."""
    return _encode(_Answer(**assignment_values(made)))


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
