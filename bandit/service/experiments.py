"""Open experiments, let arms join, and change what arms may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine

from bandit import __version__
from bandit.core.account import LossLimits
from bandit.core.errors import Conflict, InvalidAllocation, InvalidInput
from bandit.core.lifecycle import ArmVerb, after, decision_of
from bandit.core.limits import (
    ArmPlace,
    Limits,
    check,
    headroom,
    opening,
    with_champion,
    with_part,
)
from bandit.core.model import (
    ArmMode,
    DecisionKind,
    Experiment,
    PolicyName,
    Ppm,
    checked_instant,
    checked_text,
)
from bandit.core.reading import Rules
from bandit.storage import account_equity, accounts, audit, decisions, experiments, locks, policies
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ArmRecord, ExperimentRecord

LIVE_ARMS_MAX = 16
ARMS_MAX = 64


def open_experiment(
    engine: Engine,
    experiment: Experiment,
    *,
    challengers: Sequence[PolicyName],
    salt: bytes,
    limits: Limits,
    loss_limits: LossLimits,
    rules: Rules,
    now: datetime,
    actor: str,
) -> tuple[ExperimentRecord, bool]:
    """Open an experiment with its champion and live challengers at their starting allocation.

    The first experiment of an account gives it its `loss_limits`; they stay. Again with the same
    body returns the experiment that is there and False; another body under the same name raises
    `Conflict`, and so does an archived policy. Unregistered ones raise `UnknownName`.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    _check_challengers(experiment.champion, challengers)
    experiment = replace(experiment, account=experiment.account_name)
    if len(salt) != 32:
        raise InvalidInput(field="salt", rule="must be 32 bytes", found=f"{len(salt)} bytes")
    with transaction(engine) as connection:
        names = (experiment.champion, *challengers)
        ids = [policies.by_name(connection, name).id for name in names]
        account_id = accounts.opened(
            connection, experiment.account_name, currency=experiment.currency, now=now
        )
        experiment_id = experiments.insert(
            connection,
            experiment,
            champion_id=ids[0],
            account_id=account_id,
            salt=salt,
            limits=limits,
            rules=rules,
            now=now,
        )
        if experiment_id is None:
            wanted = (experiment, limits, rules, set(names))
            return _already_open(connection, experiment.name, wanted), False
        for policy_id in ids:
            experiments.insert_arm(
                connection,
                experiment_id=experiment_id,
                policy_id=policy_id,
                mode=ArmMode.LIVE,
                reason="opened with the experiment",
                now=now,
            )
        record = experiments.load(connection, experiment.name)
        decide(
            connection,
            record,
            opening(experiment.champion, challengers, limits=limits),
            kind=DecisionKind.ENTER,
            reason="experiment opened",
            now=now,
            actor=actor,
        )
        _bring_capital(connection, account_id, experiment.capital, limits=loss_limits, now=now)
        parameters = asdict(limits) | asdict(rules.ramp) | asdict(rules.checklist)
        decisions.record_parameters(
            connection,
            experiment_id,
            parameters | {"profile": experiment.profile, "strategy": experiment.strategy},
            now=now,
            actor=actor,
            reason="experiment opened",
        )
        return experiments.load(connection, experiment.name), True


def _bring_capital(
    connection: Connection, account_id: int, added: Decimal, *, limits: LossLimits, now: datetime
) -> None:
    day = now.astimezone(UTC).date()
    account_equity.insert(connection, account_id, limits=limits, day=day)
    held = account_equity.locked(connection, [account_id])[account_id]
    account_equity.write(connection, account_id, held.with_capital(added, day=day))


def _already_open(
    connection: Connection,
    name: str,
    wanted: tuple[Experiment, Limits, Rules, set[PolicyName]],
) -> ExperimentRecord:
    found = experiments.load(connection, name)
    first, _ = decisions.allocations(connection, name)[0]
    # As it was opened: the champion may have been replaced since.
    opened = replace(found.experiment, champion=first.champion)
    experiment, limits, rules, names = wanted
    if found.rules.sizing is None:  # of a release before sizing limits: it stays without any
        rules = replace(rules, sizing=None)
    if (opened, found.limits, found.rules, set(first.ppm)) != (experiment, limits, rules, names):
        raise Conflict(f"experiment {name!r} is open already with other values")
    return found


