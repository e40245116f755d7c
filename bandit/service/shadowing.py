"""Record what arms would have earned, and what it is worth as evidence in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.errors import AmbiguousName, BanditError, Conflict, InvalidInput, UnknownName
from bandit.core.model import PolicyName, checked_instant
from bandit.core.shadow import ShadowOutcome, check_shadow
from bandit.service import pairing
from bandit.service.performance_guarding import Alert, guard_on_paper
from bandit.service.revealing import guarded
from bandit.storage import assignments, policies, shadows, statistics
from bandit.storage.assignments import AssignedUnit
from bandit.storage.shadows import JoinedArm, ShadowKey, ShadowRow, StoredShadow

BATCH_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedShadow:
    """A result on paper in the ledger: new, or there before with the same body."""

    outcome: ShadowOutcome
    created: bool
    recorded_at: datetime


Answer = RecordedShadow | BanditError


def record(engine: Engine, batch: Sequence[ShadowOutcome], *, now: datetime) -> list[Answer]:
    """Store a batch in one transaction and return one answer per result, in order.

    Of each, `policy` is a full name, a full sha or a unique prefix of one. A bad result gets its
    error and takes nothing of the rest with it: `UnknownName` for an assignment nobody made or a
    policy that is not in its experiment, `AmbiguousName`, `InvalidInput` for what no arm can have
    earned there, `Conflict` for another body than the first: what would have been earned is told
    once. The same body again is the same answer.
    """
    now = checked_instant(now, field="now")
    if not 1 <= len(batch) <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} outcomes"
        raise InvalidInput(field="batch", rule=rule, found=len(batch))
    # No key is needed: what is on paper stops nobody. But a decision may leave meanwhile.
    answers, alerts = guarded(engine, lambda connection, _held: _record(connection, batch, now=now))
    for alert in alerts:
        alert.log()
    return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the ledger knows of the decisions and policies that a batch names."""

    units: Mapping[UUID, AssignedUnit]
    aged: Mapping[UUID, int]
    names: Mapping[str, PolicyName | BanditError]
    arms: Mapping[tuple[int, PolicyName], JoinedArm]


def _record(
    connection: Connection, batch: Sequence[ShadowOutcome], *, now: datetime
) -> tuple[list[Answer], list[Alert]]:
    known = _known(connection, batch)
    entries = [_entry(told, known, now=now) for told in batch]
    # Of several bodies for one key the first is the one to store; of what has left, none.
    new: dict[ShadowKey, ShadowRow] = {}
    for entry in entries:
        if isinstance(entry, ShadowRow) and entry.key.assignment_id in known.units:
            new.setdefault(entry.key, entry)
    before = shadows.insert(connection, new.values(), now=now) if new else set()
    created = new.keys() - before
    alerts: list[Alert] = []
    if created:
        # What becomes of the decisions meanwhile, and what others tell of them, waits.
        takers = {known.units[key.assignment_id].arm_id for key in created}
        statistics.lock(connection, takers)
        pairing.pair_shadows(connection, created)
        # In the order of arrival.
        arrived = [row for key, row in new.items() if key in created]
        alerts = guard_on_paper(connection, arrived, now=now)
    rows = [entry for entry in entries if isinstance(entry, ShadowRow)]
    told_before = {row.key.assignment_id for row in rows if row.key not in created}
    stored = shadows.stored(connection, told_before) if told_before else {}
    stored |= {key: StoredShadow(new[key].body_hash, now) for key in created}
    first = {id(row) for key, row in new.items() if key in created}
    answers = [
        _answer(entry, stored.get(entry.key), created=id(entry) in first)
        if isinstance(entry, ShadowRow)
        else entry
        for entry in entries
    ]
    return answers, alerts


def _known(connection: Connection, batch: Sequence[ShadowOutcome]) -> _Known:
    ids = {told.assignment_id for told in batch}
    units = assignments.units_of(connection, ids)
    # Asked after those that are here: one that leaves between two statements is in the second.
    missing = ids - units.keys()
    aged = shadows.aged_experiments(connection, missing) if missing else {}
    experiments = {unit.experiment_id for unit in units.values()} | set(aged.values())
    return _Known(
        units=units,
        aged=aged,
        names={r: _name(connection, r) for r in sorted({told.policy for told in batch})},
        arms=shadows.arms_of(connection, experiments),
    )


def _name(connection: Connection, reference: str) -> PolicyName | BanditError:
    try:
        return policies.by_reference(connection, reference).policy.name
    except (UnknownName, AmbiguousName) as error:
        return error


def _entry(told: ShadowOutcome, known: _Known, *, now: datetime) -> ShadowRow | BanditError:
    key = told.assignment_id
    unit = known.units.get(key)
    experiment_id = known.aged.get(key) if unit is None else unit.experiment_id
    if experiment_id is None:
        return UnknownName(kind="assignment", name=str(key))
    name = known.names[told.policy]
    if isinstance(name, BanditError):
        return name
    arm = known.arms.get((experiment_id, name))
    if arm is None:
        inside = sorted(policy for experiment, policy in known.arms if experiment == experiment_id)
        return UnknownName(kind="arm of this decision's experiment", name=name, known=inside)
    told = replace(told, policy=name)
    if unit is not None:
        try:
            check_shadow(
                told,
                decided_at=unit.decided_at,
                joined_at=arm.joined_at,
                is_opportunity=unit.is_opportunity,
                now=now,
            )
        except InvalidInput as error:
            return error
    decided_at = now if unit is None else unit.decided_at
    return ShadowRow(told, ShadowKey(key, arm.id), decided_at, told.body_hash())


def _answer(row: ShadowRow, stored: StoredShadow | None, *, created: bool) -> Answer:
    key, policy = row.key.assignment_id, row.outcome.policy
    if stored is None:
        return Conflict(f"assignment {key} has aged: nothing more is told of it")
    if stored.body_hash != row.body_hash:
        return Conflict(f"{policy} has another result on paper for {key} already; the first stands")
    return RecordedShadow(outcome=row.outcome, created=created, recorded_at=stored.recorded_at)
