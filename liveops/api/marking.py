"""Routes about an account's money: marks of open positions, and where every account stands."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.marks import Mark, PositionMark
from bandit.service import accounts, marking
from bandit.service.marking import BATCH_MAX
from liveops.api.account_answers import AccountAnswer, MarkAnswer, MarkLineAnswer
from liveops.api.bodies import JSON, NewMark, read, read_bytes, require_type
from liveops.api.parameters import Application
from liveops.api.problems import declared, problem_of
from liveops.api.strict_json import parse

router = APIRouter(prefix="/v1", responses=declared(503))

MARKS_BYTES_MAX = 1024 * 1024

_MARKS_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/NewMark"},
                        {
                            "type": "array",
                            # Anything else is lawful too: it fails alone, and the answer says so.
                            "items": {"anyOf": [{"$ref": "#/components/schemas/NewMark"}, {}]},
                            "minItems": 1,
                            "maxItems": BATCH_MAX,
                        },
                    ]
                }
            }
        },
    }
}


async def _marks(request: Request) -> object:
    require_type(request, JSON)
    return parse(await read_bytes(request, most=MARKS_BYTES_MAX))


@router.post(
    "/marks",
    openapi_extra=_MARKS_SCHEMA,
    response_model=MarkAnswer | list[MarkLineAnswer],
    responses=declared(400, 404, 409, 413, 415, 422),
)
def mark_positions(
    app: Application, values: Annotated[object, Depends(_marks)]
) -> MarkAnswer | Response:
    """Mark one open position, or up to 1000 of them; the answer says what stands of each.

    An array is answered by an array; a mark at fault gets its problem and takes no other with it.
    """
    if not isinstance(values, list):
        (answer,) = marking.mark(app.engine, [read(NewMark, values).mark()], now=app.clock.now())
        if isinstance(answer, BanditError):
            raise answer
        return MarkAnswer.of(answer)
    if not 1 <= len(values) <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} marks"
        raise InvalidInput(field="batch", rule=rule, found=len(values))
    entries = [_mark_of(value) for value in values]
    lawful = [entry for entry in entries if isinstance(entry, Mark)]
    marked = iter(marking.mark(app.engine, lawful, now=app.clock.now()) if lawful else ())
    answers = [next(marked) if isinstance(entry, Mark) else entry for entry in entries]
    lines = [_line(number, answer) for number, answer in enumerate(answers, start=1)]
    return Response(f"[{','.join(lines)}]", media_type=JSON)


@router.get("/accounts", responses=declared())
def list_accounts(app: Application) -> list[AccountAnswer]:
    """List every account: its equity, its losses against their limits, its kill switch."""
    found = accounts.listed(app.engine, now=app.clock.now())
    return [AccountAnswer(**account.to_json()) for account in found]


def _mark_of(value: object) -> Mark | BanditError:
    try:
        return read(NewMark, value).mark()
    except InvalidInput as error:
        return error


def _line(number: int, answer: PositionMark | BanditError) -> str:
    if isinstance(answer, BanditError):
        problem = problem_of(answer)
        made = MarkLineAnswer(line=number, status=problem.status, problem=problem)
    else:
        made = MarkLineAnswer(line=number, status=200, mark=MarkAnswer.of(answer))
    return made.model_dump_json(exclude_none=True)
