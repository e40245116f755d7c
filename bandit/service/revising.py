"""Correct what was recorded: a revision beside the outcome, and the statistics follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from bandit.core.errors import Conflict, UnknownName
from bandit.core.model import checked_instant, checked_text
from bandit.core.outcomes import Flags, Outcome
from bandit.service import counting, exploring, pairing, scoring
from bandit.service.guarding import guard_revision
from bandit.service.recording import row_of
from bandit.service.revealing import Keys, guarded
from bandit.service.scoring import Told
from bandit.storage import archives, assignments, audit, outcomes, statistics
from bandit.storage.outcomes import OutcomeVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """The version of an outcome that counts: a new one, or the newest with the same body."""

    assignment_id: UUID
    revision: int
    created: bool
    recorded_at: datetime
    flags: Flags


def revise(engine: Engine, outcome: Outcome, *, reason: str, now: datetime, actor: str) -> Revised:
    """Count `outcome` from now on instead of what its assignment's outcome said before.

    What was said stays in the ledger. The newest body again changes nothing. Raises `UnknownName`
    for an assignment that nobody made or that has no outcome yet, `InvalidInput` for impossible
    times, `Conflict` for an outcome that has left the ledger for an archive.
    """
    now = checked_instant(now, field="now")
    reason = checked_text(reason, field="reason", length_max=1000)
    actor = checked_text(actor, field="actor", length_max=200)
    return guarded(
        engine,
        lambda connection, held: _revise(
            connection, outcome, reason=reason, held=held, now=now, actor=actor
        ),
    )


def _revise(
    connection: Connection, outcome: Outcome, *, reason: str, held: Keys, now: datetime, actor: str
) -> Revised:
    key = outcome.assignment_id
    unit = assignments.units_of(connection, [key]).get(key)
    if unit is None:
        raise _gone(connection, key) or UnknownName(kind="assignment", name=str(key))
    after = row_of(outcome, unit, now=now)
    # The arm's lock puts revisions in one order; what they correct is read behind it.
    arm = statistics.locked(connection, [unit.arm_id])[unit.arm_id]
    newest = outcomes.newest_version(connection, key)
    if newest is None:
        raise _gone(connection, key) or UnknownName(kind="outcome of assignment", name=str(key))
    if newest.row.body_hash == after.body_hash:
        return _revised(newest, created=False)
    # Of two services the one that comes second may have the slower clock.
    recorded_at = max(now, newest.recorded_at)
    made = OutcomeVersion(row=after, revision=newest.revision + 1, recorded_at=recorded_at)
    outcomes.append_revision(connection, made, actor=actor, reason=reason)
    counting.recount(connection, arm, before=newest.row, after=after)
    scoring.score(connection, [Told(after, unit)], gone=[Told(newest.row, unit)])
    pairing.pair_outcomes(connection, [after], gone=[newest.row])
    exploring.correct(connection, unit, before=newest.row.outcome.pnl, after=after.outcome.pnl)
    audit.append(
        connection,
        now=now,
        actor=actor,
        action="revise",
        subject=f"outcome {key}",
        details={
            "revision": made.revision,
            "reason": reason,
            "body": after.body_hash.hex(),
            "body_before": newest.row.body_hash.hex(),
        },
    )
    earned = after.outcome.pnl - newest.row.outcome.pnl
    guard_revision(connection, unit, earned, held=held, now=now)
    return _revised(made, created=True)


def _gone(connection: Connection, key: UUID) -> Conflict | None:
    if not archives.aged(connection, [key]):
        return None
    return Conflict(f"the outcome of {key} has aged: its archive holds it as it is")


def _revised(version: OutcomeVersion, *, created: bool) -> Revised:
    return Revised(
        assignment_id=version.row.outcome.assignment_id,
        revision=version.revision,
        created=created,
        recorded_at=version.recorded_at,
        flags=version.row.flags,
    )
