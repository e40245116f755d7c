"""Routes a bot calls: which arm decides, and what the decision earned."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.model import PolicyName, UnitId
from bandit.core.outcomes import Outcome
from bandit.core.sizing import Claim
from bandit.service import promoting, recording
from bandit.service.live_recording import LiveRecorder
from bandit.service.live_routing import LiveRouter
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity
from liveops.api.answers import (
    AssignmentAnswer,
    ClaimAnswer,
    LineAnswer,
    OutcomeAnswer,
    assignment_values,
    claim_values,
)
from liveops.api.batches import NDJSON, answered, batch_of, batch_schema, entries_of
from liveops.api.bodies import (
    JSON,
    JSON_BYTES_MAX,
    Body,
    NewAssignment,
    NewFallback,
    NewOutcome,
    Ratio,
    body_of,
    read,
    read_bytes,
    require_type,
    schema_of,
)
from liveops.api.hot import QuickJson, assignment_json, opportunity_in, uuid_in
from liveops.api.outcome_lines import outcome_in
from liveops.api.parameters import Application, AssignmentId, Caller, ExperimentName
from liveops.api.problems import declared, problem_of
from liveops.api.strict_json import parse
from liveops.api.watching import NAMES_EXPERIMENT, WATCHED, watch_headers
from liveops.wiring import App

router = APIRouter(prefix="/v1", responses=declared(503))
hot = APIRouter(prefix="/v1", responses=declared(503))
hot_outcomes = APIRouter(prefix="/v1", responses=declared(503))

_WRITES = declared(400, 404, 409, 413, 415, 422)


class NewClaim(Body):
    """What is about to be opened, if the decision still stands; all of it may be left out."""

    position_size: Ratio | None = Field(
        default=None, description="The position as a fraction of equity."
    )
    leverage: Ratio | None = Field(default=None, description="Times its margin.")

    def claim(self, assignment: UUID) -> Claim:
        """Return the checked claim; raises `InvalidInput` naming the field and the rule."""
        return Claim(
            assignment=assignment,
            position_size=None if self.position_size is None else float(self.position_size),
            leverage=None if self.leverage is None else float(self.leverage),
        )


@hot.post(
    "/experiments/{experiment}/assignments",
    openapi_extra=schema_of(NewAssignment),
    response_model=AssignmentAnswer,
    responses=_WRITES | declared(423) | WATCHED,
)
async def assign(request: Request, experiment: ExperimentName) -> Response:
    """Choose the arm of a unit; again for the same unit gives the same bytes."""
    require_type(request, JSON)
    asked = opportunity_in(await read_bytes(request, most=JSON_BYTES_MAX))
    made = await _live(request).assign(experiment, asked)
    # After the commit: no answer leaves once the latch is set.
    _app(request).latch.require_open()
    return QuickJson(assignment_json(made), headers=watch_headers(request, experiment))


@hot.post(
    "/assignments/{assignment}/claim",
    openapi_extra=schema_of(NewClaim, required=False) | NAMES_EXPERIMENT,
    response_model=ClaimAnswer,
    responses=_WRITES | declared(423) | WATCHED,
)
async def claim(request: Request, assignment: AssignmentId) -> Response:
    """Ask just before the order whether the decision still stands; again, the same answer.

    What is told of the position that is about to open is held against the sizing limits.
    """
    asked = Claim(assignment=uuid_in(assignment, field="assignment"))
    body = await read_bytes(request, most=JSON_BYTES_MAX)
    if body:
        require_type(request, JSON)
        asked = read(NewClaim, parse(body)).claim(asked.assignment)
    claimed_at = await _live(request).claim(asked)
    _app(request).latch.require_open()
    return JSONResponse(claim_values(assignment, claimed_at), headers=watch_headers(request))


@router.post(
    "/experiments/{experiment}/fallbacks",
    openapi_extra=schema_of(NewFallback),
    responses=_WRITES,
)
def report_fallback(
    app: Application,
    caller: Caller,
    experiment: ExperimentName,
    body: Annotated[NewFallback, Depends(body_of(NewFallback))],
) -> AssignmentAnswer:
    """Tell of a decision that a bot took for the champion alone; it never counts as evidence.

    It happened, so it is taken while the account is killed too. Again gives the same answer.
    """
    opportunity = Opportunity(
        unit_id=UnitId(body.unit_id),
        instrument=body.instrument,
        context={"fallback": {"reason": body.reason, "reported_by": caller}},
        fallback_at=body.decided_at,
        fallback_arm_id=None if body.policy is None else _champion(app, experiment, body.policy),
    )
    (made,) = app.router.assign(experiment, [opportunity], now=app.clock.now())
    return AssignmentAnswer(**assignment_values(made))


@hot_outcomes.post(
    "/outcomes",
    status_code=201,
    openapi_extra=schema_of(NewOutcome),
    response_model=OutcomeAnswer,
    responses=_WRITES
    | {200: {"description": "Recorded before, with the same body", "model": OutcomeAnswer}},
)
async def record_outcome(request: Request) -> Response:
    """Record what a decision earned; again with the same body answers 200 and the same bytes."""
    require_type(request, JSON)
    outcome = outcome_in(await read_bytes(request, most=JSON_BYTES_MAX))
    if isinstance(outcome, BanditError):
        raise outcome
    recorder = request.app.state.recorder
    assert isinstance(recorder, LiveRecorder)
    recorded = await recorder.record(outcome)
    answer = OutcomeAnswer.of(recorded).model_dump_json().encode()
    return QuickJson(answer, status=201 if recorded.created else 200)


@router.post(
    "/outcomes/batch",
    openapi_extra=batch_schema(NewOutcome),
    response_model=list[LineAnswer],
    responses=declared(400, 413, 415, 422)
    | {200: {"description": "One result per line, in order", "content": {NDJSON: {}}}},
)
def record_batch(
    app: Application, batch: Annotated[tuple[str, bytes], Depends(batch_of)]
) -> Response:
    """Record up to 1000 outcomes; a line at fault gets its problem and takes no other with it.

    NDJSON is answered in NDJSON, a JSON array in a JSON array.
    """
    entries = entries_of(batch, of_line=outcome_in, of_value=_outcome_of)
    lawful = [entry for entry in entries if isinstance(entry, Outcome)]
    now = app.clock.now()
    recorded = iter(recording.record(app.engine, lawful, now=now) if lawful else ())
    answers = [next(recorded) if isinstance(entry, Outcome) else entry for entry in entries]
    lines = [_line(number, answer) for number, answer in enumerate(answers, start=1)]
    return answered(batch, lines)


def _champion(app: App, experiment: str, reference: str) -> int:
    return promoting.once_champion(app.engine, name=experiment, policy=PolicyName(reference)).id


def _app(request: Request) -> App:
    app = request.app.state.app
    assert isinstance(app, App)
    return app


def _live(request: Request) -> LiveRouter:
    live = request.app.state.live
    assert isinstance(live, LiveRouter)
    return live


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
