"""What routing needs to know of an experiment, and how a batch follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.errors import BanditError, Conflict, InvalidInput, Paused
from bandit.core.model import (
    Allocation,
    ArmMode,
    ArmRole,
    Assignment,
    PolicyName,
    UnitId,
    checked_document,
    checked_instant,
    checked_instrument,
    checked_unit,
)
from bandit.core.routing import (
    Partition,
    Route,
    assignment_id,
    partition_of_history,
    repartitioned,
    router,
)
from bandit.core.sizing import Sizing
from bandit.storage import decisions, experiments
from bandit.storage.assignments import AssignmentBatch, AssignmentRow, StoredAssignment
from bandit.storage.experiments import ArmRecord, ExperimentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Opportunity:
    """A moment at which one arm has to decide.

    `position` names the assignment that opened a position which is still open: its arm keeps it.
    `fallback_at` tells of a decision that a bot took for the champion by itself, at that time,
    while it could not reach the service; `fallback_arm_id` is the champion that the bot knew, the
    one of now where it does not say.
    """

    unit_id: UnitId
    instrument: str
    context: object = None
    proposed_actions: object = None
    position: UUID | None = None
    fallback_at: datetime | None = None
    fallback_arm_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse a unit, instrument, document or time outside its domain."""
        checked_unit(self.unit_id)
        checked_instrument(self.instrument)
        if self.context is not None:
            checked_document(self.context, field="context")
        if self.proposed_actions is not None:
            checked_document(self.proposed_actions, field="proposed_actions")
        if self.fallback_at is not None:
            # In UTC, as the ledger gives it back: a retry is answered with the same bytes.
            at = checked_instant(self.fallback_at, field="decided_at")
            object.__setattr__(self, "fallback_at", at)

    @property
    def may_be_drawn(self) -> bool:
        """Whether chance may choose its arm: not of a position, nor where a bot has decided."""
        return self.position is None and self.fallback_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """What routing needs to know of an experiment, as of one epoch."""

    record: ExperimentRecord
    allocation: Allocation
    allocated_at: datetime
    partition: Partition
    routes: Callable[[Iterable[UnitId]], list[Route]]
    arms: Mapping[PolicyName, ArmRecord]
    by_id: Mapping[int, ArmRecord]
    sizing: Sizing | None

    def batch(
        self, asked: Mapping[UUID, Opportunity], *, now: datetime, drawn_max: int | None
    ) -> AssignmentBatch:
        """Choose the arm of every opportunity, by its assignment id."""
        experiment = self.record.experiment
        drawable = (key for key, opportunity in asked.items() if opportunity.may_be_drawn)
        drawn = list(islice(drawable, drawn_max))
        by_chance = dict(zip(drawn, self.routes(asked[key].unit_id for key in drawn), strict=True))
        return AssignmentBatch(
            experiment_id=self.record.id,
            epoch=self.record.epoch,
            version=self.allocation.version,
            decided_at=now,
            expires_at=now + timedelta(seconds=experiment.decision_seconds_valid),
            are_facts=any(o.fallback_at is not None for o in asked.values()),
            rows=[
                self._row(key, opportunity, by_chance.get(key, self._champion_for_sure))
                for key, opportunity in asked.items()
            ],
        )

    @property
    def _champion_for_sure(self) -> Route:
        return Route(policy=self.record.experiment.champion, propensity=1.0)

    def id_of(self, opportunity: Opportunity) -> UUID:
        """Return the id that the unit's assignment has or will have."""
        name = self.record.experiment.name
        return assignment_id(self.record.salt, experiment=name, unit=opportunity.unit_id)

    def _row(self, key: UUID, opportunity: Opportunity, route: Route) -> AssignmentRow:
        return AssignmentRow(
            id=key,
            unit_id=opportunity.unit_id,
            instrument=opportunity.instrument,
            arm_id=opportunity.fallback_arm_id or self.arms[route.policy].id,
            propensity=route.propensity,
            position_id=opportunity.position,
            is_fallback=opportunity.fallback_at is not None,
            context=opportunity.context,
            proposed_actions=opportunity.proposed_actions,
            decided_at=opportunity.fallback_at,
        )

    def made(self, row: AssignmentRow, batch: AssignmentBatch) -> Assignment:
        """Return what the ledger stored of a row of ours."""
        arm = self.by_id[row.arm_id]
        decided_at = row.decided_at or batch.decided_at
        return Assignment(
            id=row.id,
            experiment=self.record.experiment.name,
            unit_id=row.unit_id,
            instrument=row.instrument,
            policy=arm.place.policy,
            policy_sha=arm.policy_sha,
            role=ArmRole.CHAMPION if row.is_fallback else arm.place.role,
            mode=arm.place.mode,
            propensity=row.propensity,
            sticky=row.is_fallback,
            allocation_version=batch.version,
            epoch=batch.epoch,
            size_multiplier=1.0,
            confidence_bump=0.0,
            decided_at=decided_at,
            expires_at=decided_at + (batch.expires_at - batch.decided_at),
            sizing=self.sizing,
        )

    def kept(self, stored: StoredAssignment) -> Assignment:
        """Return an assignment that the ledger had already, or gave to a position's arm."""
        arm = self.by_id[stored.arm_id]
        return Assignment(
            id=stored.id,
            experiment=self.record.experiment.name,
            unit_id=stored.unit_id,
            instrument=stored.instrument,
            policy=arm.place.policy,
            policy_sha=arm.policy_sha,
            role=ArmRole(stored.role),
            mode=ArmMode(stored.mode),
            propensity=stored.propensity,
            sticky=stored.position_id is not None or stored.is_fallback,
            allocation_version=stored.allocation_version,
            epoch=stored.epoch,
            size_multiplier=stored.size_multiplier,
            confidence_bump=stored.confidence_bump,
            decided_at=stored.decided_at,
            expires_at=stored.expires_at,
            sizing=self.sizing,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedBatch:
    """A batch with the ids in the order in which its callers asked."""

    table: RoutingTable
    ids: Sequence[UUID]
    asked: Sequence[Opportunity]
    batch: AssignmentBatch

    def answers(self, stored: Mapping[UUID, StoredAssignment]) -> list[Assignment | BanditError]:
        """Return each caller's assignment, or why there is none, from what the commit gave."""
        rows = {row.id: row for row in self.batch.rows}
        return [
            self._answer(rows[key], stored.get(key), opportunity)
            for key, opportunity in zip(self.ids, self.asked, strict=True)
        ]

    def _answer(
        self, row: AssignmentRow, stored: StoredAssignment | None, asked: Opportunity
    ) -> Assignment | BanditError:
        if stored is None and row.position_id is not None:
            name = self.table.record.experiment.name
            rule = f"must be an assignment of {name} without an outcome"
            return InvalidInput(field="position", rule=rule, found=asked.position)
        made = self.table.made(row, self.batch) if stored is None else self.table.kept(stored)
        if made.instrument != asked.instrument:
            return Conflict(
                f"unit {made.unit_id} was assigned for {made.instrument}, "
                f"and came back for {asked.instrument}"
            )
        if asked.fallback_at is not None:
            if made.role is not ArmRole.CHAMPION or not self._is_of(asked.fallback_arm_id, made):
                return Conflict(f"unit {made.unit_id} had been routed to {made.policy} before")
            if stored is not None and stored.paused_scope is not None:
                return Conflict(f"unit {made.unit_id} had been refused by a pause before")
            return made
        held = row.position_id if stored is None else stored.position_id
        if held != asked.position:
            # Else a decision about a position would be taken by an arm that does not hold it.
            return Conflict(
                f"unit {made.unit_id} was assigned for {_held(held)}, "
                f"and came back for {_held(asked.position)}"
            )
        return made if stored is None else _unless_paused(made, stored)

    def _is_of(self, arm_id: int | None, made: Assignment) -> bool:
        return arm_id is None or self.table.by_id[arm_id].place.policy == made.policy


def _unless_paused(made: Assignment, stored: StoredAssignment) -> Assignment | Paused:
    if stored.paused_scope is None:
        return made
    assert stored.paused_since is not None
    assert stored.paused_reason is not None
    return Paused(
        experiment=made.experiment,
        scope=stored.paused_scope,
        since=stored.paused_since,
        reason=stored.paused_reason,
        assignment_id=made.id,
        policy=made.policy,
    )


def _held(position: UUID | None) -> str:
    return "no position" if position is None else f"position {position}"


def routed(
    table: RoutingTable,
    asked: Sequence[Opportunity],
    *,
    now: datetime,
    drawn_max: int | None = None,
) -> RoutedBatch:
    """Choose the arm of every opportunity on one epoch.

    For no more than `drawn_max` of them by chance: the others are the champion's for sure. Which
    ones does not depend on the arms that chance would have given them.
    """
    ids = [table.id_of(opportunity) for opportunity in asked]
    # Of a unit that comes twice in one batch, the first stands.
    first = dict(reversed(list(zip(ids, asked, strict=True))))
    return RoutedBatch(
        table=table, ids=ids, asked=asked, batch=table.batch(first, now=now, drawn_max=drawn_max)
    )


def read_table(
    connection: Connection, experiment: str, *, known: RoutingTable | None = None
) -> RoutingTable:
    """Read an experiment as of now; raises `UnknownName` for one that is not open.

    What is `known` of it spares the reading of its older allocations: there may be thousands.
    """
    record = experiments.load(connection, experiment)
    (allocation, allocated_at), partition = _in_force(connection, experiment, known)
    return RoutingTable(
        record=record,
        allocation=allocation,
        allocated_at=allocated_at,
        partition=partition,
        routes=router(
            record.salt, experiment=experiment, allocation=allocation, partition=partition
        ),
        arms={arm.place.policy: arm for arm in record.arms},
        by_id={arm.id: arm for arm in record.arms},
        sizing=record.sizing,
    )


def _in_force(
    connection: Connection, experiment: str, known: RoutingTable | None
) -> tuple[tuple[Allocation, datetime], Partition]:
    if known is not None:
        made = decisions.allocations(connection, experiment, since=known.allocation.version)
        # A ledger that was restored to an earlier day went on differently.
        if made and made[0] == (known.allocation, known.allocated_at):
            newer = (allocation.ppm for allocation, _ in made[1:])
            return made[-1], repartitioned(known.partition, newer)
    made = decisions.allocations(connection, experiment)
    return made[-1], partition_of_history(allocation.ppm for allocation, _ in made)
