"""However alerts arrive, an arm is stopped exactly when it has to be, and never let go on."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from alert_histories import LEVELS, UNIT, Event, Oracle, history, lawful

from bandit.core.alert_actions import (
    SETTLES,
    AlertResult,
    AlertStatus,
    ArmStanding,
    KnownNotice,
    Notice,
    NoticeKey,
    action_of,
    since_of,
    stop,
)
from bandit.core.errors import InvalidInput
from bandit.core.lifecycle import ArmVerb, after
from bandit.core.model import ArmRole, ArmStatus, Profile

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def moment(second: int) -> datetime:
    return BEGAN + second * UNIT


def standing(
    status: ArmStatus = ArmStatus.ACTIVE,
    *,
    role: ArmRole = ArmRole.CHALLENGER,
    profile: Profile = Profile.GUARDED,
    resumed_at: datetime | None = None,
) -> ArmStanding:
    return ArmStanding(role=role, status=status, profile=profile, resumed_at=resumed_at)


@dataclass
class Arm:
    """An arm that does what the core says, and what people ask of it."""

    status: ArmStatus = ArmStatus.ACTIVE
    resumed_at: datetime | None = None
    known: dict[NoticeKey, KnownNotice] = field(default_factory=dict)

    def see(self, event: Event) -> str | None:
        now = moment(event.at)
        if event.kind != "notice":
            self._turn(ArmVerb(event.kind))
            self.resumed_at = now if event.kind == "resume" else self.resumed_at
            return None
        notice = Notice(
            fingerprint=event.fingerprint,
            status=AlertStatus(event.status),
            starts_at=moment(event.starts),
            action=event.action,
        )
        roles = {"known": ArmRole.CHALLENGER, "champion": ArmRole.CHAMPION}
        arm = None
        if event.arm in roles:
            own = standing(self.status, resumed_at=self.resumed_at)
            arm = own if event.arm == "known" else standing(role=ArmRole.CHAMPION)
        action = action_of(notice, arm, self.known.get(notice.key), now=now)
        if action.verb is not None:
            self._turn(action.verb)
        self.known.setdefault(notice.key, KnownNotice(received_at=now, result=action.result))
        return action.result.value

    def _turn(self, verb: ArmVerb) -> None:
        self.status = after(verb, status=self.status, role=ArmRole.CHALLENGER)


def test_ten_thousand_lives_go_as_the_oracle_says() -> None:
    rng = random.Random(20_260_301)  # noqa: S311 - seeded lives
    wrong, seen = list[tuple[int, Event, str | None, str | None]](), Counter[str | None]()
    for life in range(10_000):
        oracle, arm = Oracle(), Arm()
        for event in lawful(history(rng)):
            expected, found = oracle.see(event), arm.see(event)
            seen[expected] += 1
            if (expected, oracle.level) != (found, LEVELS[arm.status]):
                wrong.append((life, event, expected, found))
    assert wrong == []
    # Nothing that can happen is rare in these lives.
    assert set(seen) == {r.value for r in AlertResult} - {"truncated"} | {None}
    assert min(seen.values()) > 200


def test_only_a_person_lets_an_arm_go_on() -> None:
    rng = random.Random(7)  # noqa: S311 - seeded lives
    for _ in range(2_000):
        arm = Arm()
        for event in lawful(history(rng)):
            before = LEVELS[arm.status]
            arm.see(event)
            assert event.kind == "resume" or LEVELS[arm.status] >= before
            assert event.status == "firing" or LEVELS[arm.status] == before


@pytest.mark.parametrize("verb", [ArmVerb.THROTTLE, ArmVerb.HALT])
def test_whom_no_alert_stops(verb: ArmVerb) -> None:
    for arm in (standing(role=ArmRole.CHAMPION), standing(profile=Profile.OBSERVE)):
        assert stop(verb, arm, since=BEGAN, now=BEGAN).result is AlertResult.NO_ACTION
    retired = standing(ArmStatus.RETIRED)
    assert stop(verb, retired, since=BEGAN, now=BEGAN).result is AlertResult.ALREADY


def test_a_halt_follows_a_throttle_and_not_the_other_way_round() -> None:
    throttled, halted = standing(ArmStatus.THROTTLED), standing(ArmStatus.HALTED)
    assert stop(ArmVerb.HALT, throttled, since=BEGAN, now=BEGAN).result is AlertResult.HALTED
    assert stop(ArmVerb.THROTTLE, halted, since=BEGAN, now=BEGAN).result is AlertResult.ALREADY


def test_just_after_a_resume_alerts_speak_of_the_time_before() -> None:
    arm = standing(resumed_at=BEGAN)
    began = BEGAN + timedelta(seconds=15)

    def said(now: datetime, *, since: datetime = began) -> AlertResult:
        return stop(ArmVerb.HALT, arm, since=since, now=now).result

    assert said(BEGAN + SETTLES - timedelta(seconds=1)) is AlertResult.RESUMED_SINCE
    # What has begun since, and still goes on, is heard then.
    assert said(BEGAN + SETTLES) is AlertResult.HALTED
    before = BEGAN - timedelta(seconds=1)
    assert said(BEGAN + timedelta(days=1), since=before) is AlertResult.RESUMED_SINCE


def test_what_was_cut_off_holds_since_the_newest_alert_that_is_shown() -> None:
    def notice(second: int) -> Notice:
        return Notice(fingerprint="f", status=AlertStatus.FIRING, starts_at=moment(second))

    shown = [notice(5), notice(30), notice(10)]
    assert since_of(shown, now=moment(60)) == moment(30)
    # Whoever shows nothing, or a time to come, asks for everything there is now.
    assert since_of([], now=moment(60)) == moment(60)
    assert since_of([notice(90)], now=moment(60)) == moment(60)


@pytest.mark.parametrize("fingerprint", ["", "a b", "a" * 65, "ä", "a'; DROP TABLE arms; --"])
def test_a_fingerprint_is_letters_and_digits(fingerprint: str) -> None:
    with pytest.raises(InvalidInput, match="fingerprint: must be 1 to 64 letters and digits"):
        Notice(fingerprint=fingerprint, status=AlertStatus.FIRING, starts_at=BEGAN)
