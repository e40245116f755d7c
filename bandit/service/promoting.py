"""Make a challenger the champion, or let an earlier champion take over again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, Engine

from bandit.core import checklist, succession
from bandit.core.errors import InvalidInput
from bandit.core.model import (
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    checked_instant,
    checked_text,
)
from bandit.core.night import reasons_of
from bandit.core.promotion import champion_to_return, promoted, require_promotable, rolled_back
from bandit.service.experiments import succeed
from bandit.service.scaling import inputs_of, read_arms, shown, with_evidence
from bandit.storage import decisions, experiments, locks, policies
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ArmRecord, ExperimentRecord


def promote(
    engine: Engine, *, name: str, policy: PolicyName, reason: str, now: datetime, actor: str
) -> tuple[ArmRecord, bool]:
    """Make a challenger the champion of an experiment; the one before stays as its hold-out.

    Once this returns, no decision made under the champion before can be claimed. Again after the
    promotion changes nothing and returns False. Raises `InvalidTransition` for an arm that takes
    no live traffic and for a champion that was not promoted, `InvalidAllocation` where the limits
    leave no room, `Killed` while the account's kill switch is on, `UnknownName`.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = _behind_gate(connection, name)
        arm = record.arm_of(policies.by_reference(connection, policy).policy.name)
        if _came_by(connection, record, DecisionKind.PROMOTE, arm.place.policy):
            return arm, False
        require_promotable(arm.place)
        ppm = promoted(
            record.places,
            arm.place.policy,
            limits=record.limits,
            profile=record.experiment.profile,
        )
        _succeed(
            connection, record, arm, ppm, DecisionKind.PROMOTE, reason=reason, now=now, actor=actor
        )
        return experiments.load(connection, name).arm_of(arm.place.policy), True


def roll_back(
    engine: Engine,
    *,
    name: str,
    to: PolicyName | None,
    reason: str,
    now: datetime,
    actor: str,
) -> tuple[ArmRecord, bool]:
    """Let an earlier champion take over again, and halt the one that is it now.

    `to` names it; left out, it is the newest earlier one that is still an arm, refused where that
    one is halted. Done while the account is killed too: nothing moves until a person releases it,
    and then not to the one that failed. Again after the rollback changes nothing and returns False.
    Raises `InvalidTransition` where there is nobody to return, `UnknownName`.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = _behind_gate(connection, name)
        named = None if to is None else policies.by_reference(connection, to).policy.name
        champion = record.arm_of(record.experiment.champion)
        if _came_by(connection, record, DecisionKind.ROLL_BACK, named or champion.place.policy):
            return champion, False
        known = decisions.champions(connection, record.id)
        arm = record.arm_of(champion_to_return(known, record.places, named=named))
        if arm.place.status is not ArmStatus.ACTIVE:
            experiments.set_status(connection, arm.id, ArmStatus.ACTIVE, reason=reason)
            record = experiments.load(connection, name)
        ppm = rolled_back(record.places, arm.place.policy)
        _succeed(
            connection,
            record,
            arm,
            ppm,
            DecisionKind.ROLL_BACK,
            reason=reason,
            now=now,
            actor=actor,
        )
        experiments.set_status(connection, champion.id, ArmStatus.HALTED, reason=reason)
        return experiments.load(connection, name).arm_of(arm.place.policy), True


def once_champion(engine: Engine, *, name: str, policy: PolicyName) -> ArmRecord:
    """Return the arm of a policy that is or was the champion; raises `InvalidInput` for others."""
    with snapshot(engine) as connection:
        record = experiments.load(connection, name)
        arm = record.arm_of(policies.by_reference(connection, policy).policy.name)
        known = decisions.champions(connection, record.id)
    if arm.place.policy not in known:
        raise InvalidInput(
            field="policy", rule=f"must have been champion of {name}", found=arm.place.policy
        )
    return arm


def _behind_gate(connection: Connection, name: str) -> ExperimentRecord:
    locks.gate_exclusive(connection, experiments.load(connection, name).id)
    return experiments.load(connection, name)


def _came_by(
    connection: Connection, record: ExperimentRecord, kind: DecisionKind, policy: PolicyName
) -> bool:
    """Say whether `policy` is the champion because of a decision of this kind."""
    if policy != record.experiment.champion:
        return False
    made = decisions.newest_succession(connection, record.experiment.name)
    return made is not None and made.kind is kind


def _succeed(
    connection: Connection,
    record: ExperimentRecord,
    arm: ArmRecord,
    ppm: Mapping[PolicyName, Ppm],
    kind: DecisionKind,
    *,
    reason: str,
    now: datetime,
    actor: str,
) -> None:
    """Make `arm` the champion, with what was known of both when a person decided so."""
    policy, before = arm.place.policy, record.arm_of(record.experiment.champion)
    read = read_arms(connection, record, [before, record.arm_of(policy)])
    old, new = readings = with_evidence(connection, record, read, now=now)
    reasons: dict[str, object]
    if kind is DecisionKind.PROMOTE:
        new = replace(new, shown=shown(connection, record, arm))
        readings = [old, new]
        assert new.standing is not None
        known = succession.asked(new, rules=record.rules)
        evidence = reasons_of(new.standing, rules=record.rules)
        reasons = {policy: [reason.to_json() for reason in (*known, *evidence)]}
    else:
        rows = checklist.rows(old, record.rules.checklist)
        reasons = {before.place.policy: [row.reason.to_json() for row in rows]}
    succeed(
        connection,
        record,
        policy,
        ppm,
        kind=kind,
        reason=reason,
        inputs=inputs_of(readings),
        reasons=reasons,
        now=now,
        actor=actor,
    )
