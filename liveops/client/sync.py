"""The client for bots without an event loop: the same one, on a loop in a thread of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from liveops.client.aio import CLOSE_SECONDS, COMMAND_SECONDS, AsyncClient
from liveops.client.closing import CloseOrder, ClosingAll
from liveops.client.errors import ClientClosed
from liveops.client.heartbeat import Heartbeat
from liveops.client.values import Acted, Assignment, AssignmentId, Options, Refusal, Side

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Client:
    """Decisions and reports of one experiment; safe to call from any thread.

    Make it once, after any fork, and close it, or use it as `with Client(…) as client`. Reports are
    sent from the background from the moment it is made, those of earlier runs of the bot too.
    """

    def __init__(
        self,
        url: str,
        experiment: str,
        *,
        spool_dir: str | os.PathLike[str],
        key: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Open the spool below `spool_dir` and start sending what is in it."""
        import asyncio

        self._client = AsyncClient(url, experiment, spool_dir=spool_dir, key=key, **options)
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        # A daemon: a bot that forgets to close ends all the same, and what it reported is on disk.
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="liveops-client", daemon=True
        )
        self._thread.start()
        self._run(self._client.start())

    def __repr__(self) -> str:
        """Name service and experiment; never the key."""
        return repr(self._client).removeprefix("Async")

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Send for at most `timeout` seconds what is spooled, and stop; the rest stays on disk."""
        if self._is_closed:
            return
        try:
            self._run(self._client.close(timeout))
        finally:
            self._is_closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def assign(
        self,
        unit_id: str,
        instrument: str,
        *,
        context: object = None,
        proposed_actions: object = None,
        position: Assignment | None = None,
        deadline: float | None = None,
    ) -> Assignment:
        """Return which policy decides a unit; see `AsyncClient.assign`."""
        return self._run(
            self._client.assign(
                unit_id,
                instrument,
                context=context,
                proposed_actions=proposed_actions,
                position=position,
                deadline=deadline,
            )
        )

    def decide(
        self,
        unit_id: str,
        instrument: str,
        *,
        features: Mapping[str, Decimal | float],
        features_digest: str | None = None,
        history: Mapping[str, Sequence[float]] | None = None,
        held: Decimal | float = 0.0,
        unrealised_return: Decimal | float | None = None,
        holding_share: Decimal | float | None = None,
        context: object = None,
        proposed_actions: object = None,
        position: Assignment | None = None,
        deadline: float | None = None,
    ) -> Acted:
        """Return which policy decides a unit, and its action; see `AsyncClient.decide`."""
        return self._run(
            self._client.decide(
                unit_id,
                instrument,
                features=features,
                features_digest=features_digest,
                history=history,
                held=held,
                unrealised_return=unrealised_return,
                holding_share=holding_share,
                context=context,
                proposed_actions=proposed_actions,
                position=position,
                deadline=deadline,
            )
        )

    def claim(
        self,
        assignment: Assignment,
        *,
        position_size: Decimal | float | None = None,
        leverage: Decimal | float | None = None,
        deadline: float | None = None,
    ) -> datetime:
        """Ask, just before the order, whether a decision still stands; see `AsyncClient.claim`."""
        return self._run(
            self._client.claim(
                assignment, position_size=position_size, leverage=leverage, deadline=deadline
            )
        )

    def outcome(
        self,
        assignment: Assignment | AssignmentId,
        *,
        pnl: Decimal,
        return_ratio: Decimal | float,
        opened_at: datetime,
        closed_at: datetime,
        fees: Decimal | None = None,
        slippage: Decimal | None = None,
        size: Decimal | None = None,
        r_multiple: Decimal | float | None = None,
        worst_excursion: Decimal | float | None = None,
    ) -> None:
        """Report what a decision earned; when this returns, the report is on disk."""
        self._run(
            self._client.outcome(
                assignment,
                pnl=pnl,
                return_ratio=return_ratio,
                opened_at=opened_at,
                closed_at=closed_at,
                fees=fees,
                slippage=slippage,
                size=size,
                r_multiple=r_multiple,
                worst_excursion=worst_excursion,
            )
        )

    def no_trade(self, assignment: Assignment | AssignmentId) -> None:
        """Report that the policy declined: evidence, but no trade."""
        self._run(self._client.no_trade(assignment))

    def mark(
        self,
        assignment: Assignment | AssignmentId,
        *,
        unrealised_pnl: Decimal,
        marked_at: datetime,
    ) -> None:
        """Report what an open position would earn if it closed now."""
        self._run(self._client.mark(assignment, unrealised_pnl=unrealised_pnl, marked_at=marked_at))

    def on_paper(
        self,
        assignment: Assignment | AssignmentId,
        policy: str,
        *,
        return_ratio: Decimal | float,
        opened_at: datetime,
        closed_at: datetime,
    ) -> None:
        """Report what a policy would have earned on a decision, whoever took it, net of costs.

        `policy` is a name, sha or unique sha prefix: a challenger's, or the champion's where
        another arm decided.
        """
        self._run(
            self._client.on_paper(
                assignment,
                policy,
                return_ratio=return_ratio,
                opened_at=opened_at,
                closed_at=closed_at,
            )
        )

    def on_paper_fill(
        self,
        assignment: Assignment | AssignmentId,
        policy: str,
        *,
        side: Side,
        entry_price: Decimal,
        exit_price: Decimal,
        size: Decimal,
        fee_bps: Decimal | float,
        slippage_bps: Decimal | float,
        opened_at: datetime,
        closed_at: datetime,
    ) -> None:
        """Report a trade that a policy would have made; the service works out what it earned."""
        self._run(
            self._client.on_paper_fill(
                assignment,
                policy,
                side=side,
                entry_price=entry_price,
                exit_price=exit_price,
                size=size,
                fee_bps=fee_bps,
                slippage_bps=slippage_bps,
                opened_at=opened_at,
                closed_at=closed_at,
            )
        )

    def on_paper_no_trade(self, assignment: Assignment | AssignmentId, policy: str) -> None:
        """Report that a policy would have declined a decision."""
        self._run(self._client.on_paper_no_trade(assignment, policy))

    def close_orders(self, *, deadline: float | None = None) -> list[CloseOrder]:
        """Return what a person wants closed; see `AsyncClient.close_orders`."""
        return self._run(self._client.close_orders(deadline=deadline))

    def close_failed(
        self, order: CloseOrder, reason: str, *, deadline: float | None = None
    ) -> None:
        """Say why a position could not be closed; the order stands."""
        self._run(self._client.close_failed(order, reason, deadline=deadline))

    def close_all_positions(self, reason: str, *, deadline: float = COMMAND_SECONDS) -> ClosingAll:
        """Order every open position to be closed; see `AsyncClient.close_all_positions`."""
        return self._run(self._client.close_all_positions(reason, deadline=deadline))

    def halt_trading(self, reason: str, *, deadline: float = COMMAND_SECONDS) -> None:
        """Kill the experiment's account; see `AsyncClient.halt_trading`."""
        self._run(self._client.halt_trading(reason, deadline=deadline))

    def heartbeat(self, beat: Heartbeat) -> None:
        """Tell how the bot is, in the background; see `AsyncClient.heartbeat`."""
        import asyncio

        if self._is_closed:
            return
        work = self._client.heartbeat(beat)
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # another thread closed the client just now
            work.close()

    def pending(self) -> int:
        """Return how many reports the service has not acknowledged."""
        return self._run(self._client.pending())

    def refused(self) -> list[Refusal]:
        """Return the reports that the service will never take, oldest first."""
        return self._run(self._client.refused())

    def forget(self, refusal: Refusal) -> None:
        """Drop a refused report that somebody has looked at."""
        self._run(self._client.forget(refusal))

    def flush(self, timeout: float) -> bool:
        """Send what is spooled; return whether all of it was acknowledged or refused in time."""
        return self._run(self._client.flush(timeout))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        import asyncio

        if self._is_closed:
            work.close()
            raise ClientClosed("the client was closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
