"""Read what a backup is to hold, and stop what a restored ledger has forgotten to stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.backups import BackupKind, BackupRecord, RestoreDrill, Unarchived
from bandit.core.errors import InvalidTransition, UnknownName
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmStatus, PolicyName
from bandit.service import experiments, health, killing
from bandit.storage import audit, backups, digest, locks, safety_state
from bandit.storage.engine import snapshot, taking_long, transaction

State = Mapping[str, Sequence[Mapping[str, Any]]]
"""The parts of a state backup by name, each a list of rows."""

_VERBS = {
    ArmStatus.THROTTLED: ArmVerb.THROTTLE,
    ArmStatus.HALTED: ArmVerb.HALT,
    ArmStatus.RETIRED: ArmVerb.RETIRE,
}


class Moment:
    """The ledger at one moment, while a transaction keeps it in sight."""

    def __init__(self, connection: Connection) -> None:
        """Read within `connection`'s snapshot."""
        self._connection = connection
        self.snapshot = backups.exported(connection)
        self.server_major = backups.server_major(connection)

    def state(self) -> State:
        """Return what must not be forgotten about who may trade."""
        return safety_state.read(self._connection)

    def row_counts(self) -> dict[str, int]:
        """Return how many rows each table has."""
        return backups.row_counts(self._connection)

    def digest(self) -> str:
        """Return the ledger's digest, which reads every row of the domain."""
        return digest.ledger_digest(self._connection)

    def identity(self) -> dict[str, Any]:
        """Return which ledger it is, and up to where its log is sealed."""
        head = audit.head(self._connection)
        return {
            "ledger": str(audit.ledger_id(self._connection)),
            "audit_rows": audit.appended(self._connection),
            "sealed_to": 0 if head is None else head.sequence,
            "chain_hash": None if head is None else head.chain_hash.hex(),
        }


@contextmanager
def moment(engine: Engine) -> Iterator[Moment]:
    """Yield the ledger as of now; other sessions may see the same by the name of its snapshot."""
    with snapshot(engine) as connection, taking_long(connection):
        yield Moment(connection)


def only_one(
    engine: Engine, *, doing: str, is_drill: bool = False
) -> AbstractContextManager[locks.Require]:
    """Be the only one who takes a backup, or exercises; raises `LockHeldElsewhere` at once.

    What is yielded raises `LedgerUnavailable` where that was lost.
    """
    return locks.backup(engine, doing=doing, is_drill=is_drill)


def record(engine: Engine, taken: BackupRecord) -> None:
    """Write down that a backup was taken, for every replica to know."""
    with transaction(engine) as connection:
        backups.insert(connection, taken)


def record_drill(engine: Engine, drill: RestoreDrill) -> None:
    """Write down how a drill went."""
    with transaction(engine) as connection:
        backups.insert_drill(connection, drill)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the ledger knows of its backups: the newest of each kind, and the last drill passed.

    `unarchived` is what its server cannot archive of its log.
    """

    newest: Mapping[BackupKind, BackupRecord]
    drill: RestoreDrill | None
    unarchived: Unarchived | None


def known(engine: Engine) -> Known:
    """Return what the ledger knows of its backups."""
    with snapshot(engine) as connection:
        return Known(
            newest=backups.newest(connection),
            drill=backups.newest_passed_drill(connection),
            unarchived=backups.unarchived(connection),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tightened:
    """What was stopped, in words, and what of the known state could not be brought about."""

    done: tuple[str, ...]
    left: tuple[str, ...]


def tighten(engine: Engine, state: State, *, reason: str, now: datetime, actor: str) -> Tightened:
    """Kill every account and stop every arm that `state` knows as stopped; nothing is let go on.

    Again changes nothing. An arm that is the champion here cannot be halted: its account is killed,
    and `left` names it. Experiments and arms that this ledger does not have are left out.
    """
    done, left = [], []
    killed = {account["name"]: account for account in state["accounts"] if account["is_killed"]}
    for account in killing.states(engine):
        known_as, why = killed.get(account.name), reason
        if known_as is not None:
            told = f"it was killed ({known_as['cause']}) at {known_as['at']}: {known_as['reason']}"
            why = f"{reason}; {told}"[:1000]
            done.append(f"account {account.name}: {told}")
        # By hand, whatever it was: a kill for the day's loss would end with the day.
        killing.kill(engine, [account.name], cause=KillCause.HAND, reason=why, now=now, actor=actor)
    for arm in state["arms"]:
        name = f"{arm['policy']} of {arm['experiment']}"
        try:
            if _stopped(engine, arm, reason=reason, now=now, actor=actor):
                done.append(f"{name} is {arm['status']}")
        except InvalidTransition as error:
            left.append(f"{name} was {arm['status']}: {error}")
    return Tightened(done=tuple(done), left=tuple(left))


def _stopped(
    engine: Engine, arm: Mapping[str, Any], *, reason: str, now: datetime, actor: str
) -> bool:
    """Bring one arm to where it was known to be, unless it is stricter; say whether it moved."""
    known_as = ArmStatus(arm["status"])
    verb = _VERBS.get(known_as)
    try:
        record = experiments.load(engine, arm["experiment"])
        held = record.arm_of(PolicyName(arm["policy"])).place.status
    except UnknownName:
        return False
    order = list(ArmStatus)
    if verb is None or order.index(held) >= order.index(known_as):
        return False
    _, changed = experiments.change_arm(
        engine,
        name=arm["experiment"],
        policy=PolicyName(arm["policy"]),
        verb=verb,
        reason=reason,
        now=now,
        actor=actor,
    )
    return changed


def forget_bots(engine: Engine, *, reason: str, now: datetime, actor: str) -> list[str]:
    """Forget every heartbeat, so that the next of each bot is held against the ledger at once."""
    names = [record.newest.bot for record in health.known_bots(engine)]
    for name in names:
        health.forget(engine, name, reason=reason, now=now, actor=actor)
    return names


def unfinished_restore(engine: Engine) -> str | None:
    """Return the backup whose restore into this database was cut off; None where none was."""
    with snapshot(engine) as connection:
        if backups.is_empty(connection):
            return None
        return audit.begun_not_ended(connection, began=backups.RESTORED, ended=backups.FINISHED)
