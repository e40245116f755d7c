"""Lock classes and their order: kill key, use case, gate, positions, audit chain, then rows by id.

- `use_case`: a lease held by long jobs; busy means another process does the work.
- `gate`: held only round the final writes. An assignment batch takes it shared, whatever changes
  who may be routed to takes it exclusively; both as a statement of their own, before the read they
  protect, so that no assignment to a halted arm commits after the halt was acknowledged.
- Positions: held by `commit_claims`, behind the gates, for each account in id order whose open
  positions are limited; so that two replicas never let the same last place be taken twice. What
  frees a place needs no lock.
- `audit_chain`: held by whoever seals, and by nobody who writes audit rows: those never wait.
- `Lease`: held on a session of its own by what goes on for long, and waits for no other lock. Its
  session ends when its holder is silent, and so do the locks that `leased` keeps by a thread.
- `notifier`: the lease of the one replica that tells people what happens.
- `scheduler`: the lease of the one process that begins what is scheduled.
- `job`: the lease of whoever runs a scheduled job; its key is `key_of` the job's name.
- `data`: the lease of the one process that loads candles, or takes loads back.
- `rotation`: the lease of the one process that makes models anew. Where nobody has it, a purge
  shares it until it committed: no rotation plans with models that are about to go.
- `tuning`: the lease of the one process that runs a sweep of trials.
- `backup`: the lease of who takes a backup or exercises a restore.
- `newcomer`: held by who adds a bot that is not known yet; beats of known ones never wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import IntEnum

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from bandit.core.errors import LedgerUnavailable, LockHeldElsewhere
from bandit.storage.engine import run, translated

log = logging.getLogger(__name__)

BLOCKED_MILLISECONDS = 150
"""How long a halt waits for a batch before it ends that batch's session."""

ATTEMPTS = 60
WRITER_NAME = "liveops-writer"
"""Application name of the sessions that commit batches, and that `end_holders` may end."""

BATCH_IDLE_SECONDS_MAX = 1
"""How long a batch may say nothing inside its transaction before the server ends its session."""

LEASE_SECONDS = 10
"""After how long a silent holder of a `Lease` loses it, where nothing else is said."""

_CHANGE_IDLE_SECONDS_MAX = 5
_SEALING_SECONDS_MAX = 5


class LockClass(IntEnum):
    """First key of an advisory lock; the second is an experiment's or account's id, or 0 for all.

    Values are never reused.
    """

    MIGRATION = 0
    KILL = 1
    USE_CASE = 2
    GATE = 3
    AUDIT = 4
    LEARNER = 5
    MONITOR = 6
    NEWCOMER = 7
    POSITIONS = 8
    NOTIFIER = 9
    SCHEDULER = 10
    JOB = 11
    ROTATION = 12
    TUNING = 13
    BACKUP = 14
    DATA = 15


Require = Callable[[], None]
"""Raises `LedgerUnavailable` where a lock was lost, for ever: another may have it by now."""


def use_case(engine: Engine, experiment_id: int, *, doing: str) -> AbstractContextManager[Require]:
    """Hold the experiment's use-case lock, as `leased` does."""
    return leased(engine, LockClass.USE_CASE, experiment_id, doing=doing)


def data(engine: Engine, *, doing: str) -> AbstractContextManager[Require]:
    """Be the only one who loads candles, or takes loads back, as `leased` does."""
    return leased(engine, LockClass.DATA, 0, doing=doing)


def backup(engine: Engine, *, doing: str, is_drill: bool) -> AbstractContextManager[Require]:
    """Be the only one who takes a backup, or exercises restoring one, as `leased` does."""
    return leased(engine, LockClass.BACKUP, int(is_drill), doing=doing)


