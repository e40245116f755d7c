"""Routes on which symbols are ranked, and the selection in force is read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from bandit.service import selecting
from liveops.api.answers import Answer, Time
from liveops.api.bodies import Body, Ratio, body_of, schema_of
from liveops.api.parameters import Application, Caller, ExperimentName
from liveops.api.problems import declared

router = APIRouter(prefix="/v1", responses=declared(503))


class NewScores(Body):
    """How strong symbols are now, by their caller's own measure."""

    scores: dict[str, Ratio | None] = Field(
        description="Higher is stronger; null, or left out: not known, and not chosen."
    )
    reason: str = Field(min_length=1, max_length=1000, description="What the scores measure.")


class SelectionAnswer(Answer):
    """The symbols in which an experiment opens positions."""

    experiment: str
    top_k: int
    universe: list[str]
    chosen: list[str] = Field(description="Strongest first; none before the first selection.")
    scores: dict[str, float | None]
    since: Time | None
    due_at: Time | None = Field(description="From when on a new one may be made; null: now.")
    is_new: bool = Field(description="false where the one before stands.")


@router.get("/experiments/{experiment}/selection", responses=declared(404, 409, 422))
def show_selection(app: Application, experiment: ExperimentName) -> SelectionAnswer:
    """Show the selection in force; 409 for an experiment that makes none."""
    return SelectionAnswer(**selecting.report(app.engine, experiment).to_json())


@router.post(
    "/experiments/{experiment}/selection",
    openapi_extra=schema_of(NewScores),
    responses=declared(400, 404, 409, 413, 415, 422),
)
def make_selection(
    app: Application,
    caller: Caller,
    experiment: ExperimentName,
    body: Annotated[NewScores, Depends(body_of(NewScores))],
) -> SelectionAnswer:
    """Select by these scores; before the time between two has passed, the one before stands."""
    scores = {name: None if told is None else float(told) for name, told in body.scores.items()}
    made = selecting.make(
        app.engine,
        experiment,
        scores,
        reason=body.reason,
        now=app.clock.now(),
        actor=caller,
    )
    return SelectionAnswer(**made.to_json())
