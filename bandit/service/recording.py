"""Record what decisions earned, and the statistics in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.errors import BanditError, Conflict, InvalidInput, UnknownName
from bandit.core.model import checked_instant
from bandit.core.outcomes import Outcome, check_times, is_expired
from bandit.core.performance import ClosedTrade, window_numbers
from bandit.core.tally import Fold, folded, is_checkpoint
from bandit.storage import assignments, outcomes, statistics
from bandit.storage.assignments import AssignedArm
from bandit.storage.engine import transaction
from bandit.storage.outcomes import OutcomeRow
from bandit.storage.statistics import ArmStatistics

BATCH_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An outcome in the ledger: new, or there before with the same body."""

    assignment_id: UUID
    created: bool
    recorded_at: datetime
    expired: bool


def record(
    engine: Engine, batch: Sequence[Outcome], *, now: datetime
) -> list[Recorded | BanditError]:
    """Store a batch in one transaction and return one answer per outcome, in order.

    A bad outcome gets its error and takes nothing of the rest with it: `UnknownName` for an
    assignment nobody made, `InvalidInput` for impossible times, `Conflict` for another body than
    the first. The same body again is the same answer.
    """
    checked_instant(now, field="now")
    if not 1 <= len(batch) <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} outcomes"
        raise InvalidInput(field="batch", rule=rule, found=len(batch))
    with transaction(engine) as connection:
        arms = assignments.arms_of(connection, [o.assignment_id for o in batch])
        errors = {i: _refused(o, arms, now=now) for i, o in enumerate(batch)}
        lawful = [o for i, o in enumerate(batch) if errors[i] is None]
        new = {o.assignment_id: _row(o, arms[o.assignment_id]) for o in reversed(lawful)}
        created = outcomes.insert(connection, list(new.values()), now=now) if new else set()
        stored = outcomes.stored(connection, list(new))
        if created:
            _count(connection, [new[key] for key in sorted(created)], arms)
    answers: list[Recorded | BanditError] = []
    for i, outcome in enumerate(batch):
        error = errors[i]
        if error is not None:
            answers.append(error)
            continue
        answers.append(_answer(outcome, stored, created))
        # A body that comes twice in one batch was created by the first.
        created.discard(outcome.assignment_id)
    return answers


def _refused(
    outcome: Outcome, arms: Mapping[UUID, AssignedArm], *, now: datetime
) -> BanditError | None:
    arm = arms.get(outcome.assignment_id)
    if arm is None:
        return UnknownName(kind="assignment", name=str(outcome.assignment_id))
    try:
        check_times(outcome, decided_at=arm.assignment.decided_at, now=now)
    except InvalidInput as error:
        return error
    return None


def _row(outcome: Outcome, arm: AssignedArm) -> OutcomeRow:
    return OutcomeRow(
        outcome=outcome,
        arm_id=arm.arm_id,
        unit_id=arm.assignment.unit_id,
        instrument=arm.assignment.instrument,
        decided_at=arm.assignment.decided_at,
        expired=is_expired(outcome, expires_at=arm.assignment.expires_at),
    )


def _answer(
    outcome: Outcome,
    stored: Mapping[UUID, tuple[bytes, datetime, bool]],
    created: set[UUID],
) -> Recorded | BanditError:
    body_hash, recorded_at, expired = stored[outcome.assignment_id]
    if body_hash != outcome.body_hash():
        return Conflict(
            f"assignment {outcome.assignment_id} has another outcome already; the first stands"
        )
    return Recorded(
        assignment_id=outcome.assignment_id,
        created=outcome.assignment_id in created,
        recorded_at=recorded_at,
        expired=expired,
    )


def _count(
    connection: Connection, created: Sequence[OutcomeRow], arms: Mapping[UUID, AssignedArm]
) -> None:
    by_arm: dict[int, list[OutcomeRow]] = {}
    for row in created:
        by_arm.setdefault(row.arm_id, []).append(row)
    held = statistics.locked(connection, list(by_arm))
    statistics.add_days(connection, [row.outcome.assignment_id for row in created])
    for arm_id, rows in sorted(by_arm.items()):
        _count_arm(connection, held[arm_id], rows, arms[rows[0].outcome.assignment_id])


def _count_arm(
    connection: Connection,
    before: ArmStatistics,
    rows: Sequence[OutcomeRow],
    arm: AssignedArm,
) -> None:
    sums = before.sums
    for row in rows:
        sums = sums.plus(row.outcome, expired=row.expired)
    new = sorted(
        (_trade(row) for row in rows if not row.outcome.no_trade),
        key=lambda trade: (trade.closed_at, trade.unit),
    )
    fold = _refolded(connection, before, new, equity_fraction=arm.equity_fraction)
    short, long = arm.windows
    newest = outcomes.newest_trades(connection, before.arm_id, long)
    fraction = arm.equity_fraction
    statistics.write(
        connection,
        ArmStatistics(arm_id=before.arm_id, sums=sums, fold=fold),
        short=window_numbers(newest, window=short, nominal_fraction=fraction),
        long=window_numbers(newest, window=long, nominal_fraction=fraction),
        window_from=newest[0].closed_at if newest else None,
    )


def _refolded(
    connection: Connection,
    before: ArmStatistics,
    new: Sequence[ClosedTrade],
    *,
    equity_fraction: float,
) -> Fold:
    """Fold on where the history ends, or take it up again before the earliest late trade."""
    if not new:
        return before.fold
    start, trades = before.fold, list(new)
    if not start.continues_with(new):
        place = (new[0].closed_at, new[0].unit)
        start = statistics.checkpoint_before(connection, before.arm_id, place)
        trades = outcomes.trades_after(connection, before.arm_id, start.last)
    state = start
    for state in folded(start, trades, equity_fraction=equity_fraction):
        if is_checkpoint(state):
            statistics.add_checkpoint(connection, before.arm_id, state)
    return state


def _trade(row: OutcomeRow) -> ClosedTrade:
    assert row.outcome.closed_at is not None
    return ClosedTrade(
        closed_at=row.outcome.closed_at,
        unit=row.unit_id,
        result=float(row.outcome.return_ratio),
    )