def add_arm(
    engine: Engine, *, name: str, policy: PolicyName, mode: ArmMode, now: datetime, actor: str
) -> tuple[ArmRecord, bool]:
    """Let a policy join an experiment; a live one starts at what the limits leave, 10 % at most.

    Again with the same body returns the arm and False. Raises `InvalidAllocation` when the limits
    leave less than an arm's minimum, `Conflict` for a policy that is archived.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    with transaction(engine) as connection:
        record = experiments.load(connection, name)
        locks.gate_exclusive(connection, record.id)
        policy_id = policies.by_reference(connection, policy).id
        joined = experiments.insert_arm(
            connection,
            experiment_id=record.id,
            policy_id=policy_id,
            mode=mode,
            reason="joined",
            now=now,
        )
        record = experiments.load(connection, name)
        arm = next(arm for arm in record.arms if arm.policy_id == policy_id)
        if not joined:
            if arm.place.mode is not mode:
                raise Conflict(f"{arm.place.policy} is in {name} already, in mode {arm.place.mode}")
            return arm, False
        _check_count(record)
        others = [place for place in record.places if place.policy != arm.place.policy]
        part = 0
        if mode is ArmMode.LIVE:
            part = min(record.limits.start_ppm, headroom(others, record.limits))
        decide(
            connection,
            record,
            with_part(record.places, arm.place.policy, part),
            kind=DecisionKind.ENTER,
            reason=f"{arm.place.policy} joined in mode {mode}",
            now=now,
            actor=actor,
        )
        return experiments.load(connection, name).arm_of(arm.place.policy), True


def change_arm(
    engine: Engine,
    *,
    name: str,
    policy: PolicyName,
    verb: ArmVerb,
    reason: str,
    now: datetime,
    actor: str,
) -> tuple[ArmRecord, bool]:
    """Throttle, halt, resume or retire an arm; once this returns a halt, no assignment follows it.

    Again on an arm that is there already changes nothing and returns False. Raises
    `InvalidTransition` for the champion and for ways that do not exist.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = experiments.load(connection, name)
        locks.gate_exclusive(connection, record.id)
        policy = policies.by_reference(connection, policy).policy.name
        record = experiments.load(connection, name)
        changed = apply_verb(
            connection,
            record,
            policy,
            verb,
            reason=reason,
            inputs={},
            reasons={},
            now=now,
            actor=actor,
        )
        return experiments.load(connection, name).arm_of(policy), changed


def apply_verb(
    connection: Connection,
    record: ExperimentRecord,
    policy: PolicyName,
    verb: ArmVerb,
    *,
    reason: str,
    inputs: Mapping[str, object],
    reasons: Mapping[str, object],
    now: datetime,
    actor: str,
    part: Ppm | None = None,
) -> bool:
    """Change one arm inside a transaction that holds the gate; False when it is there already.

    `part` is what a live arm that is resumed comes back with: the least there is, where not given.
    """
    arm = record.arm_of(policy)
    target = after(verb, status=arm.place.status, role=arm.place.role)
    if target is arm.place.status:
        return False
    resumes = verb is ArmVerb.RESUME
    if resumes:
        # The limits ask for the arm's new status; the others ask for its old one to be empty.
        experiments.set_status(connection, arm.id, target, reason=reason)
        record = experiments.load(connection, record.experiment.name)
    if not resumes or arm.place.mode is not ArmMode.LIVE:
        part = Ppm(0)
    elif part is None:
        part = Ppm(record.limits.arm_minimum_ppm)
    decide(
        connection,
        record,
        with_part(record.places, policy, part),
        kind=decision_of(verb),
        reason=reason,
        now=now,
        actor=actor,
        inputs={"policy": policy, **inputs},
        reasons=reasons,
    )
    if not resumes:
        experiments.set_status(connection, arm.id, target, reason=reason)
    return True


