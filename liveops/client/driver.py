"""Carries the requests of the core over HTTP on an event loop, and sends the spool."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final, ParamSpec, TypeVar, Unpack

import httpx

from liveops.client import protocol
from liveops.client.core import Core
from liveops.client.errors import ClientClosed
from liveops.client.flushing import PAUSE_SECONDS, Round, pause_seconds
from liveops.client.heartbeat import Heartbeat
from liveops.client.protocol import Exchange, Reply, Request
from liveops.client.values import Acted, Assignment, Options, Reason
from liveops.client.watch import EXPERIMENT_HEADER, HEADER

_DELIVERY_SECONDS: Final = 30.0
_HEARTBEAT_SECONDS: Final = 4.0
"""So long a heartbeat is tried: told later it would seem that the bot's clock is wrong."""

_COMMAND_RETRY_SECONDS: Final = 0.25
_HEARTBEAT_RETRY_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.03
_ALONE: Final = "the champion decides alone: the service was away"

P = ParamSpec("P")
T = TypeVar("T")


class Driver:
    """The moving parts of a client: connections, a thread for the disk, a task that sends."""

    def __init__(
        self,
        url: str,
        experiment: str,
        *,
        spool_dir: str | os.PathLike[str],
        key: str | None,
        **options: Unpack[Options],
    ) -> None:
        """Open the spool; nothing moves yet."""
        self._key = protocol.checked_key(key)
        self.core = Core(url, experiment, spool_dir=spool_dir, **options)
        self._flusher: asyncio.Task[None] | None = None
        self._beats: asyncio.Task[None] | None = None
        self._newest_beat: tuple[Heartbeat, datetime] | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start sending what is spooled, on the loop that runs; again changes nothing."""
        if self._is_closed:
            raise ClientClosed("the client was closed")
        if self._flusher is not None:
            return
        headers = {EXPERIMENT_HEADER: self.core.experiment}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
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

    async def close(self, timeout: float) -> None:
        """Send for at most `timeout` seconds, and stop."""
        if self._is_closed:
            return
        ends_at = _loop_time() + timeout
        try:
            if self._flusher is not None:
                await self.flush(timeout)
            if self._beats is not None:  # the last one may say that the bot stops
                await asyncio.wait({self._beats}, timeout=max(0.0, ends_at - _loop_time()))
        finally:
            self._is_closed = True
            if self._flusher is not None:
                tasks = [task for task in (self._flusher, self._beats) if task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._http.aclose()
                self._disk.shutdown()
            self.core.spool.close()

    async def on_disk(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do what may wait for the disk, while the loop goes on."""
        self.start()
        call = functools.partial(work, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)

    async def assign(
        self,
        unit_id: str,
        instrument: str,
        *,
        context: object,
        proposed_actions: object,
        position: Assignment | None,
        deadline: float | None,
    ) -> Assignment:
        """Ask for a unit's policy, and where it is not known, for the champion."""
        made, _ = await self._routed(
            unit_id,
            instrument,
            context=context,
            proposed_actions=proposed_actions,
            position=position,
            sight=None,
            deadline=deadline,
        )
        return made

    async def decide(
        self,
        unit_id: str,
        instrument: str,
        *,
        context: object,
        proposed_actions: object,
        position: Assignment | None,
        sight: Mapping[str, object],
        deadline: float | None,
    ) -> Acted:
        """Ask for a unit's policy and its action; who decides alone gets none."""
        made, reply = await self._routed(
            unit_id,
            instrument,
            context=context,
            proposed_actions=proposed_actions,
            position=position,
            sight=sight,
            deadline=deadline,
        )
        if reply is None or made.is_fallback:
            return Acted(assignment=made, action=None, no_action_reason=_ALONE)
        return self.core.acted(made, reply)

    async def _routed(
        self,
        unit_id: str,
        instrument: str,
        *,
        context: object,
        proposed_actions: object,
        position: Assignment | None,
        sight: Mapping[str, object] | None,
        deadline: float | None,
    ) -> tuple[Assignment, Reply | None]:
        """Return a unit's policy, and the answer that named it where it came in this call."""
        core = self.core
        is_opening = position is None and "held" not in (sight or {})
        opener = None if position is None else await self.on_disk(core.opener, position)
        request = protocol.assignment_request(
            core.experiment,
            unit_id=unit_id,
            instrument=instrument,
            context=context,
            proposed_actions=proposed_actions,
            position=opener,
            sight=sight,
        )
        decided = await self.on_disk(core.decided_alone, unit_id, is_opening=is_opening)
        if decided is not None:
            return decided, None
        ends_at = self._decision_ends_at(deadline)
        exchange = await self._ask(request, ends_at=ends_at)
        made = await self.on_disk(
            core.assigned,
            exchange,
            unit_id=unit_id,
            instrument=instrument,
            is_position=position is not None,
            is_opening=is_opening,
        )
        self.wake()
        if core.needs_champion() and not made.is_fallback:
            asked = await self._ask(protocol.champion_request(core.experiment), ends_at=ends_at)
            await self.on_disk(core.heard_champion, asked.reply)
        return made, exchange.reply

    async def claim(
        self, assignment: Assignment, *, told: Mapping[str, float], deadline: float | None
    ) -> datetime:
        """Claim a decision; what was decided alone is reported first."""
        core, ends_at = self.core, self._decision_ends_at(deadline)
        known = await self.on_disk(core.id_or_report, assignment)
        if isinstance(known, Request):
            exchange = await self._ask(known, ends_at=ends_at)
            reply = exchange.reply
            if reply is None or protocol.is_unreachable(reply):
                return await self.on_disk(core.claimed, exchange, assignment)
            known = await self.on_disk(core.reported, assignment, reply)
        exchange = await self._ask(protocol.claim_request(known, told), ends_at=ends_at)
        return await self.on_disk(core.claimed, exchange, assignment)

    async def asked(self, request: Request, *, deadline: float | None) -> Any:
        """Return the answer to a request that nobody can stand in for."""
        self.start()
        exchange = await self._ask(request, ends_at=self._decision_ends_at(deadline))
        return self.core.answered(exchange.reply)

    async def commanded(self, request: Request, *, deadline: float) -> Any:
        """Return the answer to an emergency command, tried on until then whatever failed before."""
        self.start()
        ends_at = _loop_time() + deadline
        while True:
            reply = await self._send(request, ends_at=ends_at)
            pause = _COMMAND_RETRY_SECONDS * (0.5 + self.core.jitter())
            if not protocol.may_retry(reply) or _loop_time() + pause >= ends_at:
                return self.core.answered(reply)
            await asyncio.sleep(pause)

    async def flush(self, timeout: float) -> bool:
        """Send at once; return whether nothing is left in time."""
        self.start()
        ends_at = _loop_time() + timeout
        self._failures = 0
        self._hurry.set()
        while await self.on_disk(self.core.spool.pending) > 0:
            self._rested.clear()
            self.wake()
            try:
                async with asyncio.timeout_at(ends_at):
                    await self._rested.wait()
            except TimeoutError:
                return await self.on_disk(self.core.spool.pending) == 0
        return True

    def beat(self, beat: Heartbeat) -> None:
        """Send a heartbeat soon, in the place of one that waits; neither waits nor raises."""
        if self._is_closed:
            return
        self.start()
        self._newest_beat = beat, self.core.now()
        if self._beats is None or self._beats.done():
            self._beats = asyncio.create_task(self._send_beats())

    def wake(self) -> None:
        """Send what is new."""
        self._wake.set()

    async def _ask(self, request: Request, *, ends_at: float) -> Exchange:
        """Send a request that may be repeated, twice if need be and time allows."""
        core = self.core
        sent_at = core.now()
        if not core.breaker.admits(at=core.monotonic()):
            return Exchange(reply=None, sent_at=sent_at, reason=Reason.BREAKER_OPEN)
        reply = await self._send(request, ends_at=ends_at)
        pause = _RETRY_SECONDS * (0.5 + core.jitter())
        if protocol.may_retry(reply) and _loop_time() + pause < ends_at:
            await asyncio.sleep(pause)
            reply = await self._send(request, ends_at=ends_at)
        if reply is None:
            core.breaker.failed(at=core.monotonic())
            return Exchange(reply=None, sent_at=sent_at)
        core.breaker.succeeded()
        return Exchange(reply=reply, sent_at=sent_at, reason=Reason.SERVER_FAULT)

    async def _send(self, request: Request, *, ends_at: float) -> Reply | None:
        headers = {"Content-Type": request.media_type} if request.body else {}
        try:
            async with asyncio.timeout_at(ends_at):
                response = await self._http.request(
                    request.method,
                    self.core.url + request.path,
                    content=request.body,
                    headers=headers,
                )
        except (httpx.RequestError, TimeoutError):
            return None
        return Reply(
            status=response.status_code,
            body=response.content,
            retry_after_seconds=_seconds(response.headers.get("Retry-After")),
            watch=response.headers.get(HEADER),
        )

    async def _send_beats(self) -> None:
        """Send heartbeats until none waits; apart from the circuit that decisions go by."""
        while (newest := self._newest_beat) is not None:
            self._newest_beat = None
            ends_at = _loop_time() + _HEARTBEAT_SECONDS
            try:
                beat, sent_at = newest
                request = await self.on_disk(self.core.beats.request, beat, sent_at=sent_at)
                if request is None:
                    continue
                reply = await self._send(request, ends_at=ends_at)
                if protocol.may_retry(reply) and self._newest_beat is None:
                    await asyncio.sleep(_HEARTBEAT_RETRY_SECONDS)
                    reply = await self._send(request, ends_at=ends_at)
                await self.on_disk(self.core.beats.answered, reply)
            except Exception:  # noqa: BLE001 - the boundary of this task: it must not end
                self.core.beats.log_fault()

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
        core = self.core
        round_ = Round(core)
        try:
            if not await self.on_disk(core.spool.take_lease):
                return PAUSE_SECONDS  # another process of the bot sends
            while (request := await self.on_disk(round_.next)) is not None:
                reply = await self._send(request, ends_at=_loop_time() + _DELIVERY_SECONDS)
                await self.on_disk(round_.take, reply)
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

    def _decision_ends_at(self, deadline: float | None) -> float:
        return _loop_time() + (self.core.deadline_seconds if deadline is None else deadline)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


async def _wait(event: asyncio.Event, *, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _seconds(header: str | None) -> float:
    # A date is lawful too, but nobody who says "in a second" sends one.
    return float(header) if header is not None and header.isdigit() else 0.0
