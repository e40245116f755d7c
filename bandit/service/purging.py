"""Put away policies that are old or lose, and take them back (SPEC J2).

A policy that goes is retired wherever it is a challenger, and marked as archived unless it is the
parent of one that stays, in one transaction for all of them: nobody sees half a purge, and of two
that run at once the second finds nothing more to do. What is stored of a policy is somebody else's
business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine

from bandit.core.errors import InvalidTransition
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import (
    ArmRole,
    ArmStatus,
    PolicyName,
    PolicySha,
    checked_instant,
    checked_text,
)
from bandit.core.profit_factor import profit_factor, profit_factor_interval
from bandit.core.promotion import champion_to_return
from bandit.core.purging import WARM, Fate, KnownArm, KnownPolicy, PurgeRule, fates
from bandit.service.experiments import apply_verb
from bandit.storage import (
    audit,
    decisions,
    experiments,
    locks,
    outcomes,
    policies,
    policy_archivals,
)
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ArmRecord, ExperimentRecord
from bandit.storage.policy_archivals import Archival


def would_purge(engine: Engine, rule: PurgeRule, *, now: datetime) -> tuple[Fate, ...]:
    """Return what `purge` would decide about every policy that is not archived; writes nothing."""
    now = checked_instant(now, field="now")
    with snapshot(engine) as connection:
        return fates(_known(connection, _records(connection), now=now), rule, now=now)


def purge(
    engine: Engine, rule: PurgeRule, *, as_of: datetime, now: datetime, actor: str
) -> tuple[Fate, ...]:
    """Retire what the rule takes away, archive what nobody needs; return every policy's fate.

    Ages are those at `as_of`. Again afterwards purges nothing. Nobody is assigned anything while
    it is written, which takes a fraction of a second; where nothing goes, nothing is locked. While
    models are made anew, they stay, and none begins to be before this is written.
    """
    now, as_of = checked_instant(now, field="now"), checked_instant(as_of, field="as_of")
    actor = checked_text(actor, field="actor", length_max=200)
    planned = would_purge(engine, rule, now=as_of)
    if not any(fate.purged for fate in planned):
        return planned
    with transaction(engine) as connection:
        ids = [record.id for record in _records(connection)]
        # Whoever changes an arm anywhere waits: else the last active ones might go together.
        locks.stop_exclusive(connection, account_ids=[], experiment_ids=ids)
        records = _records(connection)
        decided = fates(_known(connection, records, now=as_of), rule, now=as_of)
        for fate in decided:
            if fate.purged:
                _put_away(connection, records, fate, now=now, actor=actor)
    return decided


def restore(engine: Engine, reference: str, *, reason: str, now: datetime, actor: str) -> bool:
    """Take a policy back; False where it is not archived. Its arms stay retired.

    It counts as new again: its age is that since now, and no trade before is held against it.
    Raises `UnknownName`.
    """
    now = checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    with transaction(engine) as connection:
        record = policies.by_reference(connection, reference)
        return _entered(
            connection, record.policy.name, archived=False, reason=reason, now=now, actor=actor
        )


def archived(engine: Engine) -> dict[PolicySha, Archival]:
    """Return the policies that are put away, each with since when and why."""
    with snapshot(engine) as connection:
        newest = policy_archivals.newest(connection)
        return {
            record.policy.sha: newest[record.id]
            for record in policies.all_policies(connection)
            if record.id in newest and newest[record.id].archived
        }


def _put_away(
    connection: Connection,
    records: Sequence[ExperimentRecord],
    fate: Fate,
    *,
    now: datetime,
    actor: str,
) -> None:
    reason = f"purged: {fate.reason}"
    for record in records:
        if any(arm.place.policy == fate.policy for arm in record.kept_arms):
            # Others may have been retired in it a moment ago.
            current = experiments.load(connection, record.experiment.name)
            apply_verb(
                connection,
                current,
                fate.policy,
                ArmVerb.RETIRE,
                reason=reason,
                inputs={},
                reasons={},
                now=now,
                actor=actor,
            )
    if fate.archived:
        _entered(connection, fate.policy, archived=True, reason=reason, now=now, actor=actor)


def _entered(
    connection: Connection,
    policy: PolicyName,
    *,
    archived: bool,
    reason: str,
    now: datetime,
    actor: str,
) -> bool:
    policy_id = policies.by_name(connection, policy).id
    is_new = policy_archivals.insert(
        connection, policy_id, archived=archived, now=now, actor=actor, reason=reason
    )
    if is_new:
        audit.append(
            connection,
            now=now,
            actor=actor,
            action="archive_policy" if archived else "restore_policy",
            subject=policy,
            details={"reason": reason},
        )
    return is_new


def _records(connection: Connection) -> list[ExperimentRecord]:
    return [experiments.load(connection, name) for name in experiments.names(connection)]


def _known(
    connection: Connection, records: Sequence[ExperimentRecord], *, now: datetime
) -> list[KnownPolicy]:
    """Return what there is to know of every policy that is not archived."""
    newest, working = policy_archivals.newest(connection), policy_archivals.working(connection)
    is_calm = locks.keep_free(connection, locks.LockClass.ROTATION)
    # Which of them it makes anew is in nobody's ledger until it is done.
    learned = set[int]() if is_calm else policy_archivals.with_recipes(connection)
    back = {last.policy: last.at for last in newest.values() if not last.archived}
    arms: dict[PolicyName, list[KnownArm]] = {}
    for record in records:
        for policy, arm in _arms(connection, record, back, now=now):
            arms.setdefault(policy, []).append(arm)
    known = []
    for held in policies.all_policies(connection):
        last = newest.get(held.id)
        if last is not None and last.archived:
            continue
        own = tuple(arms.get(held.policy.name, ()))
        known.append(
            KnownPolicy(
                name=held.policy.name,
                since=held.registered_at if last is None else last.at,
                parent=held.policy.parent,
                arms=own,
                needed_for=_needed(
                    working.get(held.id),
                    in_rotation=held.id in learned and any(arm.stands for arm in own),
                ),
            )
        )
    return known


def _needed(job: str | None, *, in_rotation: bool) -> tuple[str, ...]:
    found = () if job is None else (f"a learner's job waits or runs: {job}",)
    return (*found, "models are being made anew") if in_rotation else found


def _arms(
    connection: Connection,
    record: ExperimentRecord,
    back: Mapping[PolicyName, datetime],
    *,
    now: datetime,
) -> list[tuple[PolicyName, KnownArm]]:
    """Return the arms with what they earned, of policies that came back since `back` of them."""
    replaced = policy_archivals.replaced_since(connection, record.id, now - WARM)
    returns = _returns(connection, record)
    rule = record.rules.checklist
    trades = outcomes.newest_trades_of(
        connection, [arm.id for arm in record.arms], rule.long_window
    )
    known = []
    for arm in record.arms:
        policy = arm.place.policy
        since = back.get(policy)
        results = [t.result for t in trades[arm.id] if since is None or t.closed_at > since]
        interval = profit_factor_interval(results)
        known.append(
            (
                policy,
                KnownArm(
                    experiment=record.experiment.name,
                    role=arm.place.role,
                    status=arm.place.status,
                    profile=record.experiment.profile,
                    profit_factor=profit_factor(results),
                    high=None if interval is None else interval.high,
                    trades_min=rule.window,
                    replaced_at=replaced.get(policy) if _may_return(arm) else None,
                    returns=policy == returns,
                ),
            )
        )
    return known


def _may_return(arm: ArmRecord) -> bool:
    place = arm.place
    return place.role is ArmRole.CHALLENGER and place.status is not ArmStatus.RETIRED


def _returns(connection: Connection, record: ExperimentRecord) -> PolicyName | None:
    """Return the policy a rollback returns to that names nobody."""
    try:
        known = decisions.champions(connection, record.id)
        return champion_to_return(known, record.places, named=None)
    except InvalidTransition:
        return None
