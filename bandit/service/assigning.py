"""Route opportunities to arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.errors import Conflict, InvalidInput
from bandit.core.model import (
    Allocation,
    ArmStatus,
    Assignment,
    PolicyName,
    UnitId,
    checked_document,
    checked_instant,
    checked_instrument,
    checked_unit,
)
from bandit.core.routing import Partition, assignment_id, bucket_of, partition_of_history
from bandit.storage import assignments, decisions, experiments, locks
from bandit.storage.assignments import AssignmentRow
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ArmRecord, ExperimentRecord

BATCH_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Opportunity:
    """A moment at which one arm has to decide.

    `position` names the assignment that opened a position which is still open: its arm keeps it.
    """

    unit_id: UnitId
    instrument: str
    context: object = None
    proposed_actions: object = None
    position: UUID | None = None

    def __post_init__(self) -> None:
        """Refuse a unit, instrument or document outside its domain."""
        checked_unit(self.unit_id)
        checked_instrument(self.instrument)
        checked_document(self.context, field="context")
        checked_document(self.proposed_actions, field="proposed_actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    record: ExperimentRecord
    allocation: Allocation
    partition: Partition
    arms: Mapping[PolicyName, ArmRecord]


class Router:
    """Assigns units on the allocation in force, which it remembers between calls.

    The memory is only a guess: the insert checks its epoch, and a batch whose epoch has passed is
    routed again as a whole (re-routing single rows would bias propensities) on what is read behind
    the gate.
    """

    def __init__(self, engine: Engine) -> None:
        """Start with nothing remembered."""
        self._engine = engine
        self._tables: dict[str, _Table] = {}

    def assign(
        self, experiment: str, opportunities: Sequence[Opportunity], *, now: datetime
    ) -> list[Assignment]:
        """Return each opportunity's assignment: a new one, or the one it got before.

        Raises `UnknownName` for an experiment that is not open, `Conflict` when a unit came back
        with another instrument, `InvalidInput` for a position that is not open.
        """
        checked_instant(now, field="now")
        if not 1 <= len(opportunities) <= BATCH_MAX:
            rule = f"must be 1 to {BATCH_MAX} opportunities"
            raise InvalidInput(field="batch", rule=rule, found=len(opportunities))
        table = self._tables.get(experiment)
        if table is None:
            with snapshot(self._engine) as connection:
                table = _read(connection, experiment)
        with transaction(self._engine) as connection:
            # A statement of its own: in one statement with the read it protects, the lock leaks.
            locks.gate_shared(connection, table.record.id)
            stored = self._attempt(connection, table, opportunities, now=now)
            if stored is None:
                # Behind the gate nothing changes any more, so this table is the one in force.
                table = _read(connection, experiment)
                stored = self._attempt(connection, table, opportunities, now=now)
        assert stored is not None
        self._tables[experiment] = table
        return [_agreed(found, o) for found, o in zip(stored, opportunities, strict=True)]

    def _attempt(
        self,
        connection: Connection,
        table: _Table,
        opportunities: Sequence[Opportunity],
        *,
        now: datetime,
    ) -> list[Assignment] | None:
        record, name = table.record, table.record.experiment.name
        ids = [assignment_id(record.salt, experiment=name, unit=o.unit_id) for o in opportunities]
        pairs = list(zip(ids, opportunities, strict=True))
        # A retry is answered even when its position has closed since.
        sticky = [key for key, o in pairs if o.position is not None]
        before = assignments.by_ids(connection, sticky) if sticky else {}
        kept = {
            o.position: assignments.open_position_arm(connection, o.position)
            for key, o in pairs
            if o.position is not None and key not in before
        }
        if any(arm and arm[0] == name and arm[2] not in table.arms for arm in kept.values()):
            return None  # the arm joined after the table was remembered
        # Of a unit that comes twice in one batch, the first stands.
        new = {
            key: self._row(table, key, o, kept.get(o.position) if o.position else None, now)
            for key, o in reversed(pairs)
            if key not in before
        }
        assignments.insert(connection, record.id, list(new.values()), epoch=record.epoch)
        stored = assignments.by_ids(connection, ids)
        return [stored[key] for key in ids] if len(stored) == len(set(ids)) else None

    def _row(
        self,
        table: _Table,
        key: UUID,
        opportunity: Opportunity,
        kept: tuple[str, int, PolicyName] | None,
        now: datetime,
    ) -> AssignmentRow:
        record, experiment = table.record, table.record.experiment
        if opportunity.position is None:
            bucket = bucket_of(record.salt, experiment=experiment.name, unit=opportunity.unit_id)
            policy = table.partition.policy_of(bucket)
            propensity = table.allocation.propensity(policy)
        elif kept is None or kept[0] != experiment.name:
            rule = f"must be an assignment of {experiment.name} without an outcome"
            raise InvalidInput(field="position", rule=rule, found=opportunity.position)
        else:
            policy, propensity = kept[2], 1.0
        arm = table.arms[policy]
        assert opportunity.position is not None or arm.place.status is ArmStatus.ACTIVE
        assignment = Assignment(
            id=key,
            experiment=experiment.name,
            unit_id=opportunity.unit_id,
            instrument=opportunity.instrument,
            policy=policy,
            policy_sha=arm.policy_sha,
            role=arm.place.role,
            mode=arm.place.mode,
            propensity=propensity,
            sticky=opportunity.position is not None,
            allocation_version=table.allocation.version,
            epoch=record.epoch,
            size_multiplier=1.0,
            confidence_bump=0.0,
            decided_at=now,
            expires_at=now + timedelta(seconds=experiment.decision_seconds_valid),
        )
        return AssignmentRow(
            assignment=assignment,
            arm_id=arm.id,
            position_id=opportunity.position,
            context=opportunity.context,
            proposed_actions=opportunity.proposed_actions,
        )


def _read(connection: Connection, experiment: str) -> _Table:
    record = experiments.load(connection, experiment)
    history = [made for made, _ in decisions.allocations(connection, experiment)]
    return _Table(
        record=record,
        allocation=history[-1],
        partition=partition_of_history(made.ppm for made in history),
        arms={arm.place.policy: arm for arm in record.arms},
    )


def _agreed(stored: Assignment, opportunity: Opportunity) -> Assignment:
    if stored.instrument != opportunity.instrument:
        raise Conflict(
            f"unit {stored.unit_id} was assigned for {stored.instrument}, "
            f"and came back for {opportunity.instrument}"
        )
    return stored
