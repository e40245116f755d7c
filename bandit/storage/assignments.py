"""Assignments: one opportunity, one arm, for ever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.model import (
    ArmMode,
    ArmRole,
    Assignment,
    PolicyName,
    PolicySha,
    UnitId,
)
from bandit.storage.engine import one, rows

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentRow:
    """What a new assignment adds to what its experiment and arm already say."""

    assignment: Assignment
    arm_id: int
    position_id: UUID | None
    context: object
    proposed_actions: object


def insert(
    connection: Connection, experiment_id: int, new: Sequence[AssignmentRow], *, epoch: int
) -> None:
    """Store the rows whose id is new, all of them in `epoch` or none of them.

    Sorted by id, so that two batches never wait for each other in a circle.
    """
    rows(
        connection,
        """
        INSERT INTO assignments (
          id, experiment_id, unit_id, instrument, arm_id, mode, role, allocation_version, epoch,
          propensity, position_id, size_multiplier, confidence_bump, context, proposed_actions,
          decided_at, expires_at)
        SELECT r.id, e.id, r.unit_id, r.instrument, r.arm_id, r.mode, r.role, r.allocation_version,
               r.epoch, r.propensity, r.position_id, r.size_multiplier, r.confidence_bump,
               r.context, r.proposed_actions, r.decided_at, r.expires_at
        FROM json_to_recordset(CAST(:rows AS json)) AS r (
          id uuid, unit_id text, instrument text, arm_id bigint, mode text, role text,
          allocation_version bigint, epoch bigint, propensity double precision, position_id uuid,
          size_multiplier double precision, confidence_bump double precision, context jsonb,
          proposed_actions jsonb, decided_at timestamptz, expires_at timestamptz)
        JOIN experiments e ON e.id = :experiment_id AND e.epoch = :epoch
        ORDER BY r.id
        ON CONFLICT DO NOTHING RETURNING id
        """,
        experiment_id=experiment_id,
        epoch=epoch,
        rows=json.dumps([_json_row(row) for row in new], allow_nan=False),
    )


def by_ids(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Assignment]:
    """Return the stored assignments among `ids`."""
    found = rows(connection, _COLUMNS + " WHERE s.id = ANY(:ids)", ids=list(ids))
    return {row["id"]: _assignment(row) for row in found}


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


def open_position_arm(connection: Connection, position: UUID) -> tuple[str, int, PolicyName] | None:
    """Return experiment, arm id and policy of a position that has no outcome yet."""
    found = one(
        connection,
        """
        SELECT e.name AS experiment, a.id, p.name AS policy
        FROM assignments s
        JOIN experiments e ON e.id = s.experiment_id
        JOIN arms a ON a.id = s.arm_id
        JOIN policies p ON p.id = a.policy_id
        LEFT JOIN outcomes o ON o.assignment_id = s.id
        WHERE s.id = :position AND o.assignment_id IS NULL
        """,
        position=position,
    )
    return (
        None if found is None else (found["experiment"], found["id"], PolicyName(found["policy"]))
    )


def _json_row(row: AssignmentRow) -> dict[str, Any]:
    made = row.assignment
    return {
        "id": str(made.id),
        "unit_id": made.unit_id,
        "instrument": made.instrument,
        "arm_id": row.arm_id,
        "mode": made.mode.value,
        "role": made.role.value,
        "allocation_version": made.allocation_version,
        "epoch": made.epoch,
        "propensity": made.propensity,
        "position_id": None if row.position_id is None else str(row.position_id),
        "size_multiplier": made.size_multiplier,
        "confidence_bump": made.confidence_bump,
        "context": row.context,
        "proposed_actions": row.proposed_actions,
        "decided_at": made.decided_at.isoformat(),
        "expires_at": made.expires_at.isoformat(),
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