def load(engine: Engine, name: str) -> ExperimentRecord:
    """Return an experiment with its arms."""
    with snapshot(engine) as connection:
        return experiments.load(connection, name)


def listed(engine: Engine) -> list[str]:
    """Return the names of all experiments, oldest first."""
    with snapshot(engine) as connection:
        return experiments.names(connection)


def of_policy(engine: Engine, reference: str) -> tuple[PolicyName, list[str]]:
    """Return the policy a reference means and the experiments it has an arm in."""
    with snapshot(engine) as connection:
        record = policies.by_reference(connection, reference)
        return record.policy.name, experiments.with_policy(connection, record.id)


def decide(
    connection: Connection,
    record: ExperimentRecord,
    ppm: Mapping[PolicyName, Ppm],
    *,
    kind: DecisionKind,
    reason: str,
    now: datetime,
    actor: str,
    inputs: Mapping[str, object] | None = None,
    reasons: Mapping[str, object] | None = None,
    arms: Sequence[ArmPlace] | None = None,
) -> None:
    """Append a decision, its allocation and its audit row, in a transaction that holds the gate.

    `arms` are the arms as the decision leaves them, where it changes more than their parts. Raises
    `InvalidAllocation` where a limit says no, `Killed` where the account's kill switch does.
    """
    check(
        ppm,
        arms=record.places if arms is None else arms,
        limits=record.limits,
        profile=record.experiment.profile,
        kind=kind,
    )
    decision_id = decisions.append(
        connection,
        record,
        kind=kind,
        now=now,
        actor=actor,
        reason=reason,
        code_version=__version__,
        inputs={"before": {p.policy: p.ppm for p in record.places}, **(inputs or {})},
        reasons=reasons or {},
    )
    assert decision_id is not None
    version = decisions.append_allocation(connection, record, ppm, decision_id=decision_id, now=now)
    whom = {name: told for name, told in (inputs or {}).items() if name in ("policy", "demoted")}
    audit.append(
        connection,
        now=now,
        actor=actor,
        action=kind.value,
        subject=record.experiment.name,
        details={"decision": decision_id, "version": version, "reason": reason, **whom},
    )


def succeed(
    connection: Connection,
    record: ExperimentRecord,
    policy: PolicyName,
    ppm: Mapping[PolicyName, Ppm],
    *,
    kind: DecisionKind,
    reason: str,
    inputs: Mapping[str, object],
    reasons: Mapping[str, object],
    now: datetime,
    actor: str,
) -> None:
    """Make `policy` the champion, in a transaction that holds the gate; raises as `decide` does."""
    demoted = record.experiment.champion
    decide(
        connection,
        record,
        ppm,
        kind=kind,
        reason=reason,
        now=now,
        actor=actor,
        inputs={"policy": policy, "demoted": demoted, **inputs},
        reasons=reasons,
        arms=with_champion(record.places, policy, kind=kind, limits=record.limits),
    )


def _check_challengers(champion: PolicyName, challengers: Sequence[PolicyName]) -> None:
    if champion in challengers or len(set(challengers)) != len(challengers):
        rule = "must be different policies, none of them the champion"
        raise InvalidInput(field="challengers", rule=rule, found=list(challengers))
    if len(challengers) > LIVE_ARMS_MAX:
        rule = f"must be at most {LIVE_ARMS_MAX} with live traffic"
        raise InvalidInput(field="challengers", rule=rule, found=len(challengers))


def _check_count(record: ExperimentRecord) -> None:
    arms = record.kept_arms
    live = [a for a in arms if a.place.mode is ArmMode.LIVE]
    if len(live) > LIVE_ARMS_MAX + 1 or len(arms) > ARMS_MAX + 1:
        message = f"at most {LIVE_ARMS_MAX} live challengers and {ARMS_MAX} with shadow arms"
        raise InvalidAllocation(f"limit arms: {message}", limit="arms")
