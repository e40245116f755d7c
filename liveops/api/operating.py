"""Routes that register policies, open experiments, and change and show them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from bandit.core.errors import Conflict, InvalidInput
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import Experiment, Policy, PolicyName, checked_name, checked_sha
from bandit.service import (
    accounts,
    experiments,
    killing,
    policies,
    promoting,
    reporting,
    scaling,
)
from bandit.storage.accounts import AccountRecord
from liveops.api.account_answers import AccountAnswer
from liveops.api.answers import (
    AllocationAnswer,
    ArmAnswer,
    DecisionAnswer,
    ExperimentAnswer,
    NightAnswer,
    PolicyAnswer,
)
from liveops.api.bodies import (
    KillOrder,
    NewArm,
    NewExperiment,
    NewPolicy,
    Reasoned,
    Rollback,
    body_of,
    schema_of,
)
from liveops.api.parameters import (
    Application,
    Caller,
    ExperimentName,
    Newest,
    PolicyReference,
)
from liveops.api.problems import declared
from liveops.api.report_answers import ReportAnswer
from liveops.monitor import machine_row
from liveops.wiring import App, limits_of, loss_limits_of, rules_of

router = APIRouter(prefix="/v1", responses=declared(503))

_READS = declared(404, 422)
_LISTS = declared()
_WRITES = declared(400, 404, 409, 413, 415, 422, 423)
_CREATED = "There already, with the same body"


@router.post(
    "/policies",
    status_code=201,
    openapi_extra=schema_of(NewPolicy),
    responses=_WRITES | {200: {"description": _CREATED, "model": PolicyAnswer}},
)
def register_policy(
    app: Application,
    caller: Caller,
    body: Annotated[NewPolicy, Depends(body_of(NewPolicy))],
    response: Response,
) -> PolicyAnswer:
    """Register a policy; again with the same body answers 200."""
    policy = Policy(
        name=PolicyName(body.name),
        kind=body.kind,
        sha=checked_sha(body.sha),
        data_cutoff=body.data_cutoff,
        parent=None if body.parent is None else PolicyName(body.parent),
        metadata=body.metadata,
    )
    record, is_new = policies.register(app.engine, policy, now=app.clock.now(), actor=caller)
    response.status_code = 201 if is_new else 200
    return PolicyAnswer.of(record)


@router.get("/policies", responses=_LISTS)
def list_policies(app: Application) -> list[PolicyAnswer]:
    """List every policy, oldest first."""
    return [PolicyAnswer.of(record) for record in policies.listed(app.engine)]


@router.get("/policies/{policy}", responses=_READS | declared(409))
def show_policy(app: Application, policy: PolicyReference) -> PolicyAnswer:
    """Show one policy."""
    return PolicyAnswer.of(policies.find(app.engine, policy))


@router.post(
    "/experiments",
    status_code=201,
    openapi_extra=schema_of(NewExperiment),
    responses=_WRITES | {200: {"description": _CREATED, "model": ExperimentAnswer}},
)
def open_experiment(
    app: Application,
    caller: Caller,
    body: Annotated[NewExperiment, Depends(body_of(NewExperiment))],
    response: Response,
) -> ExperimentAnswer:
    """Open an experiment with its arms; again with the same body answers 200."""
    record, is_new = experiments.open_experiment(
        app.engine,
        _experiment(app, body),
        challengers=[_named(app, reference) for reference in body.challengers],
        salt=secrets.token_bytes(32),
        limits=limits_of(app.settings),
        loss_limits=loss_limits_of(app.settings),
        rules=rules_of(app.settings),
        now=app.clock.now(),
        actor=caller,
    )
    response.status_code = 201 if is_new else 200
    return ExperimentAnswer.of(record)


@router.get("/experiments", responses=_LISTS)
def list_experiments(app: Application) -> list[ExperimentAnswer]:
    """List every experiment, oldest first."""
    names = experiments.listed(app.engine)
    return [ExperimentAnswer.of(experiments.load(app.engine, name)) for name in names]


@router.get("/experiments/{experiment}", responses=_READS)
def show_experiment(app: Application, experiment: ExperimentName) -> ExperimentAnswer:
    """Show one experiment with its arms."""
    return ExperimentAnswer.of(experiments.load(app.engine, experiment))


@router.post(
    "/experiments/{experiment}/arms",
    status_code=201,
    openapi_extra=schema_of(NewArm),
    responses=_WRITES | {200: {"description": _CREATED, "model": ArmAnswer}},
)
def add_arm(
    app: Application,
    caller: Caller,
    experiment: ExperimentName,
    body: Annotated[NewArm, Depends(body_of(NewArm))],
    response: Response,
) -> ArmAnswer:
    """Let a policy join; a live one starts at what the limits leave, 10 % at most by default."""
    record, is_new = experiments.add_arm(
        app.engine,
        name=experiment,
        policy=PolicyName(body.policy),
        mode=body.mode,
        now=app.clock.now(),
        actor=caller,
    )
    response.status_code = 201 if is_new else 200
    return ArmAnswer.of(record)


def _changes_arm(verb: ArmVerb) -> Callable[..., ArmAnswer]:
    def change(
        app: Application,
        caller: Caller,
        experiment: ExperimentName,
        policy: PolicyReference,
        body: Annotated[Reasoned, Depends(body_of(Reasoned))],
    ) -> ArmAnswer:
        record, _ = experiments.change_arm(
            app.engine,
            name=experiment,
            policy=PolicyName(policy),
            verb=verb,
            reason=body.reason,
            now=app.clock.now(),
            actor=caller,
        )
        return ArmAnswer.of(record)

    return change


_VERBS = {
    ArmVerb.HALT: "Take an arm's traffic at once: no assignment to it commits after the answer.",
    ArmVerb.THROTTLE: "Take an arm's live traffic; it may come back by rule.",
    ArmVerb.RESUME: "Give a throttled or halted arm the least traffic a live arm has.",
    ArmVerb.RETIRE: "Take an arm out of its experiment for ever.",
}

for _verb, _summary in _VERBS.items():
    router.add_api_route(
        f"/experiments/{{experiment}}/arms/{{policy}}/{_verb}",
        _changes_arm(_verb),
        methods=["POST"],
        name=f"{_verb}_arm",
        description=f"{_summary} On an arm that is there already, nothing changes.",
        openapi_extra=schema_of(Reasoned),
        responses=_WRITES,
    )


@router.post(
    "/experiments/{experiment}/arms/{policy}/promote",
    openapi_extra=schema_of(Reasoned),
    responses=_WRITES,
)
def promote_arm(
    app: Application,
    caller: Caller,
    experiment: ExperimentName,
    policy: PolicyReference,
    body: Annotated[Reasoned, Depends(body_of(Reasoned))],
) -> ArmAnswer:
    """Make a challenger the champion; the one before keeps a tenth by default, as its hold-out.

    Decisions that were not claimed by then are revoked. On an arm that was promoted, nothing
    changes.
    """
    record, _ = promoting.promote(
        app.engine,
        name=experiment,
        policy=PolicyName(policy),
        reason=body.reason,
        now=app.clock.now(),
        actor=caller,
    )
    return ArmAnswer.of(record)


@router.post(
    "/experiments/{experiment}/rollback",
    openapi_extra=schema_of(Rollback),
    responses=_WRITES,
)
def roll_back(
    app: Application,
    caller: Caller,
    experiment: ExperimentName,
    body: Annotated[Rollback, Depends(body_of(Rollback))],
) -> ArmAnswer:
    """Let an earlier champion take over again and halt the present one; answers the champion.

    Also while the account is killed. Once rolled back, nothing changes.
    """
    record, _ = promoting.roll_back(
        app.engine,
        name=experiment,
        to=None if body.to is None else PolicyName(body.to),
        reason=body.reason,
        now=app.clock.now(),
        actor=caller,
    )
    return ArmAnswer.of(record)


@router.post("/experiments/{experiment}/scale", responses=_READS | declared(409))
def scale_experiment(app: Application, caller: Caller, experiment: ExperimentName) -> NightAnswer:
    """Decide tonight's traffic, once per UTC day; again answers what was decided."""
    night = scaling.scale(app.engine, experiment, now=app.clock.now(), actor=caller)
    return NightAnswer(
        decision=DecisionAnswer(**reporting.decision_json(night.decision)),
        actions=[DecisionAnswer(**reporting.decision_json(made)) for made in night.actions],
        already_done=night.already_done,
    )


