"""Mark open positions to market, and the equity of their accounts in the same transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.account import MoneyChange
from bandit.core.errors import BanditError, Conflict, InvalidInput, UnknownName
from bandit.core.marks import Mark, PositionMark, check_time, marked
from bandit.core.model import ArmMode, checked_instant
from bandit.service.guarding import move_money
from bandit.service.revealing import Keys, guarded
from bandit.storage import account_equity, archives, assignments, marks, outcomes
from bandit.storage.assignments import AssignedUnit

BATCH_MAX = 1000


def mark(
    engine: Engine, batch: Sequence[Mark], *, now: datetime
) -> list[PositionMark | BanditError]:
    """Store marks in one transaction and return what then stands of each position, in order.

    A bad mark gets its error and takes nothing of the rest with it: `UnknownName` for an assignment
    nobody made, `InvalidInput` for an impossible time, `Conflict` once its outcome is there. A mark
    that is no later than the newest one changes nothing.
    """
    checked_instant(now, field="now")
    if not 1 <= len(batch) <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} marks"
        raise InvalidInput(field="batch", rule=rule, found=len(batch))
    return guarded(engine, lambda connection, held: _mark(connection, batch, held=held, now=now))


def _mark(
    connection: Connection, batch: Sequence[Mark], *, held: Keys, now: datetime
) -> list[PositionMark | BanditError]:
    ids = [mark.assignment_id for mark in batch]
    units = assignments.units_of(connection, ids)
    equities = account_equity.locked(connection, list({unit.account_id for unit in units.values()}))
    # Behind the accounts' locks, as outcomes read marks: whoever comes second sees the first.
    closed = set(outcomes.stored(connection, ids))
    closed |= set(archives.aged(connection, [key for key in ids if key not in units]))
    before = marks.of_assignments(connection, ids)
    standing = dict(before)
    changes: dict[int, list[MoneyChange]] = {}
    answers: list[PositionMark | BanditError] = []
    for mark in batch:
        error = _refused(mark, units, closed, now=now)
        if error is not None:
            answers.append(error)
            continue
        unit, known = units[mark.assignment_id], standing.get(mark.assignment_id)
        stands = standing[mark.assignment_id] = marked(known, mark)
        answers.append(stands)
        if stands is not known and unit.moves_money:
            changes.setdefault(unit.account_id, []).append(_change(known, stands))
    marks.write(connection, [m for key, m in standing.items() if m is not before.get(key)])
    move_money(connection, equities, changes, held=held, now=now)
    return answers


def _change(before: PositionMark | None, after: PositionMark) -> MoneyChange:
    counted = 0 if before is None else before.newest.unrealised_pnl
    return MoneyChange(unrealised=after.newest.unrealised_pnl - counted)


def _refused(
    mark: Mark, units: Mapping[UUID, AssignedUnit], closed: Collection[UUID], *, now: datetime
) -> BanditError | None:
    if mark.assignment_id in closed:
        return Conflict(
            f"assignment {mark.assignment_id} has its outcome, or has aged: nothing is open"
        )
    unit = units.get(mark.assignment_id)
    if unit is None:
        return UnknownName(kind="assignment", name=str(mark.assignment_id))
    if unit.mode == ArmMode.PAPER:
        return Conflict(f"a pause refused {mark.assignment_id}: nothing is open")
    try:
        check_time(mark, decided_at=unit.decided_at, now=now)
    except InvalidInput as error:
        return error
    return None
