"""The client for bots on asyncio: carries the requests of the core, and sends the spool."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar, Unpack

from liveops.client import protocol
from liveops.client.errors import ClientClosed
from liveops.client.protocol import Exchange, Reply, Request
from liveops.client.values import (
    Assignment,
    AssignmentId,
    Kind,
    Options,
    Reason,
    Refusal,
    amount,
    aware,
    outcome_fields,
)

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    import httpx

CLOSE_SECONDS: Final = 2.0
"""How long closing waits for what is spooled; the rest goes when the bot runs again."""

_DELIVERY_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.03

P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient:
    """Decisions and reports of one experiment, without blocking the event loop.

    Use it as `async with AsyncClient(…) as client`, from one event loop.
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
        """Open the spool below `spool_dir`; nothing is sent before the client is entered."""
        # What only a running client needs is loaded here and in `start`, not with our types.
        from liveops.client.core import Core

        self._key = protocol.checked_key(key)
        self._core = Core(url, experiment, spool_dir=spool_dir, **options)
        self._http: httpx.AsyncClient | None = None
        self._disk: ThreadPoolExecutor | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        """Name service and experiment; never the key."""
        return f"{type(self).__name__}({self._core.url!r}, {self._core.experiment!r})"

    async def __aenter__(self) -> Self:
        """Start sending what is spooled, also by earlier runs of the bot."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Start sending what is spooled; every call that needs it does so by itself."""
        if self._is_closed:
            raise ClientClosed("the client was closed")
        if self._flusher is not None:
            return
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        import httpx

        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=None,  # noqa: S113 - every request runs under a deadline of its own
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            trust_env=False,  # a proxy variable must not redirect orders
        )
        # A thread of our own: a name server that hangs blocks the loop's threads, not our disk.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="liveops-spool")
        self._wake, self._hurry, self._rested = (asyncio.Event() for _ in range(3))
        self._failures = 0
        self._flusher = asyncio.create_task(self._flush_for_ever())

    async def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Send for at most `timeout` seconds what is spooled, and stop; the rest stays on disk."""
        if self._is_closed:
            return
        if self._flusher is not None:
            import asyncio

            assert self._http is not None
            assert self._disk is not None
            try:
                await self.flush(timeout)
            finally:
                self._flusher.cancel()
                await asyncio.gather(self._flusher, return_exceptions=True)
                await self._http.aclose()
                self._disk.shutdown()
        self._is_closed = True
        self._core.spool.close()

    async def assign(
        self,
        unit_id: str,
        instrument: str,
        *,
        context: object = None,
        proposed_actions: object = None,
        position: Assignment | None = None,
        deadline: float | None = None,
    ) -> Assignment:
        """Return which policy decides a unit; the same unit always gets the same policy.

        While the service is away, the champion decides for a bounded time. Raises `Killed`,
        `Paused`, `ServiceUnavailable` when nobody may decide, and `RequestRefused`.
        """
        await self.start()
        core = self._core
        opener = None if position is None else await self._on_disk(core.opener, position)
        request = protocol.assignment_request(
            core.experiment,
            unit_id=unit_id,
            instrument=instrument,
            context=context,
            proposed_actions=proposed_actions,
            position=opener,
        )
        decided = await self._on_disk(core.decided_alone, unit_id)
        if decided is not None:
            return decided
        ends_at = self._deadline(core.deadline_seconds if deadline is None else deadline)
        exchange = await self._ask(request, ends_at=ends_at)
        made = await self._on_disk(
            lambda: core.assigned(
                exchange,
                unit_id=unit_id,
                instrument=instrument,
                is_position=position is not None,
            )
        )
        self._wake.set()
        if core.needs_champion() and not made.is_fallback:
            asked = await self._ask(protocol.champion_request(core.experiment), ends_at=ends_at)
            await self._on_disk(core.heard_champion, asked.reply)
        return made

    async def claim(self, assignment: Assignment, *, deadline: float | None = None) -> datetime:
        """Ask, just before the order, whether a decision still stands; return when it was claimed.

        Raises `Revoked`, `Expired` and `Killed`, and `ServiceUnavailable` for a decision of a
        service that is away now.
        """
        await self.start()
        core = self._core
        ends_at = self._deadline(core.deadline_seconds if deadline is None else deadline)
        known = await self._on_disk(core.id_or_report, assignment)
        if isinstance(known, Request):
            exchange = await self._ask(known, ends_at=ends_at)
            reply = exchange.reply
            if reply is None or protocol.is_unreachable(reply):
                return await self._on_disk(core.claimed, exchange, assignment)
            known = await self._on_disk(core.reported, assignment, reply)
        exchange = await self._ask(protocol.claim_request(known), ends_at=ends_at)
        return await self._on_disk(core.claimed, exchange, assignment)

    async def outcome(
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
        fields = outcome_fields(
            pnl=pnl,
            return_ratio=return_ratio,
            opened_at=opened_at,
            closed_at=closed_at,
            amounts={"fees": fees, "slippage": slippage, "size": size},
            ratios={"r_multiple": r_multiple, "worst_excursion": worst_excursion},
        )
        await self._report(Kind.OUTCOME, assignment, fields)

    async def no_trade(self, assignment: Assignment | AssignmentId) -> None:
        """Report that the policy declined: evidence, but no trade."""
        await self._report(Kind.OUTCOME, assignment, {"no_trade": True})

    async def mark(
        self,
        assignment: Assignment | AssignmentId,
        *,
        unrealised_pnl: Decimal,
        marked_at: datetime,
    ) -> None:
        """Report what an open position would earn if it closed now."""
        fields = mark_fields(unrealised_pnl=unrealised_pnl, marked_at=marked_at)
        await self._report(Kind.MARK, assignment, fields)

    async def pending(self) -> int:
        """Return how many reports the service has not acknowledged."""
        await self.start()
        return await self._on_disk(self._core.spool.pending)

    async def refused(self) -> list[Refusal]:
        """Return the reports that the service will never take, oldest first."""
        await self.start()
        return await self._on_disk(self._core.spool.refused)

    async def forget(self, refusal: Refusal) -> None:
        """Drop a refused report that somebody has looked at."""
        await self.start()
        await self._on_disk(self._core.spool.forget, refusal.id)

    async def flush(self, timeout: float) -> bool:
        """Send what is spooled; return whether all of it was acknowledged or refused in time."""
        import asyncio

        await self.start()
        ends_at = self._deadline(timeout)
        self._failures = 0
        self._hurry.set()
        while await self._on_disk(self._core.spool.pending) > 0:
            self._rested.clear()
            self._wake.set()
            try:
                async with asyncio.timeout_at(ends_at):
                    await self._rested.wait()
            except TimeoutError:
                return await self._on_disk(self._core.spool.pending) == 0
        return True

    async def _report(
        self, kind: Kind, assignment: Assignment | AssignmentId, fields: Mapping[str, object]
    ) -> None:
        await self.start()
        await self._on_disk(self._core.report, kind, id_of(assignment), fields)
        self._wake.set()

    async def _ask(self, request: Request, *, ends_at: float) -> Exchange:
        """Send a request that may be repeated, twice if need be and time allows."""
        import asyncio

        core = self._core
        sent_at = core.now()
        if not core.breaker.admits(at=core.monotonic()):
            return Exchange(reply=None, sent_at=sent_at, reason=Reason.BREAKER_OPEN)
        reply = await self._send(request, ends_at=ends_at)
        pause = _RETRY_SECONDS * (0.5 + core.jitter())
        if protocol.may_retry(reply) and self._deadline(pause) < ends_at:
            await asyncio.sleep(pause)
            reply = await self._send(request, ends_at=ends_at)
        if reply is None:
            core.breaker.failed(at=core.monotonic())
            return Exchange(reply=None, sent_at=sent_at)
        core.breaker.succeeded()
        return Exchange(reply=reply, sent_at=sent_at, reason=Reason.SERVER_FAULT)

    async def _send(self, request: Request, *, ends_at: float) -> Reply | None:
        import asyncio

        import httpx

        assert self._http is not None
        headers = {"Content-Type": request.media_type} if request.body else {}
        try:
            async with asyncio.timeout_at(ends_at):
                response = await self._http.request(
                    request.method,
                    self._core.url + request.path,
                    content=request.body,
                    headers=headers,
                )
        except (httpx.RequestError, TimeoutError):
            return None
        return Reply(
            status=response.status_code,
            body=response.content,
            retry_after_seconds=_seconds(response.headers.get("Retry-After")),
        )

    async def _flush_for_ever(self) -> None:
        while True:
            self._wake.clear()
            self._hurry.clear()
            pause = await self._flush_once()
            self._rested.set()
            if pause is None:
                await _wait(self._wake, seconds=_IDLE_SECONDS)
            else:
                await _wait(self._hurry, seconds=pause)

    async def _flush_once(self) -> float | None:
        """Send what is spooled; return how long to pause where not all of it got through."""
        from liveops.client.flushing import PAUSE_SECONDS, Round, pause_seconds

        core = self._core
        round_ = Round(core)
        try:
            if not await self._on_disk(core.spool.take_lease):
                return PAUSE_SECONDS  # another process of the bot sends
            while (request := await self._on_disk(round_.next)) is not None:
                reply = await self._send(request, ends_at=self._deadline(_DELIVERY_SECONDS))
                await self._on_disk(round_.take, reply)
        except Exception:  # noqa: BLE001 - the boundary of this task: it must not end
            core.log_fault()
            round_.is_clean = False
        finally:
            core.spool.release_lease()
        if round_.is_clean:
            return None
        self._failures = 1 if round_.settled else self._failures + 1
        return pause_seconds(
            self._failures,
            retry_after_seconds=round_.retry_after_seconds,
            jitter=core.jitter(),
        )

    async def _on_disk(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        import asyncio

        assert self._disk is not None
        call = functools.partial(work, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)

    @staticmethod
    def _deadline(seconds: float) -> float:
        import asyncio

        return asyncio.get_running_loop().time() + seconds


def mark_fields(*, unrealised_pnl: Decimal, marked_at: datetime) -> dict[str, object]:
    """Return what the service is told of an open position."""
    return {
        "unrealised_pnl": amount(unrealised_pnl, field="unrealised_pnl"),
        "marked_at": aware(marked_at, field="marked_at").isoformat(),
    }


def id_of(assignment: Assignment | AssignmentId) -> AssignmentId:
    """Return the id by which a decision is reported; it is all a bot has to keep of it."""
    return assignment.id if isinstance(assignment, Assignment) else assignment


async def _wait(event: asyncio.Event, *, seconds: float) -> None:
    import asyncio

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _seconds(header: str | None) -> float:
    # A date is lawful too, but nobody who says "in a second" sends one.
    return float(header) if header is not None and header.isdigit() else 0.0
