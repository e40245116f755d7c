"""Routes that show the service's own circuit breakers, and let a person reset one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from bandit.core.heartbeat import BreakerState
from liveops import breaker_watch
from liveops.api.answers import Answer
from liveops.api.bodies import Reasoned, body_of, schema_of
from liveops.api.parameters import Application, Caller
from liveops.api.problems import declared

router = APIRouter(prefix="/v1", responses=declared(503))

BreakerName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


class BreakerAnswer(Answer):
    """A circuit breaker round calls that this process makes."""

    name: str
    state: BreakerState
    failures: int = Field(description="Calls in a row that failed.")
    trips: int = Field(description="How often it opened since the process began.")
    seconds_left: float = Field(description="For how long it refuses calls; 0: for none.")


@router.get("/breakers", responses=declared())
def list_breakers(app: Application) -> list[BreakerAnswer]:
    """List the breakers of the replica that is asked; each replica has its own."""
    return [BreakerAnswer(**report.to_json()) for report in app.breakers.listed()]


@router.post(
    "/breakers/{name}/reset",
    openapi_extra=schema_of(Reasoned),
    responses=declared(400, 404, 413, 415, 422),
)
def reset_breaker(
    app: Application,
    caller: Caller,
    name: BreakerName,
    body: Annotated[Reasoned, Depends(body_of(Reasoned))],
) -> BreakerAnswer:
    """Close a breaker: here at once, at every other replica within seconds."""
    report = breaker_watch.reset(app, name, reason=body.reason, actor=caller)
    return BreakerAnswer(**report.to_json())
