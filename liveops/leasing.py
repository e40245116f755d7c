"""Be the one process that does something which goes on for hours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from bandit.core.errors import LedgerUnavailable, LockHeldElsewhere
from bandit.storage.locks import LEASE_SECONDS, Lease, LockClass
from liveops.background import repeated


@contextmanager
def leased(engine: Engine, lock: LockClass, *, doing: str) -> Iterator[Callable[[], None]]:
    """Be the one process that does this; what is yielded raises once that is over.

    Raises `LockHeldElsewhere` at once where another is at it. What is yielded raises
    `LedgerUnavailable` where the lock was lost, for ever: another may have it.
    """
    lease = Lease(engine, lock, 0)
    if not lease.hold():
        raise LockHeldElsewhere(f"{doing}: another process is at it now")
    lost = threading.Event()

    def hold(_: object) -> None:
        if lost.is_set():
            return
        try:
            if not lease.hold():
                lost.set()
        except LedgerUnavailable:
            lost.set()
            raise

    def require() -> None:
        if lost.is_set():
            raise LedgerUnavailable(f"the lock of {doing} was lost: begin the same again")

    trouble = f"the lock of {doing} cannot be held"
    try:
        # In a thread of its own: a model is measured for longer than a lease is patient.
        with repeated(doing, hold, seconds=LEASE_SECONDS / 5, trouble=trouble):
            yield require
    finally:
        lease.leave()
