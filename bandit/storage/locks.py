"""Lock classes and their order: kill key, use case, gate, then rows by id.

- `use_case`: a session lock held by long jobs; busy means another process does the work.
- `gate`: held only round the final writes. An assignment batch takes it shared, whatever changes
  who may be routed to takes it exclusively; both as a statement of their own, before the read they
  protect, so that no assignment to a halted arm commits after the halt was acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from sqlalchemy import Connection, Engine, text

from bandit.core.errors import LockHeldElsewhere
from bandit.storage.engine import run, translated


class LockClass(IntEnum):
    """First key of an advisory lock; the second is the experiment's id. Values are never reused."""

    MIGRATION = 0
    KILL = 1
    USE_CASE = 2
    GATE = 3


@contextmanager
def use_case(engine: Engine, experiment_id: int, *, doing: str) -> Iterator[None]:
    """Hold the experiment's use-case lock on a connection of its own.

    Raises `LockHeldElsewhere` at once when another session holds it.
    """
    keys = {"class": int(LockClass.USE_CASE), "id": experiment_id}
    with translated(), engine.connect() as raw:
        connection = raw.execution_options(isolation_level="AUTOCOMMIT")
        taken = text("SELECT pg_try_advisory_lock(:class, :id)")
        if not connection.execute(taken, keys).scalar_one():
            raise LockHeldElsewhere(f"{doing}: another process is at it now")
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:class, :id)"), keys)


def gate_shared(connection: Connection, experiment_id: int) -> None:
    """Wait for the experiment's gate, shared with other assignment batches."""
    statement = "SELECT pg_advisory_xact_lock_shared(:class, :id)"
    run(connection, statement, **{"class": int(LockClass.GATE), "id": experiment_id})


def gate_exclusive(connection: Connection, experiment_id: int) -> None:
    """Wait until no assignment batch of the experiment is under way, and keep new ones out."""
    statement = "SELECT pg_advisory_xact_lock(:class, :id)"
    run(connection, statement, **{"class": int(LockClass.GATE), "id": experiment_id})
