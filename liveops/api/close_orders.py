"""Routes that order what is open to be closed, and tell bots what that is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from bandit.service import closing
from liveops.api.answers import Answer, Time
from liveops.api.answers import Id as IdText
from liveops.api.bodies import Body, Id, Reasoned, body_of, schema_of
from liveops.api.parameters import Application, Caller, ExperimentName
from liveops.api.problems import declared

router = APIRouter(prefix="/v1", responses=declared(503))

_WRITES = declared(400, 404, 413, 415, 422)

OrderId = Annotated[int, Path(ge=1, le=2**63 - 1)]


class NewCloseFailure(Body):
    """Which position of an order could not be closed, and why."""

    assignment_id: Id
    reason: str = Field(min_length=1, max_length=1000)


class CloseFailureAnswer(Answer):
    """What a bot said last of a position that it could not close."""

    at: Time
    actor: str
    reason: str


class CloseTargetAnswer(Answer):
    """A position that is to be closed, named by the decision that opened it."""

    order_id: int
    reason: str = Field(description="Why it is to be closed.")
    since: Time = Field(description="When the order was given.")
    assignment_id: IdText = Field(description="What the outcome is told of: that alone ends it.")
    unit_id: str
    instrument: str
    policy: str
    closed: bool
    failure: CloseFailureAnswer | None = Field(description="The newest; null where there is none.")


class CloseOrderAnswer(Answer):
    """An order to close what was open, and what it does not do."""

    order_id: int
    experiment: str
    at: Time
    actor: str
    reason: str
    positions: list[CloseTargetAnswer] = Field(
        description="What it concerns: all that was open, but what an earlier order has."
    )
    waiting: int = Field(description="Positions to be closed, those of earlier orders too.")
    account: str
    killed: bool = Field(description="false: new positions may open all the same.")
    note: str


@router.post(
    "/experiments/{experiment}/close-all",
    openapi_extra=schema_of(Reasoned),
    responses=_WRITES,
)
def close_all(
    app: Application,
    caller: Caller,
    experiment: ExperimentName,
    body: Annotated[Reasoned, Depends(body_of(Reasoned))],
) -> CloseOrderAnswer:
    """Order every position that is open now to be closed; halts nothing, works while killed.

    Bots close and tell outcomes. Again, it concerns only what has opened since.
    """
    order = closing.close_all(
        app.engine, experiment, reason=body.reason, now=app.clock.now(), actor=caller
    )
    return CloseOrderAnswer(**order.to_json())


@router.get("/experiments/{experiment}/close-orders", responses=declared(404, 422))
def list_close_orders(app: Application, experiment: ExperimentName) -> list[CloseTargetAnswer]:
    """List what is to be closed and has no outcome yet, oldest first."""
    found = closing.waiting(app.engine, experiment)
    return [CloseTargetAnswer(**target.to_json()) for target in found]


@router.post(
    "/close-orders/{order}/failures",
    openapi_extra=schema_of(NewCloseFailure),
    responses=_WRITES,
)
def report_close_failure(
    app: Application,
    caller: Caller,
    order: OrderId,
    body: Annotated[NewCloseFailure, Depends(body_of(NewCloseFailure))],
) -> CloseTargetAnswer:
    """Say that a position could not be closed: it is shown, and waits on; try again.

    The same reason again, and what is closed meanwhile, changes nothing.
    """
    stands = closing.failed(
        app.engine,
        order,
        body.assignment_id,
        reason=body.reason,
        now=app.clock.now(),
        actor=caller,
    )
    return CloseTargetAnswer(**stands.to_json())
