"""Routes a bot calls: which arm decides, and what the decision earned."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.model import UnitId
from bandit.core.outcomes import Outcome
from bandit.service import recording
from bandit.service.recording import BATCH_MAX, Recorded
from bandit.service.routing_table import Opportunity
from liveops.api.answers import AssignmentAnswer, LineAnswer, OutcomeAnswer
from liveops.api.bodies import (
    JSON,
    NewAssignment,
    NewOutcome,
    body_of,
    read,
    read_bytes,
    require_type,
    schema_of,
)
from liveops.api.parameters import Application, ExperimentName
from liveops.api.problems import declared, problem_of
from liveops.api.strict_json import parse

router = APIRouter(prefix="/v1", responses=declared(503))

NDJSON = "application/x-ndjson"
BATCH_BYTES_MAX = 4 * 1024 * 1024

_WRITES = declared(400, 404, 409, 413, 415, 422)


@router.post(
    "/experiments/{experiment}/assignments",
    openapi_extra=schema_of(NewAssignment),
    responses=_WRITES,
)
def assign(
    app: Application,
    experiment: ExperimentName,
    body: Annotated[NewAssignment, Depends(body_of(NewAssignment))],
) -> AssignmentAnswer:
    """Choose the arm of a unit; again for the same unit gives the same bytes."""
    opportunity = Opportunity(
        unit_id=UnitId(body.unit_id),
        instrument=body.instrument,
        context=body.context,
        proposed_actions=body.proposed_actions,
        position=body.position,
    )
    (made,) = app.router.assign(experiment, [opportunity], now=app.clock.now())
    return AssignmentAnswer.of(made)


@router.post(
    "/outcomes",
    status_code=201,
    openapi_extra=schema_of(NewOutcome),
    responses=_WRITES
    | {200: {"description": "Recorded before, with the same body", "model": OutcomeAnswer}},
)
def record_outcome(
    app: Application,
    body: Annotated[NewOutcome, Depends(body_of(NewOutcome))],
    response: Response,
) -> OutcomeAnswer:
    """Record what a decision earned; again with the same body answers 200 and the same bytes."""
    (answer,) = recording.record(app.engine, [body.outcome()], now=app.clock.now())
    if isinstance(answer, BanditError):
        raise answer
    response.status_code = 201 if answer.created else 200
    return OutcomeAnswer.of(answer)


async def _batch(request: Request) -> tuple[str, bytes]:
    media_type = require_type(request, NDJSON, JSON)
    return media_type, await read_bytes(request, most=BATCH_BYTES_MAX)


_BATCH_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            NDJSON: {"schema": {"type": "string", "description": "A NewOutcome on every line."}},
            JSON: {
                "schema": {
                    "type": "array",
                    # Anything else is lawful too: it fails alone, and the answer says so.
                    "items": {"anyOf": [{"$ref": "#/components/schemas/NewOutcome"}, {}]},
                    "minItems": 1,
                    "maxItems": BATCH_MAX,
                }
            },
        },
    }
}


@router.post(
    "/outcomes/batch",
    openapi_extra=_BATCH_SCHEMA,
    response_model=list[LineAnswer],
    responses=declared(400, 413, 415, 422)
    | {200: {"description": "One result per line, in order", "content": {NDJSON: {}}}},
)
def record_batch(
    app: Application, batch: Annotated[tuple[str, bytes], Depends(_batch)]
) -> Response:
    """Record up to 1000 outcomes; a line at fault gets its problem and takes no other with it.

    NDJSON is answered in NDJSON, a JSON array in a JSON array.
    """
    media_type, body = batch
    entries = _entries(media_type, body)
    lawful = [entry for entry in entries if isinstance(entry, Outcome)]
    now = app.clock.now()
    recorded = iter(recording.record(app.engine, lawful, now=now) if lawful else ())
    answers = [next(recorded) if isinstance(entry, Outcome) else entry for entry in entries]
    lines = [_line(number, answer) for number, answer in enumerate(answers, start=1)]
    if media_type == NDJSON:
        return Response("".join(f"{line}\n" for line in lines), media_type=NDJSON)
    return Response(f"[{','.join(lines)}]", media_type=JSON)


def _entries(media_type: str, body: bytes) -> list[Outcome | BanditError]:
    if media_type == NDJSON:
        lines = body.removesuffix(b"\n").split(b"\n")
        _require_count(len(lines) if body else 0)
        return [_outcome_in(line) for line in lines]
    values = parse(body)
    if not isinstance(values, list):
        raise InvalidInput(field="batch", rule="must be a JSON array", found=type(values).__name__)
    _require_count(len(values))
    return [_outcome_of(value) for value in values]


def _require_count(count: int) -> None:
    if not 1 <= count <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} outcomes"
        raise InvalidInput(field="batch", rule=rule, found=count)


def _outcome_in(line: bytes) -> Outcome | BanditError:
    try:
        value = parse(line)
    except InvalidInput as error:
        return error
    return _outcome_of(value)


def _outcome_of(value: object) -> Outcome | BanditError:
    try:
        return read(NewOutcome, value).outcome()
    except InvalidInput as error:
        return error


def _line(number: int, answer: Recorded | BanditError) -> str:
    if isinstance(answer, BanditError):
        problem = problem_of(answer)
        made = LineAnswer(line=number, status=problem.status, problem=problem)
    else:
        status = 201 if answer.created else 200
        made = LineAnswer(line=number, status=status, outcome=OutcomeAnswer.of(answer))
    return made.model_dump_json(exclude_none=True)