@router.post("/kill", openapi_extra=schema_of(KillOrder), responses=_WRITES)
def kill(
    app: Application,
    caller: Caller,
    body: Annotated[KillOrder, Depends(body_of(KillOrder))],
) -> list[AccountAnswer]:
    """Stop every decision of these accounts: after the answer none commits, on any replica."""
    killed = killing.kill(
        app.engine,
        _accounts(app, body),
        cause=KillCause.HAND,
        reason=body.reason,
        now=app.clock.now(),
        actor=caller,
    )
    return _as_they_are(app, killed)


@router.delete("/kill", openapi_extra=schema_of(KillOrder), responses=_WRITES)
def release(
    app: Application,
    caller: Caller,
    body: Annotated[KillOrder, Depends(body_of(KillOrder))],
) -> list[AccountAnswer]:
    """Let these accounts decide again; 409 while the latch of the service's host is set."""
    if app.latch.is_set():
        message = f"the latch {app.latch.path} is set: `liveops release` on the service's host"
        raise Conflict(f"{message} removes it and releases")
    released = killing.release(
        app.engine, _accounts(app, body), reason=body.reason, now=app.clock.now(), actor=caller
    )
    return _as_they_are(app, released)


@router.get("/experiments/{experiment}/allocations", responses=_READS)
def list_allocations(
    app: Application, experiment: ExperimentName, newest: Newest = 100
) -> list[AllocationAnswer]:
    """List the versions of the allocation, oldest first."""
    history = reporting.allocation_history(app.engine, experiment)
    return [AllocationAnswer(**made) for made in reporting.allocation_json(history[-newest:])]


