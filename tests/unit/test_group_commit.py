"""Callers share commits, each hears of its own item only, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from bandit.core.errors import BanditError, Conflict, InvalidInput, LedgerUnavailable, Overloaded
from bandit.service.group_commit import GroupCommit

Commit = Callable[[int, str, Sequence[int]], Awaitable[Sequence[int | BanditError]]]


class Store:
    """Keeps what was committed, group by group; `opens` lets the commits under way end."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, list[int]]] = []
        self.opens = asyncio.Event()
        self.opens.set()
        self.failures: list[BanditError] = []
        self.abandoned: list[int] = []
        self.lanes = 0

    async def commit(
        self, lane: int, key: str, items: Sequence[int]
    ) -> Sequence[int | BanditError]:
        assert lane < self.lanes
        self.groups.append((key, list(items)))
        await self.opens.wait()
        if self.failures:
            raise self.failures.pop(0)
        if any(item < 0 for item in items):
            raise InvalidInput(field="item", rule="must not be negative", found=min(items))
        return [Conflict("taken") if item == 13 else item * 10 for item in items]

    def group_commit(
        self,
        *,
        lanes: int = 1,
        beside: float = 0.0,
        group_max: int = 100,
        waiting_max: int = 1000,
        patience: float = 30,
    ) -> GroupCommit[str, int, int]:
        self.lanes = lanes
        return GroupCommit(
            self.commit,
            abandon=self.abandoned.append,
            lanes=lanes,
            beside_seconds=beside,
            group_max=group_max,
            waiting_max=waiting_max,
            patience_seconds=patience,
        )


async def submitted(
    commit: GroupCommit[str, int, int], *items: int, key: str = "k"
) -> list[int | BaseException]:
    return await asyncio.gather(
        *(commit.submit(key, item) for item in items), return_exceptions=True
    )


