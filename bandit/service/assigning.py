"""Route opportunities to arms, and let decisions be claimed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Engine

from bandit.core.errors import (
    BanditError,
    BudgetSpent,
    Expired,
    InvalidInput,
    Killed,
    Paused,
    PositionLimit,
    Revoked,
    SizeLimit,
    StaleEpoch,
    UnknownName,
    Unreconciled,
)
from bandit.core.model import Assignment, checked_instant, require_past
from bandit.core.sizing import Claim
from bandit.service.routing_table import Opportunity, RoutingTable, read_table, routed
from bandit.service.selecting import Selections
from bandit.storage import assignments, claims, locks
from bandit.storage.claims import ClaimVerdict
from bandit.storage.engine import SessionLost, again_where, snapshot, transaction

_T = TypeVar("_T")
BATCH_MAX = 1024


class Router:
    """Assigns units on the allocation in force, which it remembers between calls.

    The memory is only a guess: the commit checks its epoch, and a batch whose epoch has passed is
    routed again as a whole (re-routing single rows would bias propensities).
    """

    def __init__(self, engine: Engine) -> None:
        """Start with nothing remembered."""
        self._engine = engine
        self.selections = Selections(engine)
        self._tables: dict[str, RoutingTable] = {}
        self._lock = threading.Lock()

    @again_where(SessionLost)
    def assign(
        self, experiment: str, opportunities: Sequence[Opportunity], *, now: datetime
    ) -> list[Assignment]:
        """Return each opportunity's assignment: a new one, or the one it got before.

        Raises `UnknownName` for an experiment that is not open, `Conflict` when a unit came back
        with another instrument, `InvalidInput` for a position that is not open, `Killed` while the
        account's kill switch is on, `Unreconciled` while its bots and ledger differ and the batch
        would open something, and `Paused` for the first unit that a guard refused: what was new of
        the batch is stored all the same, so that the others have their answers. Raises
        `NotSelected` with nothing stored for a unit in whose instrument nothing new opens.
        """
        _check(opportunities, now=now)
        refused = self.selections.refused(self.table(experiment), opportunities, now=now)
        for refusal in refused.values():
            raise refusal
        drawn_max: int | None = None
        while True:
            try:
                table = self.table(experiment)
                batch = routed(table, opportunities, now=now, drawn_max=drawn_max)
                with transaction(self._engine) as connection:
                    locks.as_batch(connection)
                    stored = assignments.commit(connection, batch.batch)
                    answers = batch.answers(stored)
                    # Within the transaction: who is refused takes the whole batch along.
                    for answer in answers:
                        if not isinstance(answer, Paused):
                            _or_raise(answer)
                return [_or_raise(answer) for answer in answers]
            except BudgetSpent as spent:
                drawn_max = fewer(drawn_max, spent)
            except StaleEpoch:
                answers = self.assign_behind_gate(experiment, opportunities, now=now)
                return [_or_raise(answer) for answer in answers]

    def assign_behind_gate(
        self, experiment: str, opportunities: Sequence[Opportunity], *, now: datetime
    ) -> list[Assignment | BanditError]:
        """Assign on what is read while nothing can change: certain to succeed, but slower.

        Remembers what it read.
        """
        drawn_max: int | None = None
        while True:
            try:
                with transaction(self._engine) as connection:
                    locks.as_batch(connection)
                    locks.gate_shared(connection, self.table(experiment).record.id)
                    known = self._tables.get(experiment)
                    table = read_table(connection, experiment, known=known)
                    batch = routed(table, opportunities, now=now, drawn_max=drawn_max)
                    stored = assignments.commit(connection, batch.batch)
                self._remember(experiment, table)
                return batch.answers(stored)
            except BudgetSpent as spent:
                drawn_max = fewer(drawn_max, spent)

    @again_where(SessionLost)
    def claim(
        self,
        assignment: UUID,
        *,
        now: datetime,
        position_size: float | None = None,
        leverage: float | None = None,
    ) -> datetime:
        """Return when the decision was first claimed: now, unless it was before.

        `position_size` and `leverage` tell of the position that is about to open, as `Claim`.
        Raises `UnknownName`, `Expired`, `Revoked`, `Paused`, `Unreconciled`, `Killed`,
        `PositionLimit` and `SizeLimit`.
        """
        checked_instant(now, field="now")
        asked = Claim(assignment=assignment, position_size=position_size, leverage=leverage)
        with transaction(self._engine) as connection:
            locks.as_batch(connection)
            found = claims.commit(connection, [asked], now=now)
        return _or_raise(claim_answer(assignment, found.get(assignment)))

    def table(self, experiment: str) -> RoutingTable:
        """Return what is remembered of an experiment, read first where nothing is."""
        table = self._tables.get(experiment)
        if table is not None:
            return table
        with snapshot(self._engine) as connection:
            return self._remember(experiment, read_table(connection, experiment))

    def refresh(self, epochs: Mapping[str, int]) -> None:
        """Read again what is remembered of an older epoch than these."""
        for experiment, epoch in epochs.items():
            table = self._tables.get(experiment)
            if table is not None and table.record.epoch < epoch:
                with snapshot(self._engine) as connection:
                    read = read_table(connection, experiment, known=table)
                    self._remember(experiment, read)

    def _remember(self, experiment: str, read: RoutingTable) -> RoutingTable:
        with self._lock:
            # Of two threads that read, the one that read earlier may come here later.
            known = self._tables.get(experiment)
            if known is None or known.record.epoch < read.record.epoch:
                known = self._tables[experiment] = read
            return known

    def remembers(self, experiment: str) -> bool:
        """Say whether a batch of the experiment could be routed without reading."""
        return experiment in self._tables


def fewer(drawn_max: int | None, spent: BudgetSpent) -> int:
    """Return how many decisions of a batch are drawn when its budget had no room for all of them.

    As many as had room, at last none; the others are the champion's, and no chance is in them. How
    many that is, and which, never depends on the arms that they fall to.
    """
    return spent.room if drawn_max is None else 0


def _check(opportunities: Sequence[Opportunity], *, now: datetime) -> None:
    checked_instant(now, field="now")
    if not 1 <= len(opportunities) <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} opportunities"
        raise InvalidInput(field="batch", rule=rule, found=len(opportunities))
    for opportunity in opportunities:
        if opportunity.fallback_at is not None:
            require_past(opportunity.fallback_at, field="decided_at", now=now)


def claim_answer(assignment: UUID, found: ClaimVerdict | None) -> datetime | BanditError:
    """Return when a decision was claimed, or why it may not be acted on."""
    if found is None:
        return UnknownName(kind="assignment", name=str(assignment))
    match found.verdict:
        case "killed":
            return Killed("the account's kill switch is on")
        case "unreconciled":
            return Unreconciled(f"bots and ledger differ on the account: {found.reason}")
        case "paused":
            assert found.experiment is not None
            assert found.scope is not None
            assert found.since is not None
            assert found.reason is not None
            assert found.policy is not None
            return Paused(
                experiment=found.experiment,
                scope=found.scope,
                since=found.since,
                reason=found.reason,
                assignment_id=assignment,
                policy=found.policy,
            )
        case "revoked":
            return Revoked("the arm was stopped or replaced since this decision")
        case "expired":
            return Expired(f"the decision was valid until {found.expires_at.isoformat()}")
        case "full":
            assert found.over is not None
            return PositionLimit(**found.over)
        case "oversized":
            assert found.over is not None
            return SizeLimit(**found.over)
        case _:
            assert found.claimed_at is not None
            return found.claimed_at


def _or_raise(answer: _T | BanditError) -> _T:
    if isinstance(answer, BanditError):
        raise answer
    return answer
