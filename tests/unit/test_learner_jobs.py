"""Jobs of a learner: when they are due, what an attempt leads to, and what is asked once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from ledger import NOON

from bandit.core.learner_jobs import (
    ATTEMPTS_MAX,
    REST,
    RESULT_MAX,
    RETRY_AFTER,
    JobState,
    LearnerJob,
    is_wanted,
    tonight,
)
from bandit.core.model import PolicyName
from bandit.core.upkeep import UpkeepAction
from liveops.learner import name_of

JOB = LearnerJob(
    id=7,
    policy=PolicyName("trees"),
    action=UpkeepAction.REFRESH_ENCODER,
    cause="a run",
    reason="it drifted",
    actor="test",
    requested_at=NOON,
    due_at=NOON,
    state=JobState.WAITING,
    attempts=0,
    changed_at=NOON,
    result=None,
)


@pytest.mark.parametrize("hour", range(24))
def test_tonight_is_the_next_two_oclock(hour: int) -> None:
    moment = NOON.replace(hour=hour)
    night = tonight(moment)
    assert timedelta(0) < night - moment <= timedelta(days=1)
    assert (night.hour, night.minute, night.second) == (2, 0, 0)


def test_an_attempt_that_fails_is_made_again_until_three_have() -> None:
    job, now = JOB, NOON
    for attempt in range(1, ATTEMPTS_MAX + 1):
        job = job.begun(now=now)
        assert (job.state, job.attempts) == (JobState.RUNNING, attempt)
        job = job.ended(succeeded=False, result="no candles", now=now)
        if attempt < ATTEMPTS_MAX:
            assert (job.state, job.due_at) == (JobState.WAITING, now + RETRY_AFTER)
        now += RETRY_AFTER
    assert (job.state, job.result) == (JobState.FAILED, "no candles")


def test_an_attempt_that_was_left_does_not_count() -> None:
    left = JOB.begun(now=NOON).given_back(now=NOON)
    assert (left.state, left.attempts, left.due_at) == (JobState.WAITING, 0, JOB.due_at)


def test_what_comes_of_it_is_bounded() -> None:
    done = JOB.begun(now=NOON).ended(succeeded=True, result="x" * 5_000, now=NOON)
    assert done.state is JobState.DONE
    assert done.result == "x" * RESULT_MAX


@pytest.mark.parametrize(
    ("before", "cause", "now", "wanted"),
    [
        ([], "a run", NOON, True),
        ([JOB], "another run", NOON + 9 * REST, False),
        ([replace(JOB, state=JobState.RUNNING)], "another run", NOON + 9 * REST, False),
        ([replace(JOB, state=JobState.DONE)], "a run", NOON + 9 * REST, False),
        ([replace(JOB, state=JobState.DONE)], "another run", NOON + REST, True),
        ([replace(JOB, state=JobState.FAILED)], "another run", NOON + REST, True),
        (
            [replace(JOB, state=JobState.DONE)],
            "another run",
            NOON + REST - timedelta(seconds=1),
            False,
        ),
    ],
)
def test_it_is_asked_once_for_a_cause_and_never_beside_another(
    before: list[LearnerJob], cause: str, now: datetime, wanted: bool
) -> None:
    assert is_wanted(before, cause=cause, now=now) is wanted


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        ("trees", "trees-r7"),
        ("trees-r3", "trees-r7"),
        ("trees-r", "trees-r-r7"),
        ("a" * 63, "a" * 60 + "-r7"),
    ],
)
def test_the_new_policy_has_the_stem_of_the_old_one(policy: str, name: str) -> None:
    assert name_of(replace(JOB, policy=PolicyName(policy))) == name
