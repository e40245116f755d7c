"""The route on which a person accepts how an account differs from what its bots tell."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from bandit.service import reconciling
from liveops.api.account_answers import AccountAnswer
from liveops.api.bodies import Reasoned, body_of, schema_of
from liveops.api.parameters import AccountName, Application, Caller
from liveops.api.problems import declared

router = APIRouter(prefix="/v1", responses=declared(503))


@router.post(
    "/accounts/{account}/reconcile",
    openapi_extra=schema_of(Reasoned),
    responses=declared(400, 404, 413, 415, 422),
)
def reconcile_account(
    app: Application,
    caller: Caller,
    account: AccountName,
    body: Annotated[Reasoned, Depends(body_of(Reasoned))],
) -> AccountAnswer:
    """Accept how an account differs from its bots now; where nothing differs, nothing changes.

    Missing positions count as not held, unknown ones as known, as long as they differ. The
    difference of the balance is `accepted_difference`, and taken off from then on.
    """
    report = reconciling.accept(
        app.engine, account, reason=body.reason, now=app.clock.now(), actor=caller
    )
    return AccountAnswer(**report.to_json())