@router.get("/experiments/{experiment}/decisions", responses=_READS)
def list_decisions(
    app: Application, experiment: ExperimentName, newest: Newest = 100
) -> list[DecisionAnswer]:
    """List the decisions, newest first."""
    history = reporting.decision_history(app.engine, experiment, newest=newest)
    return [DecisionAnswer(**reporting.decision_json(made)) for made in history]


@router.get("/experiments/{experiment}/report", responses=_READS)
def show_report(app: Application, experiment: ExperimentName) -> ReportAnswer:
    """Show what an operator reads: arms, numbers, checklist, the newest decisions."""
    found = reporting.report(app.engine, experiment).to_json()
    machine = machine_row(app, app.gpus.newest()).to_json()
    return ReportAnswer(**found | {"machine": [machine]})


def _accounts(app: App, body: KillOrder) -> list[str] | None:
    """Return whom an order names; None is every account."""
    if body.experiment is None:
        return body.accounts
    if body.accounts is not None:
        rule = "must be left out where accounts are named"
        raise InvalidInput(field="experiment", rule=rule, found=body.experiment)
    return [experiments.load(app.engine, body.experiment).experiment.account_name]


def _as_they_are(app: App, turned: Sequence[AccountRecord]) -> list[AccountAnswer]:
    names = {account.name for account in turned}
    found = accounts.listed(app.engine, now=app.clock.now())
    return [AccountAnswer(**a.to_json()) for a in found if a.record.name in names]


def _experiment(app: App, body: NewExperiment) -> Experiment:
    defaults = app.settings.experiment_defaults
    fraction: Decimal | float | None = body.equity_fraction
    valid: Decimal | float | None = body.decision_seconds_valid
    return Experiment(
        name=checked_name(body.name),
        champion=_named(app, body.champion),
        capital=body.capital,
        currency=defaults.currency if body.currency is None else body.currency,
        equity_fraction=float(
            app.settings.risk.base_position_size if fraction is None else fraction
        ),
        profile=defaults.profile if body.profile is None else body.profile,
        strategy=defaults.strategy if body.strategy is None else body.strategy,
        decision_seconds_valid=float(defaults.decision_seconds_valid if valid is None else valid),
        account=body.account,
    )


def _named(app: App, reference: str) -> PolicyName:
    return policies.find(app.engine, reference).policy.name