@contextmanager
def leased(engine: Engine, lock: LockClass, key: int, *, doing: str) -> Iterator[Require]:
    """Be the one process that does this; to be asked before anything is made to last.

    Raises `LockHeldElsewhere` at once where another is at it. A process that is stopped, or cut
    off, loses the lock within `LEASE_SECONDS`.
    """
    lease = Lease(engine, lock, key, seconds=LEASE_SECONDS)
    if not lease.hold():
        raise LockHeldElsewhere(f"{doing}: another process is at it now")
    over, lost, asking = threading.Event(), threading.Event(), threading.Lock()

    def require() -> None:
        gone = f"the lock of {doing} was lost: begin the same again"
        with asking:
            try:
                is_ours = not lost.is_set() and lease.hold()
            except LedgerUnavailable as error:
                lost.set()
                raise LedgerUnavailable(gone) from error
            if not is_ours:
                lost.set()
                raise LedgerUnavailable(gone)

    def keep() -> None:
        while not over.wait(LEASE_SECONDS / 5):
            try:
                require()
            except LedgerUnavailable as error:
                log.warning("%s", error)
                return

    # In a thread of its own: the work says nothing for longer than a lease is patient.
    keeper = threading.Thread(target=keep, name=doing)
    keeper.start()
    try:
        yield require
    finally:
        over.set()
        keeper.join()
        lease.leave()


class Lease:
    """A lock that lasts as long as a session that says something at least every few seconds.

    For work that goes on for long: a process that is stopped, or cut off, loses the lock to
    others, and notices when it asks again.
    """

    def __init__(
        self, engine: Engine, lock: LockClass, key: int, *, seconds: int = LEASE_SECONDS
    ) -> None:
        """Hold nothing yet; who says nothing for `seconds` loses it."""
        self._engine = engine
        self._keys = {"class": int(lock), "id": key}
        self._seconds = seconds
        self._connection: Connection | None = None

    def hold(self) -> bool:
        """Take the lock, or say that it is still ours; False while another session has it.

        To be asked again within `seconds`. Raises `LedgerUnavailable` where the ledger does
        not answer, and with it the lock is lost.
        """
        try:
            with translated():
                if self._connection is not None:
                    run(self._connection, "SELECT 1")
                    return True
                return self._taken()
        except LedgerUnavailable:
            self._drop()
            raise

    def leave(self) -> None:
        """Give the lock up, with its session; nothing where it is not held.

        Whoever asks from now on gets it: the server is not left to notice that the session ended.
        """
        if self._connection is not None:
            with suppress(LedgerUnavailable), translated():
                run(self._connection, "SELECT pg_advisory_unlock(:class, :id)", **self._keys)
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # its session ends, and nobody gets its settings from the pool
            connection.close()

    def _taken(self) -> bool:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection = connection
        run(connection, f"SET idle_session_timeout = '{self._seconds}s'")
        taken = text("SELECT pg_try_advisory_lock(:class, :id)")
        if connection.execute(taken, self._keys).scalar_one():
            return True
        self._drop()
        return False


def keep_free(connection: Connection, lock: LockClass) -> bool:
    """Let nobody take a lease until the transaction ends; False where somebody has it already."""
    statement = "SELECT pg_try_advisory_xact_lock_shared(:class, 0)"
    return bool(connection.execute(text(statement), {"class": int(lock)}).scalar_one())


def as_batch(connection: Connection) -> None:
    """Let this transaction be ended as that of a batch: by a halt that it blocks, or when it idles.

    Without this a process that is stopped or cut off between two statements would keep the gate
    shut against every halt. First statement of a transaction that commits a batch.
    """
    run(
        connection,
        "SELECT set_config('application_name', :name, true), "
        "set_config('idle_in_transaction_session_timeout', :idle, true)",
        name=WRITER_NAME,
        idle=f"{BATCH_IDLE_SECONDS_MAX}s",
    )


def gate_shared(connection: Connection, experiment_id: int) -> None:
    """Keep changes of the experiment out, beside other assignment batches."""
    _kill_shared(connection, experiment_id)
    statement = "SELECT pg_advisory_xact_lock_shared(:class, :id)"
    run(connection, statement, **{"class": int(LockClass.GATE), "id": experiment_id})


