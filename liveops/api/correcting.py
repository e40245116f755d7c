"""Routes that correct what was told before."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response

from bandit.core.errors import InvalidInput
from bandit.service import revising
from liveops.api.answers import RevisionAnswer
from liveops.api.bodies import NewRevision, body_of, schema_of
from liveops.api.parameters import Application, Caller
from liveops.api.problems import declared

router = APIRouter(prefix="/v1", responses=declared(503))


@router.post(
    "/outcomes/{assignment}/revisions",
    status_code=201,
    openapi_extra=schema_of(NewRevision),
    responses=declared(400, 404, 409, 413, 415, 422)
    | {200: {"description": "The newest version says the same", "model": RevisionAnswer}},
)
def revise_outcome(
    app: Application,
    caller: Caller,
    assignment: Annotated[UUID, Path(description="The assignment whose outcome is corrected.")],
    body: Annotated[NewRevision, Depends(body_of(NewRevision))],
    response: Response,
) -> RevisionAnswer:
    """Correct an outcome: the body counts from now on, what was told before stays on record.

    Again with the body that counts answers 200 and changes nothing.
    """
    if body.assignment_id != assignment:
        rule = f"must be the assignment of the address, {assignment}"
        raise InvalidInput(field="assignment_id", rule=rule, found=body.assignment_id)
    revised = revising.revise(
        app.engine, body.outcome(), reason=body.reason, now=app.clock.now(), actor=caller
    )
    response.status_code = 201 if revised.created else 200
    return RevisionAnswer.of_revised(revised)
