"""Many callers at once record what one caller would have recorded, in fewer commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import pytest
from ledger import NOON, assign, closed, count, open_btc, record_all, together
from sqlalchemy import Engine, text

from bandit.core.errors import Conflict, InvalidInput, LedgerUnavailable, UnknownName
from bandit.core.outcomes import Flags, Outcome, declined
from bandit.service import live_recording, rebuilding, recording
from bandit.service.bulk_recording import record_stream
from bandit.service.live_recording import LiveRecorder
from bandit.service.recording import Recorded
from bandit.storage.engine import connect

T = TypeVar("T")
LATER = NOON + timedelta(days=1)


def live(engine: Engine, use: Callable[[LiveRecorder], Awaitable[T]]) -> T:
    async def run() -> T:
        recorder = LiveRecorder(engine, now=lambda: LATER)
        async with recorder.running():
            return await use(recorder)

    return asyncio.run(run())


async def told(recorder: LiveRecorder, *outcomes: Outcome) -> list[object]:
    return await asyncio.gather(*map(recorder.record, outcomes), return_exceptions=True)


def batches(engine: Engine) -> int:
    statement = text("SELECT count(*) FROM audit_log WHERE action = 'outcomes'")
    with engine.connect() as connection:
        return int(connection.execute(statement).scalar_one())


def trades(engine: Engine, number: int) -> list[Outcome]:
    made = assign(engine, [f"u-{i}" for i in range(number)])
    return [closed(a, "0.001", minutes=m) for m, a in enumerate(made, 1)]


def test_callers_together_share_commits_and_get_what_one_alone_gets(engine: Engine) -> None:
    open_btc(engine)
    outcomes = trades(engine, 300)
    answers = live(engine, lambda r: told(r, *outcomes))
    assert answers == [
        Recorded(
            assignment_id=o.assignment_id,
            created=True,
            recorded_at=LATER,
            flags=Flags(unclaimed=True),
        )
        for o in outcomes
    ]
    # All but the first callers came while a commit was under way.
    assert batches(engine) <= 2 + live_recording.LANES
    again = live(engine, lambda r: told(r, *outcomes[::-1]))
    assert again == [replace(answer, created=False) for answer in answers[::-1]]
    assert count(engine, "outcomes") == 300
    assert rebuilding.compare(engine, now=LATER).mismatches == ()


def test_each_caller_is_refused_alone(engine: Engine) -> None:
    open_btc(engine)
    good, settled, future, other = trades(engine, 4)
    record_all(engine, [settled], now=LATER)
    answers = live(
        engine,
        lambda r: told(
            r,
            good,
            declined(settled.assignment_id),
            replace(future, closed_at=LATER + timedelta(minutes=6)),
            declined(UUID(int=7)),
            other,
        ),
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [Recorded, Conflict, InvalidInput, UnknownName, Recorded]


def test_two_services_that_are_told_the_same_store_it_once(engine: Engine) -> None:
    open_btc(engine)
    outcomes = trades(engine, 200)

    async def in_rounds(recorder: LiveRecorder) -> list[object]:
        return [a for i in range(0, 200, 20) for a in await told(recorder, *outcomes[i : i + 20])]

    first, second = together(*(lambda: live(engine, in_rounds) for _ in range(2)))
    for one, other in zip(first, second, strict=True):
        assert sorted((one.created, other.created)) == [False, True]
    assert rebuilding.compare(engine, now=LATER).mismatches == ()


def test_lost_connections_are_made_again_and_the_same_outcomes_sent(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    outcomes = trades(engine, 60)
    own = connect(database_url, pool_size=live_recording.LANES)
    end_all = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )

    def cut() -> None:
        with engine.begin() as connection:
            connection.execute(end_all)

    async def use(recorder: LiveRecorder) -> list[object]:
        said = await told(recorder, *outcomes[:20])
        late = asyncio.gather(*map(recorder.record, outcomes[20:]), return_exceptions=True)
        await asyncio.to_thread(cut)
        return [*said, *await late]

    answers = live(own, use)
    assert [type(answer) for answer in answers] == [Recorded] * 60
    assert count(own, "outcomes") == 60
    own.dispose()


def test_ledger_that_stays_away_is_said_after_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_recording, "PATIENCE_SECONDS", 0.2)
    nowhere = connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    outcome = declined(UUID(int=1))
    [answer] = live(nowhere, lambda r: told(r, outcome))
    assert isinstance(answer, LedgerUnavailable)


def test_stream_is_answered_in_order_and_again_is_all_known(engine: Engine) -> None:
    open_btc(engine)
    outcomes = trades(engine, 130)
    stranger = declined(UUID(int=7))
    parts = [outcomes[:50], [], [stranger, *outcomes[50:60]], outcomes[60:]]
    answers = [a for part in record_stream(engine, parts, now=LATER) for a in part]
    assert isinstance(answers.pop(50), UnknownName)
    assert [a.assignment_id for a in answers] == [o.assignment_id for o in outcomes]
    assert all(a.created for a in answers)
    [again] = record_stream(engine, [outcomes], now=LATER)
    assert not any(a.created for a in again)
    assert again == recording.record(engine, outcomes, now=LATER)
    assert rebuilding.compare(engine, now=LATER).mismatches == ()