def gate_exclusive(
    connection: Connection, experiment_id: int, *, ends_holders: bool = True
) -> None:
    """Wait until no assignment batch of the experiment is under way, and keep new ones out.

    `ends_holders` is for what cannot wait: it ends the session of a batch that takes too long.
    """
    _kill_shared(connection, experiment_id)
    _exclusively(connection, LockClass.GATE, experiment_id, ends_holders=ends_holders)


def newcomer(connection: Connection) -> None:
    """Be the only one who adds a bot, until the transaction ends."""
    statement = "SELECT pg_advisory_xact_lock(:class, 0)"
    run(connection, statement, **{"class": int(LockClass.NEWCOMER)})


def stop_exclusive(
    connection: Connection, *, account_ids: Sequence[int], experiment_ids: Sequence[int]
) -> None:
    """Take the kill keys of these accounts and the gates of these experiments, all exclusively.

    Every kill key comes before the first gate: one key of each class at a time would wait in a
    circle with somebody who does the same for another account.
    """
    kill_exclusive(connection, account_ids)
    if experiment_ids:
        run(
            connection,
            "SELECT pg_advisory_xact_lock_shared(:class, x.account_id) FROM ("
            "SELECT DISTINCT account_id FROM experiments WHERE id = ANY(:ids) ORDER BY 1) x",
            ids=list(experiment_ids),
            **{"class": int(LockClass.KILL)},
        )
    for experiment_id in sorted(experiment_ids):
        _exclusively(connection, LockClass.GATE, experiment_id)


def kill_exclusive(connection: Connection, account_ids: Sequence[int]) -> None:
    """Wait until nothing of these accounts is being decided, and keep new decisions out."""
    for account_id in sorted(account_ids):
        _exclusively(connection, LockClass.KILL, account_id)


def _kill_shared(connection: Connection, experiment_id: int) -> None:
    run(
        connection,
        "SELECT pg_advisory_xact_lock_shared(:class, e.account_id) FROM experiments e "
        "WHERE e.id = :id",
        **{"class": int(LockClass.KILL), "id": experiment_id},
    )


def _exclusively(
    connection: Connection, lock: LockClass, key: int, *, ends_holders: bool = True
) -> None:
    """Take a lock that batches share, from frozen holders after `BLOCKED_MILLISECONDS`.

    Only sessions that commit batches are ended: theirs is idempotent, and their process tries
    again. The lock is fair, so nobody who comes later overtakes us between two attempts for long.
    """
    keys = {"class": int(lock), "id": key}
    # A process that is stopped while it holds the lock loses its session before the next gives up.
    idle = f"SET LOCAL idle_in_transaction_session_timeout = '{_CHANGE_IDLE_SECONDS_MAX}s'"
    run(connection, idle)
    for _ in range(ATTEMPTS):
        attempt = connection.begin_nested()
        try:
            run(connection, f"SET LOCAL lock_timeout = '{BLOCKED_MILLISECONDS}ms'")
            run(connection, "SELECT pg_advisory_xact_lock(:class, :id)", **keys)
        except OperationalError as error:
            attempt.rollback()
            if not isinstance(error.orig, LockNotAvailable):
                raise
            if ends_holders:
                run(connection, "SELECT end_holders(:class, :id)", **keys)
        else:
            run(connection, "SET LOCAL lock_timeout = 0")
            attempt.commit()
            return
    raise LedgerUnavailable(f"the {lock.name.lower()} lock {key} could not be had")


def audit_chain(connection: Connection) -> None:
    """Wait until nobody else seals, and keep others from it until this transaction ends.

    A statement of its own, before the head is read: else two would continue the same head. A
    process that is stopped in the middle loses its session, and with it the lock.
    """
    limit = "SELECT set_config(:name, :seconds, true)"
    for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
        run(connection, limit, name=name, seconds=f"{_SEALING_SECONDS_MAX}s")
    run(connection, "SELECT pg_advisory_xact_lock(:class, 0)", **{"class": int(LockClass.AUDIT)})
