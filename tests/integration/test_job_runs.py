"""Claims of scheduled slots: one at a time, each done once, and nothing from who lost a claim."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from ledger import NIGHT
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from bandit.core.errors import FenceLost
from bandit.core.job_runs import JobRun, RunState
from bandit.service import job_runs

HOUR = timedelta(hours=1)


def claimed(engine: Engine, job: str = "data", *, hours: int = 0, actor: str = "a") -> JobRun:
    run = job_runs.claim(engine, job, NIGHT + hours * HOUR, now=NIGHT, actor=actor)
    assert run is not None
    return run


def ended(engine: Engine, run: JobRun, *, succeeded: bool = True, result: str = "ok") -> JobRun:
    now = run.began_at + HOUR
    return job_runs.finish(
        engine, run, succeeded=succeeded, result=result, now=now, actor=run.actor
    )


def audited(engine: Engine) -> Iterator[tuple[str, str, int]]:
    statement = text("SELECT action, actor, details FROM audit_log ORDER BY id")
    with engine.connect() as connection:
        for action, actor, details in connection.execute(statement):
            yield action, actor, details["fence"]


def test_what_is_done_is_claimed_no_more(engine: Engine) -> None:
    run = claimed(engine)
    assert (run.state, run.fence, run.attempts) == (RunState.RUNNING, 1, 1)
    done = ended(engine, run)
    assert (done.state, done.result, done.changed_at) == (RunState.DONE, "ok", NIGHT + HOUR)
    assert job_runs.claim(engine, "data", NIGHT, now=NIGHT, actor="b") is None
    assert job_runs.newest(engine) == [done]
    assert [*audited(engine)] == [("job_began", "a", 1), ("job_done", "a", 1)]


def test_what_failed_or_was_left_is_begun_again_with_a_higher_fence(engine: Engine) -> None:
    failed = ended(engine, claimed(engine), succeeded=False, result="no disk")
    assert (failed.state, failed.result) == (RunState.FAILED, "no disk")
    left = claimed(engine)
    assert (left.fence, left.attempts, left.result) == (2, 2, None)
    taken = claimed(engine, actor="b")
    assert (taken.fence, taken.attempts) == (3, 3)
    assert [*audited(engine)][2:] == [("job_began_again", "a", 2), ("job_taken_over", "b", 3)]


@pytest.mark.parametrize("is_over", [False, True])
def test_who_lost_its_claim_writes_nothing(engine: Engine, is_over: bool) -> None:
    zombie = claimed(engine)
    mine = claimed(engine, actor="b")
    now = ended(engine, mine) if is_over else mine
    with pytest.raises(FenceLost, match=r"slot 2026-03-03T02:00:00\+00:00 of data was claimed"):
        ended(engine, zombie, succeeded=False, result="from the past")
    assert job_runs.find(engine, "data", NIGHT) == now
    assert "job_failed" not in [action for action, *_ in audited(engine)]


def test_a_run_is_ended_once(engine: Engine) -> None:
    run = claimed(engine)
    ended(engine, run, succeeded=False)
    with pytest.raises(FenceLost):
        ended(engine, run)
    assert job_runs.newest(engine)[0].state is RunState.FAILED


def test_of_many_claims_at_once_one_at_most_ends_the_slot(engine: Engine) -> None:
    def attempt(name: int) -> bool:
        try:
            run = job_runs.claim(engine, "data", NIGHT, now=NIGHT, actor=f"replica {name}")
            return run is not None and ended(engine, run).state is RunState.DONE
        except FenceLost:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_newest_names_each_job_once_by_its_newest_slot(engine: Engine) -> None:
    assert job_runs.newest(engine) == []
    for job in ("scale", "data"):
        for hours in (1, 2, 0):
            ended(engine, claimed(engine, job, hours=hours))
    running = claimed(engine, "scale", hours=3)
    found = job_runs.newest(engine)
    assert [(run.job, run.slot) for run in found] == [
        ("data", NIGHT + 2 * HOUR),
        ("scale", running.slot),
    ]
    done = job_runs.newest(engine, state=RunState.DONE)
    assert [(run.job, run.slot) for run in done] == [
        ("data", NIGHT + 2 * HOUR),
        ("scale", NIGHT + 2 * HOUR),
    ]


@pytest.mark.parametrize(
    "change",
    [
        "fence = 1",  # falls
        "state = 'done', result = 'x', fence = 1",  # of who was overtaken
        "state = 'running', result = NULL",  # begun again without a fence of its own
        "slot = slot + interval '1 hour'",
        "job = 'scale'",
        "began_at = began_at + interval '1 hour'",
    ],
)
@pytest.mark.parametrize("state", RunState)
def test_the_database_refuses_what_no_claim_does(
    engine: Engine, state: RunState, change: str
) -> None:
    claimed(engine)
    run = claimed(engine)
    if state is not RunState.RUNNING:
        run = ended(engine, run, succeeded=state is RunState.DONE)
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.execute(text(f"UPDATE job_runs SET {change}"))
    assert job_runs.newest(engine) == [run]
