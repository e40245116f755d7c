"""Record what decisions earned, and the statistics in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.errors import BanditError, Conflict, InvalidInput, UnknownName
from bandit.core.model import ArmMode, checked_instant
from bandit.core.outcomes import Flags, Outcome, check_times, flags_of
from bandit.service import counting, exploring, pairing, scoring
from bandit.service.guarding import guard_outcomes
from bandit.service.performance_guarding import Alert
from bandit.service.revealing import Keys, guarded
from bandit.service.scoring import Told
from bandit.storage import archives, assignments, outcomes
from bandit.storage.archives import StoredBody
from bandit.storage.assignments import AssignedUnit
from bandit.storage.outcomes import OutcomeRow

BATCH_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An outcome in the ledger: new, or there before with the same body."""

    assignment_id: UUID
    created: bool
    recorded_at: datetime
    flags: Flags


def record(
    engine: Engine, batch: Sequence[Outcome], *, now: datetime
) -> list[Recorded | BanditError]:
    """Store a batch in one transaction and return one answer per outcome, in order.

    A bad outcome gets its error and takes nothing of the rest with it: `UnknownName` for an
    assignment nobody made, `InvalidInput` for impossible times, `Conflict` for another body than
    the first. The same body again is the same answer.
    """
    now = checked_instant(now, field="now")
    if not 1 <= len(batch) <= BATCH_MAX:
        rule = f"must be 1 to {BATCH_MAX} outcomes"
        raise InvalidInput(field="batch", rule=rule, found=len(batch))
    answers, alerts = guarded(
        engine, lambda connection, held: _record(connection, batch, held=held, now=now)
    )
    for alert in alerts:
        alert.log()
    return answers


def _record(
    connection: Connection, batch: Sequence[Outcome], *, held: Keys, now: datetime
) -> tuple[list[Recorded | BanditError], list[Alert]]:
    units = assignments.units_of(connection, [o.assignment_id for o in batch])
    found = [(outcome, units.get(outcome.assignment_id)) for outcome in batch]
    missing = [outcome.assignment_id for outcome, unit in found if unit is None]
    aged = archives.aged(connection, missing) if missing else {}
    entries = [
        _known(outcome, aged) if unit is None else _entry(outcome, unit, now=now)
        for outcome, unit in found
    ]
    # Of several bodies for one assignment the first is the one to store.
    new = {e.outcome.assignment_id: e for e in reversed(entries) if isinstance(e, OutcomeRow)}
    known = outcomes.insert(connection, list(new.values()), now=now) if new else set()
    stored = _stored(connection, known) if known else {}
    created = {key: row for key, row in new.items() if key not in known} if known else new
    alerts: list[Alert] = []
    if created:
        told = [Told(row, units[key]) for key, row in created.items()]
        counting.count(connection, created.values())
        scoring.score(connection, told)
        pairing.pair_outcomes(connection, created.values())
        exploring.settle(connection, told)
        # Guards judge in the order of arrival.
        arrived = [
            (outcome, unit)
            for (outcome, unit), entry in zip(found, entries, strict=True)
            if unit is not None and created.get(outcome.assignment_id) is entry
        ]
        alerts = guard_outcomes(connection, arrived, held=held, now=now)
    answers = [
        _answer(entry, new, stored, now=now) if isinstance(entry, OutcomeRow) else entry
        for entry in entries
    ]
    return answers, alerts


def _stored(connection: Connection, known: Set[UUID]) -> Mapping[UUID, StoredBody]:
    """Return what there is of outcomes that were told before, also of those that left just now."""
    stored = outcomes.stored(connection, known)
    left = archives.aged(connection, [key for key in known if key not in stored])
    return stored | {key: body for key, body in left.items() if body is not None}


def row_of(outcome: Outcome, unit: AssignedUnit, *, now: datetime) -> OutcomeRow:
    """Return what is stored of an outcome.

    Raises `InvalidInput` for impossible times, `Conflict` where there was nothing to trade on.
    """
    if unit.mode == ArmMode.PAPER:
        raise Conflict(
            f"a pause refused {unit.id}: it has no outcome; tell what it would have earned as a "
            "result on paper"
        )
    check_times(outcome, decided_at=unit.decided_at, now=now)
    return OutcomeRow(
        outcome,
        unit.arm_id,
        unit.unit_id,
        unit.instrument,
        unit.decided_at,
        flags_of(outcome, expires_at=unit.expires_at, claimed=unit.claimed),
        outcome.body_hash(),
    )


def _entry(outcome: Outcome, unit: AssignedUnit, *, now: datetime) -> OutcomeRow | BanditError:
    try:
        return row_of(outcome, unit, now=now)
    except (Conflict, InvalidInput) as error:
        return error


def _known(outcome: Outcome, aged: Mapping[UUID, StoredBody | None]) -> Recorded | BanditError:
    """Answer for an assignment that is not here: one that left, or that nobody made."""
    key = outcome.assignment_id
    if key not in aged:
        return UnknownName(kind="assignment", name=str(key))
    before = aged[key]
    if before is None:
        return Conflict(f"assignment {key} has aged: its position was settled without it")
    return _told_again(key, outcome.body_hash(), before)


def _told_again(key: UUID, body_hash: bytes, before: StoredBody) -> Recorded | BanditError:
    if before.body_hash != body_hash:
        return Conflict(f"assignment {key} has another outcome already; the first stands")
    return Recorded(
        assignment_id=key, created=False, recorded_at=before.recorded_at, flags=before.flags
    )


def _answer(
    row: OutcomeRow,
    new: Mapping[UUID, OutcomeRow],
    stored: Mapping[UUID, StoredBody],
    *,
    now: datetime,
) -> Recorded | BanditError:
    key = row.outcome.assignment_id
    first = new[key]
    before = stored.get(key) if stored else None
    if before is None and row is first:
        return Recorded(assignment_id=key, created=True, recorded_at=now, flags=first.flags)
    before = before or StoredBody(first.body_hash, now, first.flags)
    return _told_again(key, row.body_hash, before)
