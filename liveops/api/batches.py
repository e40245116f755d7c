"""Bodies of many results: NDJSON, one a line, or a JSON array; answered in the same form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import Request, Response

from bandit.core.errors import InvalidInput
from bandit.service.recording import BATCH_MAX
from liveops.api.bodies import JSON, Body, read_bytes, require_type
from liveops.api.strict_json import parse

NDJSON = "application/x-ndjson"
BATCH_BYTES_MAX = 4 * 1024 * 1024

_Entry = TypeVar("_Entry")


async def batch_of(request: Request) -> tuple[str, bytes]:
    """Return a batch's media type and its bytes."""
    media_type = require_type(request, NDJSON, JSON)
    return media_type, await read_bytes(request, most=BATCH_BYTES_MAX)


def batch_schema(model: type[Body]) -> dict[str, Any]:
    """Return what OpenAPI says of a batch of `model`."""
    name = model.__name__
    return {
        "requestBody": {
            "required": True,
            "content": {
                NDJSON: {"schema": {"type": "string", "description": f"A {name} on every line."}},
                JSON: {
                    "schema": {
                        "type": "array",
                        # Anything else is lawful too: it fails alone, and the answer says so.
                        "items": {"anyOf": [{"$ref": f"#/components/schemas/{name}"}, {}]},
                        "minItems": 1,
                        "maxItems": BATCH_MAX,
                    }
                },
            },
        }
    }


def entries_of(
    batch: tuple[str, bytes],
    *,
    of_line: Callable[[bytes], _Entry],
    of_value: Callable[[object], _Entry],
) -> list[_Entry]:
    """Return what each line, or each value of the array, tells.

    Raises `InvalidInput` for an empty batch and for one that is too long.
    """
    media_type, body = batch
    if media_type == NDJSON:
        lines = body.removesuffix(b"\n").split(b"\n")
        _require_count(len(lines) if body else 0)
        return [of_line(line) for line in lines]
    values = parse(body)
    if not isinstance(values, list):
        raise InvalidInput(field="batch", rule="must be a JSON array", found=type(values).__name__)
    _require_count(len(values))
    return [of_value(value) for value in values]


def answered(batch: tuple[str, bytes], lines: Sequence[str]) -> Response:
    """Return the answer: one JSON object for each entry, in the form the batch came in."""
    media_type, _ = batch
    if media_type == NDJSON:
        return Response("".join(f"{line}\n" for line in lines), media_type=NDJSON)
    return Response(f"[{','.join(lines)}]", media_type=JSON)


def _require_count(count: int) -> None:
    if not 1 <= count <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} outcomes"
        raise InvalidInput(field="batch", rule=rule, found=count)
