"""Assignments: one opportunity, one arm, for ever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection

from bandit.core.exploration import Reservation
from bandit.core.model import ArmMode, UnitId
from bandit.storage.engine import PROTOCOL, uuids


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
    """A row as the ledger has it; of one that a pause refused, whose, since when and why."""

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
    paused_scope: str | None
    paused_since: datetime | None
    paused_reason: str | None


COMMIT = f"""
  SELECT {", ".join(StoredAssignment._fields)}
  FROM commit_assignments(%s, %s, %s, %s, %s, %s, %s, %s::json)
"""  # noqa: S608 - names are ours
"""Commits a batch; gives the rows that its caller cannot know.

They were stored before, are of positions, or are not what they would be without a guard.
"""


def commit(connection: Connection, batch: AssignmentBatch) -> dict[UUID, StoredAssignment]:
    """Store the rows whose id is new; return those that are not just as they were given.

    Raises `StaleEpoch` with nothing stored when the experiment is in another epoch, `BudgetSpent`
    when what the batch may cost at worst has no room, `Killed` when its account is,
    `Unreconciled` when something would open while its account's bots and ledger differ,
    `ForeignProtocol` when this process is older or newer than the ledger.
    """
    found = connection.exec_driver_sql(COMMIT, batch.parameters())
    return {row.id: row for row in map(StoredAssignment._make, found)}


class AssignedUnit(NamedTuple):
    """What an outcome needs to know of its assignment.

    `claimed` also of one that a bot took for the champion alone: there was nobody to ask.
    `is_drawn` where chance chose the arm, on `allocation_version`; `is_opportunity` where the
    decision is not about an open position. Both `at_risk` and `expected` are what was reserved for
    it, or None.
    """

    id: UUID
    arm_id: int
    unit_id: UnitId
    instrument: str
    decided_at: datetime
    expires_at: datetime
    mode: str
    experiment_id: int
    account_id: int
    claimed: bool
    allocation_version: int
    is_drawn: bool
    is_opportunity: bool
    at_risk: Decimal | None
    expected: Decimal | None

    @property
    def reservation(self) -> Reservation | None:
        """What was set aside of an exploration budget when it was taken."""
        if self.at_risk is None or self.expected is None:
            return None
        return Reservation(at_risk=self.at_risk, expected=self.expected)

    @property
    def moves_money(self) -> bool:
        """Whether its results are the account's own: shadow and paper arms only say what if."""
        return self.mode == ArmMode.LIVE


_UNITS = """
  SELECT s.id, s.arm_id, s.unit_id, s.instrument, s.decided_at, s.expires_at, s.mode,
         s.experiment_id, e.account_id,
         s.is_fallback OR EXISTS (SELECT FROM claims c WHERE c.assignment_id = s.id OFFSET 0),
         s.allocation_version, s.position_id IS NULL AND NOT s.is_fallback AND s.propensity < 1,
         s.position_id IS NULL, r.at_risk, r.expected
  FROM assignments s JOIN experiments e ON e.id = s.experiment_id
  LEFT JOIN reservations r ON r.assignment_id = s.id WHERE s.id = ANY (%s::uuid[])
"""


def units_of(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, AssignedUnit]:
    """Return the stored assignments among `ids`."""
    found = connection.exec_driver_sql(_UNITS, (uuids(ids),)).all()
    return {row[0]: AssignedUnit._make(row) for row in found}
