"""When a scheduler may begin a slot, and the keys of jobs' locks."""

from __future__ import annotations

from datetime import timedelta

from ledger import NIGHT

from bandit.core.job_runs import RESULT_MAX, RETRY_AFTER, JobRun, due_at, first_run, key_of

SECOND = timedelta(seconds=1)


def begun() -> JobRun:
    return first_run("data", NIGHT, now=NIGHT, actor="test")


def failed(run: JobRun) -> JobRun:
    return run.ended(succeeded=False, result="no disk", now=NIGHT, actor="test")


def test_a_slot_is_begun_again_after_a_rest_and_four_times_at_most() -> None:
    run, rested = failed(begun()), NIGHT + RETRY_AFTER
    for attempt in (2, 3, 4):
        assert due_at(run, now=NIGHT) == rested
        assert due_at(run, now=rested + SECOND) == rested + SECOND
        run = failed(run.begun_again(now=NIGHT, actor="test"))
        assert run.attempts == attempt
    assert due_at(run, now=NIGHT + timedelta(days=1)) is None


def test_what_was_left_is_taken_at_once_and_what_is_done_never() -> None:
    assert due_at(begun(), now=NIGHT) == NIGHT
    done = begun().ended(succeeded=True, result="", now=NIGHT, actor="test")
    assert done.result == "nothing said"
    assert due_at(done, now=NIGHT + timedelta(days=1)) is None


def test_a_long_result_is_cut() -> None:
    said = begun().ended(succeeded=False, result="x" * 2000, now=NIGHT, actor="test").result
    assert said == "x" * RESULT_MAX


def test_keys_are_signed_numbers_of_32_bits() -> None:
    assert all(-(2**31) <= key_of(f"job {n}") < 2**31 for n in range(1000))
