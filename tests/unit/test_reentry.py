"""When a throttled arm comes back by itself, and with how much."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bandit.core.ladder import Family, Standing
from bandit.core.limits import ArmPlace, Limits
from bandit.core.model import (
    WHOLE_PPM,
    ArmMode,
    ArmRole,
    ArmStatus,
    PolicyName,
    Ppm,
    Profile,
    Rung,
    Verdict,
)
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, RampRule, Rules, Throttled
from bandit.core.reentry import part_of, reasons_to_return, returning

NEW, OLD = PolicyName("new"), PolicyName("old")
SINCE = datetime(2026, 3, 1, 20, tzinfo=UTC)
NIGHT = SINCE + timedelta(hours=6)
RULES = Rules()
NEUTRAL = Standing(
    trades=40,
    days=10,
    mean_up=0.0,
    mean_down=0.0,
    factor_up=0.0,
    worst_block=None,
    paper_up=0.0,
    fill_gap=Verdict.INCONCLUSIVE,
    family=Family(generation=1, size=1, promotions=0),
)


def factor(value: float) -> ProfitFactor:
    return ProfitFactor(gross_profit=value, gross_loss=1.0, n=150, n_losses=50)


def place(
    policy: PolicyName = NEW,
    ppm: int = 0,
    *,
    role: ArmRole = ArmRole.CHALLENGER,
    status: ArmStatus = ArmStatus.THROTTLED,
    mode: ArmMode = ArmMode.LIVE,
    rung: Rung = Rung.UNPROVEN,
) -> ArmPlace:
    return ArmPlace(
        policy=policy, role=role, status=status, mode=mode, ppm=Ppm(ppm), trades=40, rung=rung
    )


def reading(
    at: ArmPlace | None = None,
    *,
    standing: Standing | None = NEUTRAL,
    paper: float | None = 1.6,
    held: int = 240_000,
) -> ArmReading:
    found = None if paper is None else factor(paper)
    return ArmReading(
        place=at or place(),
        pf_short=factor(1.2),
        pf_long=factor(1.2),
        dd_long_percent=1.0,
        pf_prod=factor(1.3),
        standing=standing,
        throttled=Throttled(since=SINCE, held=Ppm(held), paper=found),
    )


def comes_back(
    asked: ArmReading, *, now: datetime = NIGHT, profile: Profile = Profile.GUARDED
) -> bool:
    old = reading(place(OLD, WHOLE_PPM, role=ArmRole.CHAMPION, status=ArmStatus.ACTIVE))
    found = returning([asked, old], rules=RULES, limits=Limits(), profile=profile, now=now)
    return bool(found)


def test_paper_as_good_as_the_throttle_asks_brings_it_back_the_same_night() -> None:
    assert comes_back(reading())
    assert not comes_back(reading(paper=1.599))


def test_paper_without_a_loss_is_no_number_and_says_nothing() -> None:
    flawed = ProfitFactor(gross_profit=1.0, gross_loss=0.0, n=150, n_losses=0)
    asked = reading()
    assert asked.throttled is not None
    asked = replace(asked, throttled=replace(asked.throttled, paper=flawed))
    _, paper = reasons_to_return(asked, rules=RULES, now=NIGHT)
    assert paper.verdict is Verdict.INCONCLUSIVE
    assert not comes_back(asked)


def test_evidence_must_not_speak_against_it() -> None:
    assert not comes_back(reading(standing=replace(NEUTRAL, paper_up=-1e-9)))
    routed = replace(NEUTRAL, mean_up=-1e-9, paper_up=None)
    for paper in (9.0, None):
        assert not comes_back(reading(standing=routed, paper=paper), now=NIGHT + timedelta(days=99))


def test_each_kind_of_evidence_goes_with_its_own_results() -> None:
    late = NIGHT + timedelta(days=3)
    for_paper = replace(NEUTRAL, mean_up=-math.inf)
    assert comes_back(reading(standing=for_paper))
    assert not comes_back(reading(standing=for_paper, paper=None), now=late)
    for_routed = replace(NEUTRAL, paper_up=-math.inf)
    assert not comes_back(reading(standing=for_routed))
    assert comes_back(reading(standing=for_routed, paper=None), now=late)


@pytest.mark.parametrize(("days", "is_back"), [(2.999, False), (3.0, True)])
def test_without_paper_it_waits(days: float, is_back: bool) -> None:
    assert comes_back(reading(paper=None), now=SINCE + timedelta(days=days)) is is_back


def test_paper_that_flatters_is_not_believed() -> None:
    flatters = reading(standing=replace(NEUTRAL, fill_gap=Verdict.FAIL), paper=9.0)
    assert not comes_back(flatters)
    assert comes_back(flatters, now=SINCE + timedelta(days=3))


def test_only_what_the_checklist_throttled_comes_back() -> None:
    asked = reading()
    for other in (
        replace(asked, throttled=None),
        replace(asked, standing=None),
        replace(asked, place=place(status=ArmStatus.HALTED)),
        replace(asked, place=place(status=ArmStatus.ACTIVE)),
    ):
        assert reasons_to_return(other, rules=RULES, now=NIGHT) == ()
        assert not comes_back(other)


def test_to_the_letter_nobody_comes_back() -> None:
    for profile in Profile:
        assert comes_back(reading(), profile=profile) is (profile is Profile.GUARDED)


def part(asked: ArmReading, *others: ArmPlace) -> int | None:
    champion = WHOLE_PPM - sum(other.ppm for other in others)
    old = place(OLD, champion, role=ArmRole.CHAMPION, status=ArmStatus.ACTIVE)
    return part_of(asked, [asked.place, *others, old], rule=RampRule(), limits=Limits())


def test_unproven_comes_back_with_the_least_and_proven_a_step_below_what_it_held() -> None:
    assert part(reading()) == 20_000
    for rung in (Rung.PROVEN, Rung.ELIGIBLE):
        assert part(reading(place(rung=rung))) == 160_000
        assert part(reading(place(rung=rung), held=21_000)) == 20_000


def test_it_takes_no_more_than_the_champion_can_give() -> None:
    asked = reading(place(rung=Rung.PROVEN))
    other = place(PolicyName("other"), 580_000, status=ArmStatus.ACTIVE, rung=Rung.PROVEN)
    assert part(asked, other) == 20_000
    assert part(asked, replace(other, ppm=Ppm(580_001))) is None
    assert part(asked, replace(other, ppm=Ppm(500_000))) == 100_000


def test_those_that_come_back_together_share_what_the_champion_can_give() -> None:
    full = place(PolicyName("full"), 570_000, status=ArmStatus.ACTIVE, rung=Rung.PROVEN)
    arms = [reading(place(PolicyName(name))) for name in ("a", "b")]
    old = place(OLD, 430_000, role=ArmRole.CHAMPION, status=ArmStatus.ACTIVE)
    everyone = [*arms, reading(full), reading(old)]
    found = returning(everyone, rules=RULES, limits=Limits(), profile=Profile.GUARDED, now=NIGHT)
    # 30,000 are left under the cap of 60 %: one of them has to wait.
    assert [(back.policy, back.part) for back in found] == [("a", 20_000)]


def test_an_arm_without_traffic_comes_back_without() -> None:
    assert part(reading(place(mode=ArmMode.SHADOW))) == 0