async def turns(count: int = 5) -> None:
    """Let every task that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_callers_that_come_during_a_commit_share_the_next() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit()
        async with commit.running():
            store.opens.clear()
            first = asyncio.create_task(submitted(commit, 1))
            await turns()
            others = asyncio.create_task(submitted(commit, 2, 3, 4))
            await turns()
            store.opens.set()
            assert await first == [10]
            assert await others == [20, 30, 40]
        assert store.groups == [("k", [1]), ("k", [2, 3, 4])]

    asyncio.run(run())


def test_group_holds_one_key_and_at_most_its_size_and_no_key_starves() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit(group_max=2)
        async with commit.running():
            store.opens.clear()
            waiting = [asyncio.create_task(submitted(commit, 0))]
            await turns()
            waiting.append(asyncio.create_task(submitted(commit, 1, 2, 3, 4, key="busy")))
            waiting.append(asyncio.create_task(submitted(commit, 5, key="quiet")))
            await turns()
            store.opens.set()
            await asyncio.gather(*waiting)
        assert store.groups[1:] == [("busy", [1, 2]), ("quiet", [5]), ("busy", [3, 4])]

    asyncio.run(run())


def test_refusal_reaches_only_its_caller() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit()
        async with commit.running():
            answers = await submitted(commit, 12, 13, 14)
        assert (answers[0], answers[2]) == (120, 140)
        assert isinstance(answers[1], Conflict)

    asyncio.run(run())


def test_poison_item_fails_alone() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit()
        async with commit.running():
            answers = await submitted(commit, 1, 2, 3, -4, 5, 6, 7)
        assert answers[:3] + answers[4:] == [10, 20, 30, 50, 60, 70]
        assert isinstance(answers[3], InvalidInput)

    asyncio.run(run())


def test_group_is_sent_again_when_the_ledger_comes_back_in_time() -> None:
    async def run() -> None:
        store = Store()
        store.failures = [LedgerUnavailable("gone"), LedgerUnavailable("gone")]
        commit = store.group_commit()
        async with commit.running():
            assert await submitted(commit, 1, 2) == [10, 20]
        assert store.groups == [("k", [1, 2])] * 3

    asyncio.run(run())


def test_caller_hears_that_the_ledger_is_away_when_its_patience_ends() -> None:
    async def run() -> None:
        store = Store()
        store.failures = [LedgerUnavailable("gone")] * 100
        commit = store.group_commit(patience=0.06)
        async with commit.running():
            [answer] = await submitted(commit, 1)
            assert isinstance(answer, LedgerUnavailable)
            store.failures.clear()
            assert await submitted(commit, 2) == [20]

    asyncio.run(run())


def test_commit_that_hangs_is_abandoned_and_its_lane_goes_on() -> None:
    async def run() -> None:
        store = Store()
        store.opens.clear()
        commit = store.group_commit(patience=0.05)
        async with commit.running():
            [answer] = await submitted(commit, 1)
            assert isinstance(answer, LedgerUnavailable)
            assert store.abandoned == [0]
            store.opens.set()
            assert await submitted(commit, 2) == [20]

    asyncio.run(run())


def test_caller_whose_patience_ends_in_an_attempt_is_told_why_the_one_before_failed() -> None:
    async def run() -> None:
        store = Store()
        store.failures = [LedgerUnavailable("the disk is full")]
        commit = store.group_commit(patience=0.2)
        async with commit.running():
            waiting = asyncio.create_task(submitted(commit, 1))
            await turns()
            store.opens.clear()  # the next attempt hangs
            [answer] = await waiting
            store.opens.set()
        assert str(answer) == "the disk is full"

    asyncio.run(run())


def test_patience_of_one_caller_ends_while_others_wait_on_for_the_same_commit() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit(patience=2.0)
        async with commit.running():
            store.opens.clear()
            first = asyncio.create_task(submitted(commit, 1))
            await turns()
            early = asyncio.create_task(submitted(commit, 2))
            await asyncio.sleep(1.0)
            late = asyncio.create_task(submitted(commit, 3))
            # The first hangs until its patience ends; then 2 and 3 share a commit.
            assert isinstance((await first)[0], LedgerUnavailable)
            assert isinstance((await early)[0], LedgerUnavailable)
            store.opens.set()
            assert await late == [30]
        assert store.groups == [("k", [1]), ("k", [2, 3])]

    asyncio.run(run())


def test_next_group_of_a_key_waits_and_that_of_another_does_not() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit(lanes=2, beside=30)
        async with commit.running():
            store.opens.clear()
            waiting = [asyncio.create_task(submitted(commit, 1))]
            await turns()
            waiting.append(asyncio.create_task(submitted(commit, 2)))
            await turns()
            waiting.append(asyncio.create_task(submitted(commit, 3)))
            waiting.append(asyncio.create_task(submitted(commit, 4, key="other")))
            await turns()
            assert store.groups == [("k", [1]), ("other", [4])]
            store.opens.set()
            assert await asyncio.gather(*waiting) == [[10], [20], [30], [40]]
        assert store.groups[2:] == [("k", [2, 3])]

    asyncio.run(run())


def test_group_goes_beside_a_commit_that_takes_too_long() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit(lanes=2, beside=0.05)
        async with commit.running():
            store.opens.clear()
            hangs = asyncio.create_task(submitted(commit, 1))
            await turns()
            store.opens = asyncio.Event()
            store.opens.set()
            assert await submitted(commit, 2) == [20]
            assert not hangs.done()
            # Whoever comes later is not held by the one that hangs.
            assert await submitted(commit, 3) == [30]
            assert store.groups == [("k", [1]), ("k", [2]), ("k", [3])]
            hangs.cancel()

    asyncio.run(run())


def test_full_queue_refuses_at_once_and_takes_again_when_it_drains() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit(waiting_max=2)
        async with commit.running():
            store.opens.clear()
            under_way = asyncio.create_task(submitted(commit, 1))
            await turns()
            waiting = asyncio.create_task(submitted(commit, 2, 3))
            await turns()
            with pytest.raises(Overloaded, match="2 requests are waiting"):
                await commit.submit("k", 4)
            store.opens.set()
            assert (await under_way, await waiting) == ([10], [20, 30])
            assert await submitted(commit, 4) == [40]

    asyncio.run(run())


def test_caller_that_left_takes_nobody_with_it() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit()
        async with commit.running():
            store.opens.clear()
            under_way = asyncio.create_task(submitted(commit, 1))
            await turns()
            leaves, stays = (asyncio.create_task(commit.submit("k", i)) for i in (2, 3))
            await turns()
            leaves.cancel()
            await turns()
            store.opens.set()
            assert (await under_way, await stays) == ([10], 30)
        # What nobody waits for any more is not committed.
        assert store.groups == [("k", [1]), ("k", [3])]

    asyncio.run(run())


def test_end_answers_whoever_still_waits() -> None:
    async def run() -> None:
        store = Store()
        commit = store.group_commit()
        store.opens.clear()
        async with commit.running():
            tasks = [asyncio.create_task(submitted(commit, 1))]
            await turns()
            tasks.append(asyncio.create_task(submitted(commit, 2)))
            await turns()
        for [answer] in await asyncio.gather(*tasks):
            assert isinstance(answer, LedgerUnavailable)

    asyncio.run(run())
