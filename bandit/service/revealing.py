"""Run a transaction again behind the keys that it turns out to need.

Outcomes and marks are written without a lock on who decides. Only when a breach shows is the batch
rolled back and run again behind the keys it needs, so that no decision commits after the one that
stops it, and all the other batches never wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from bandit.core.errors import LedgerUnavailable
from bandit.storage import archives, locks
from bandit.storage.engine import Idled, again_where, require_protocol, transaction

_RUNS_MAX = 8
"""Once without keys, once more for each kind of them; others only as the batch itself changes."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a transaction holds exclusively: kill keys of accounts, gates of experiments."""

    account_ids: frozenset[int] = frozenset()
    experiment_ids: frozenset[int] = frozenset()


class Revealed(Exception):
    """A breach showed that the transaction may not act on without these keys."""

    def __init__(self, missing: Keys) -> None:
        super().__init__("run again with more keys")
        self.missing = missing


@again_where(Idled)
def guarded(engine: Engine, work: Callable[[Connection, Keys], _T]) -> _T:
    """Run `work` in one transaction, and when it reveals a breach again behind the keys it needs.

    So too when an assignment it writes to left the ledger meanwhile. What the first run wrote is
    rolled back; nobody ever saw it.
    """
    held = Keys()
    for _ in range(_RUNS_MAX):
        try:
            with transaction(engine) as connection:
                require_protocol(connection)
                locks.stop_exclusive(
                    connection,
                    account_ids=sorted(held.account_ids),
                    experiment_ids=sorted(held.experiment_ids),
                )
                return work(connection, held)
        except Revealed as revealed:
            held = Keys(
                account_ids=held.account_ids | revealed.missing.account_ids,
                experiment_ids=held.experiment_ids | revealed.missing.experiment_ids,
            )
        except IntegrityError as error:
            if not archives.left_meanwhile(error):
                raise
    raise LedgerUnavailable("what the batch needs kept changing; send it again")
