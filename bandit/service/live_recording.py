"""Record outcomes of many callers at once, in groups that share a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy import Engine

from bandit.core.errors import BanditError
from bandit.core.outcomes import Outcome
from bandit.service import recording
from bandit.service.group_commit import GroupCommit
from bandit.service.recording import BATCH_MAX, Recorded

# More would only wait for each other: outcomes of one arm are counted one group after the other.
LANES = 2
WAITING_MAX = 8192
PATIENCE_SECONDS = 4.0


class LiveRecorder:
    """Records single outcomes for many callers at once; for use on one event loop.

    `now` is read once a group, when it is stored. A group whose commit was cut off is sent again:
    then an outcome that was stored after all answers as one that was there before.
    """

    def __init__(self, engine: Engine, *, now: Callable[[], datetime]) -> None:
        """Write to the ledger of `engine`, in threads, with at most `LANES` of its connections."""
        self._engine = engine
        self._now = now
        self._outcomes = GroupCommit(
            self._record,
            # The thread goes on to its end by itself: the ledger ends every statement in time.
            abandon=lambda _: None,
            lanes=LANES,
            beside_seconds=0.0,
            group_max=BATCH_MAX,
            waiting_max=WAITING_MAX,
            patience_seconds=PATIENCE_SECONDS,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the context lasts."""
        async with self._outcomes.running():
            yield

    async def record(self, outcome: Outcome) -> Recorded:
        """Return once the outcome is durable; raises what `recording.record` answers of it."""
        return await self._outcomes.submit(None, outcome)

    async def _record(
        self, _lane: int, _key: None, batch: Sequence[Outcome]
    ) -> Sequence[Recorded | BanditError]:
        return await asyncio.to_thread(recording.record, self._engine, batch, now=self._now())
