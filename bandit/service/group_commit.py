"""Commit what many callers ask for in groups: the commit under way is the only linger.

Callers that come while a commit is under way share the next one. A caller hears of success only
after the commit that holds its row. What is refused to one caller is refused to it alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bandit.core.errors import BanditError, InvalidInput, LedgerUnavailable, Overloaded

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

RETRY_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]
    deadline: float


class GroupCommit(Generic[Key, Item, Result]):
    """Groups items by key and commits them, one group at a time in each of `lanes`.

    `commit(lane, key, items)` stores a group whole and returns a result or an error for each item;
    when it raises `LedgerUnavailable` the same group is tried again until its callers' patience
    ends, so it must be idempotent. When it raises `InvalidInput` the group is halved until the one
    at fault stands alone. `abandon(lane)` is called when a commit does not return in time.

    While a group of a key is under way, the next one of that key waits for it, and grows. Only when
    that takes longer than `beside_seconds` does it go beside it, in another lane.
    """

    def __init__(
        self,
        commit: Callable[[int, Key, Sequence[Item]], Awaitable[Sequence[Result | BanditError]]],
        *,
        abandon: Callable[[int], None],
        lanes: int,
        beside_seconds: float,
        group_max: int,
        waiting_max: int,
        patience_seconds: float,
    ) -> None:
        """Start with nothing waiting; see `running`."""
        self._commit = commit
        self._abandon = abandon
        self._lanes = lanes
        self._beside = beside_seconds
        self._group_max = group_max
        self._waiting_max = waiting_max
        self._patience = patience_seconds
        self._queues: dict[Key, deque[_Waiting[Item, Result]]] = {}
        self._count = 0
        self._held: dict[Key, object] = {}  # keys whose next group waits, and for which turn
        self._idle: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commit while the context lasts; what still waits at its end gets `LedgerUnavailable`."""
        lanes = [asyncio.create_task(self._lane(number)) for number in range(self._lanes)]
        try:
            yield
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            for queue in self._queues.values():
                _refuse(queue, LedgerUnavailable("the service is stopping"))

    async def submit(self, key: Key, item: Item) -> Result:
        """Wait until `item` is committed and return its result.

        Raises `Overloaded` at once when too much waits already, `LedgerUnavailable` when patience
        ends before the commit is known, and whatever error the commit has for this item.
        """
        if self._count >= self._waiting_max:
            raise Overloaded(f"{self._count} requests are waiting to be stored: try again")
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Result] = _Waiting(
            item, loop.create_future(), loop.time() + self._patience
        )
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(waiting)
        self._count += 1
        if key not in self._held:
            self._wake()
        return await waiting.future

    def _wake(self) -> None:
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                return

    async def _lane(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            free = [key for key in self._queues if key not in self._held]
            if not free:
                idle = loop.create_future()
                self._idle.append(idle)
                await idle
                continue
            key = free[0]
            group = self._take(key)
            turn = self._held[key] = object()
            late = loop.call_later(self._beside, self._let_go, key, turn)
            try:
                await self._settle(number, key, group)
            except BaseException:
                _refuse(group, LedgerUnavailable("the service is stopping"))
                raise
            finally:
                late.cancel()
                self._let_go(key, turn)

    def _let_go(self, key: Key, turn: object) -> None:
        if self._held.get(key) is turn:
            del self._held[key]
            if key in self._queues:
                self._wake()

    def _take(self, key: Key) -> list[_Waiting[Item, Result]]:
        queue = self._queues.pop(key)
        group = [queue.popleft() for _ in range(min(len(queue), self._group_max))]
        if queue:
            self._queues[key] = queue  # behind the others: no key starves another
            self._wake()
        self._count -= len(group)
        return [waiting for waiting in group if not waiting.future.done()]

    async def _settle(self, lane: int, key: Key, group: list[_Waiting[Item, Result]]) -> None:
        """Commit a group, again and again while its callers have patience."""
        loop = asyncio.get_running_loop()
        failure: LedgerUnavailable | None = None
        while group:
            try:
                results = await self._in_time(lane, key, group, failure)
            except LedgerUnavailable as error:
                failure = error
                late = loop.time() + RETRY_SECONDS
                _refuse([w for w in group if w.deadline <= late], error)
                group = [w for w in group if not w.future.done()]
                if group:
                    await asyncio.sleep(RETRY_SECONDS)
                continue
            except InvalidInput as error:
                if len(group) > 1:
                    half = len(group) // 2
                    await self._settle(lane, key, group[:half])
                    await self._settle(lane, key, group[half:])
                else:
                    _refuse(group, error)
                return
            except Exception as error:  # noqa: BLE001 - callers raise it; the lane must go on
                _refuse(group, error)
                return
            for waiting, result in zip(group, results, strict=True):
                _answer(waiting, result)
            return

    async def _in_time(
        self,
        lane: int,
        key: Key,
        group: Sequence[_Waiting[Item, Result]],
        failure: LedgerUnavailable | None,
    ) -> Sequence[Result | BanditError]:
        """Commit a group; whose patience ends meanwhile is refused, and the others wait on.

        They are told of the `failure` of the attempt before this one, where there was one: a full
        disk says more than that time is up.
        """
        loop = asyncio.get_running_loop()
        late = failure or LedgerUnavailable(
            f"the ledger did not answer within {self._patience:g} s"
        )
        commit = asyncio.ensure_future(self._commit(lane, key, [w.item for w in group]))
        try:
            for waiting in group:  # in the order in which their patience ends
                if waiting.future.done():
                    continue
                remaining = max(0.0, waiting.deadline - loop.time())
                done, _ = await asyncio.wait({commit}, timeout=remaining)
                if done:
                    return commit.result()
                _answer(waiting, late)
        except asyncio.CancelledError:
            commit.cancel()
            raise
        # Not awaited: who waits for the end of a connection that hangs, hangs with it.
        self._abandon(lane)
        commit.cancel()
        commit.add_done_callback(_forget)
        raise late


def _answer(waiting: _Waiting[Item, Result], result: Result | Exception) -> None:
    if waiting.future.done():
        return  # its caller has left
    if isinstance(result, Exception):
        waiting.future.set_exception(result)
    else:
        waiting.future.set_result(result)


def _refuse(group: Iterable[_Waiting[Item, Result]], error: Exception) -> None:
    for waiting in group:
        _answer(waiting, error)


def _forget(commit: asyncio.Future[Any]) -> None:
    if not commit.cancelled():
        commit.exception()
