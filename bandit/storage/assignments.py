"""Assignments: one opportunity, one arm, for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection

from bandit.core.model import (
    ArmMode,
    ArmRole,
    Assignment,
    PolicyName,
    PolicySha,
    UnitId,
)
from bandit.storage.engine import PROTOCOL, rows

_COLUMNS = """
  SELECT s.id, e.name AS experiment, s.unit_id, s.instrument, p.name AS policy, p.sha, s.role,
         s.mode, s.propensity, s.position_id, s.allocation_version, s.epoch, s.size_multiplier,
         s.confidence_bump, s.decided_at, s.expires_at, s.arm_id, e.equity_fraction,
         e.rules
  FROM assignments s
  JOIN experiments e ON e.id = s.experiment_id
  JOIN arms a ON a.id = s.arm_id
  JOIN policies p ON p.id = a.policy_id
"""


class AssignmentRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one unit adds to its batch.

    `arm_id` and `propensity` are what the router chose; a row with `position_id` goes to the arm
    that opened that position instead. `decided_at` is set only for a decision made elsewhere.
    """

    id: UUID
    unit_id: UnitId
    instrument: str
    arm_id: int
    propensity: float
    position_id: UUID | None = None
    is_fallback: bool = False
    context: object = None
    proposed_actions: object = None
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentBatch:
    """Rows of one experiment, all routed on one version of its allocation.

    `rows` hold every id once, in any order. `are_facts` marks decisions taken elsewhere, which a
    kill switch cannot undo any more.
    """

    experiment_id: int
    epoch: int
    version: int
    decided_at: datetime
    expires_at: datetime
    are_facts: bool
    rows: Sequence[AssignmentRow]

    def parameters(self) -> tuple[object, ...]:
        """Return what `COMMIT` takes, in its order."""
        return (
            PROTOCOL,
            self.experiment_id,
            self.epoch,
            self.version,
            self.decided_at,
            self.expires_at,
            self.are_facts,
            msgspec.json.encode(self.rows).decode(),
        )


class StoredAssignment(NamedTuple):
    """A row as the ledger has it."""

    id: UUID
    unit_id: UnitId
    instrument: str
    arm_id: int
    role: str
    mode: str
    propensity: float
    position_id: UUID | None
    is_fallback: bool
    allocation_version: int
    epoch: int
    size_multiplier: float
    confidence_bump: float
    decided_at: datetime
    expires_at: datetime


COMMIT = f"""
  SELECT {", ".join(StoredAssignment._fields)}
  FROM commit_assignments(%s, %s, %s, %s, %s, %s, %s, %s::json)
"""  # noqa: S608 - names are ours
"""Commits a batch; gives the rows that its caller cannot know: stored before, or of positions."""


def commit(connection: Connection, batch: AssignmentBatch) -> dict[UUID, StoredAssignment]:
    """Store the rows whose id is new; return those stored before and those of positions.

    Raises `StaleEpoch` with nothing stored when the experiment is in another epoch, `Killed` when
    its account is, `ForeignProtocol` when this process is older or newer than the ledger.
    """
    found = connection.exec_driver_sql(COMMIT, batch.parameters())
    return {row.id: row for row in map(StoredAssignment._make, found)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedArm:
    """An assignment with what its outcome is counted under."""

    assignment: Assignment
    arm_id: int
    equity_fraction: float
    windows: tuple[int, int]


def arms_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, AssignedArm]:
    """Return the stored assignments among `ids` with their arms."""
    found = rows(connection, _COLUMNS + " WHERE s.id = ANY(:ids)", ids=list(ids))
    return {
        row["id"]: AssignedArm(
            assignment=_assignment(row),
            arm_id=row["arm_id"],
            equity_fraction=row["equity_fraction"],
            windows=(
                row["rules"]["checklist"]["window"],
                row["rules"]["checklist"]["long_window"],
            ),
        )
        for row in found
    }


def _assignment(row: dict[str, Any]) -> Assignment:
    return Assignment(
        id=row["id"],
        experiment=row["experiment"],
        unit_id=UnitId(row["unit_id"]),
        instrument=row["instrument"],
        policy=PolicyName(row["policy"]),
        policy_sha=PolicySha(row["sha"]),
        role=ArmRole(row["role"]),
        mode=ArmMode(row["mode"]),
        propensity=row["propensity"],
        sticky=row["position_id"] is not None,
        allocation_version=row["allocation_version"],
        epoch=row["epoch"],
        size_multiplier=row["size_multiplier"],
        confidence_bump=row["confidence_bump"],
        decided_at=row["decided_at"],
        expires_at=row["expires_at"],
    )
