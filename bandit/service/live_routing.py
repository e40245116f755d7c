"""Route and claim for many callers at once, in groups that share a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from bandit.core.errors import BanditError, BudgetSpent, StaleEpoch, Unreconciled
from bandit.core.model import Assignment
from bandit.core.sizing import Claim
from bandit.service.assigning import BATCH_MAX, Router, claim_answer, fewer
from bandit.service.group_commit import GroupCommit
from bandit.service.routing_table import Opportunity, RoutingTable, routed
from bandit.storage.claims import ClaimVerdict
from bandit.storage.writer import DecisionWriter

LANES = 2
# Two commits of one experiment at once wait for the same disk, and their fixed costs for the same
# processor: one that takes what came meanwhile is sooner back. Only a commit that hangs, or waits
# for a halt, is overtaken.
BESIDE_SECONDS = 0.05
WAITING_MAX = 8192
PATIENCE_SECONDS = 2.0


class LiveRouter:
    """Assigns and claims for many callers at once, in groups, on connections of its own.

    For use on one event loop. `now` is read once a group, when its decisions are made.
    """

    def __init__(self, router: Router, *, url: str, now: Callable[[], datetime]) -> None:
        """Share what `router` remembers; write to the ledger at `url`."""
        self._router = router
        self._now = now
        self._writers = [DecisionWriter(url) for _ in range(LANES)]
        self._claimer = DecisionWriter(url)
        self._assignments = GroupCommit(
            self._assign,
            abandon=lambda lane: self._writers[lane].abandon(),
            lanes=LANES,
            beside_seconds=BESIDE_SECONDS,
            group_max=BATCH_MAX,
            waiting_max=WAITING_MAX,
            patience_seconds=PATIENCE_SECONDS,
        )
        self._claims = GroupCommit(
            self._claim,
            abandon=lambda _: self._claimer.abandon(),
            lanes=1,
            beside_seconds=BESIDE_SECONDS,
            group_max=BATCH_MAX,
            waiting_max=WAITING_MAX,
            patience_seconds=PATIENCE_SECONDS,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the context lasts."""
        try:
            async with self._assignments.running(), self._claims.running():
                yield
        finally:
            for writer in (*self._writers, self._claimer):
                writer.abandon()

    async def table(self, experiment: str) -> RoutingTable:
        """Return what is remembered of an experiment, read first where nothing is."""
        if not self._router.remembers(experiment):
            await asyncio.to_thread(self._router.table, experiment)
        return self._router.table(experiment)

    async def assign(self, experiment: str, opportunity: Opportunity) -> Assignment:
        """Return the opportunity's assignment once it is durable; errors as `Router.assign`."""
        return await self._assignments.submit(experiment, opportunity)

    async def claim(self, asked: Claim) -> datetime:
        """Claim a decision just before its order; errors as `Router.claim`."""
        return await self._claims.submit(None, asked)

    async def _assign(
        self, lane: int, experiment: str, asked: Sequence[Opportunity]
    ) -> Sequence[Assignment | BanditError]:
        table = await self.table(experiment)
        now = self._now()
        if not table.record.rules.selection.enabled:
            return await self._unblocked(lane, experiment, asked, now=now)
        refused = await asyncio.to_thread(self._router.selections.refused, table, asked, now=now)
        admitted = [each for place, each in enumerate(asked) if place not in refused]
        made = iter(await self._unblocked(lane, experiment, admitted, now=now) if admitted else ())
        return [refused.get(place) or next(made) for place in range(len(asked))]

    async def _unblocked(
        self, lane: int, experiment: str, asked: Sequence[Opportunity], *, now: datetime
    ) -> Sequence[Assignment | BanditError]:
        try:
            return await self._routed(lane, experiment, asked, now=now)
        except Unreconciled as refused:
            # Who asks about an open position must not wait for those who would open one.
            held = [opportunity for opportunity in asked if opportunity.position is not None]
            made = iter(await self._routed(lane, experiment, held, now=now) if held else ())
            return [refused if o.position is None else next(made) for o in asked]

    async def _routed(
        self, lane: int, experiment: str, asked: Sequence[Opportunity], *, now: datetime
    ) -> Sequence[Assignment | BanditError]:
        drawn_max: int | None = None
        while True:
            table = self._router.table(experiment)
            batch = routed(table, asked, now=now, drawn_max=drawn_max)
            try:
                stored = await self._writers[lane].assign(batch.batch)
            except BudgetSpent as spent:
                drawn_max = fewer(drawn_max, spent)
            except StaleEpoch:
                return await asyncio.to_thread(
                    self._router.assign_behind_gate, experiment, asked, now=now
                )
            else:
                return batch.answers(stored)

    async def _claim(
        self, _lane: int, _key: None, asked: Sequence[Claim]
    ) -> Sequence[datetime | BanditError]:
        now = self._now()
        found: dict[Claim, ClaimVerdict | None] = {}
        # Whoever asks for one decision with two sizes is answered as if they came one by one.
        while waiting := [claim for claim in asked if claim not in found]:
            turn = {claim.assignment: claim for claim in reversed(waiting)}
            verdicts = await self._claimer.claim(list(turn.values()), now=now)
            found |= {claim: verdicts.get(key) for key, claim in turn.items()}
        return [claim_answer(claim.assignment, found[claim]) for claim in asked]
