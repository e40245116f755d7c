"""Routes that show performance guards, and let a person begin one anew."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from bandit.service import performance_guarding
from liveops.api.bodies import Reasoned, body_of, schema_of
from liveops.api.guard_answers import GuardAnswer
from liveops.api.parameters import AccountName, Application, Caller, ExperimentName
from liveops.api.problems import declared

router = APIRouter(prefix="/v1", responses=declared(503))

_WRITES = declared(400, 404, 413, 415, 422)


@router.get("/guards", responses=declared())
def list_guards(app: Application) -> list[GuardAnswer]:
    """List every performance guard: each account's before those of its experiments."""
    found = performance_guarding.listed(app.engine)
    return [GuardAnswer(**report.to_json()) for report in found]


@router.post(
    "/experiments/{experiment}/guard/reset",
    openapi_extra=schema_of(Reasoned),
    responses=_WRITES,
)
def reset_experiment_guard(
    app: Application,
    caller: Caller,
    experiment: ExperimentName,
    body: Annotated[Reasoned, Depends(body_of(Reasoned))],
) -> GuardAnswer:
    """Begin an experiment's guard anew: NORMAL, with an empty window. Its account's stays."""
    report = performance_guarding.reset(
        app.engine, experiment=experiment, reason=body.reason, now=app.clock.now(), actor=caller
    )
    return GuardAnswer(**report.to_json())


@router.post(
    "/accounts/{account}/guard/reset", openapi_extra=schema_of(Reasoned), responses=_WRITES
)
def reset_account_guard(
    app: Application,
    caller: Caller,
    account: AccountName,
    body: Annotated[Reasoned, Depends(body_of(Reasoned))],
) -> GuardAnswer:
    """Begin an account's guard anew: NORMAL, with an empty window. Its experiments' stay."""
    report = performance_guarding.reset(
        app.engine, account=account, reason=body.reason, now=app.clock.now(), actor=caller
    )
    return GuardAnswer(**report.to_json())
