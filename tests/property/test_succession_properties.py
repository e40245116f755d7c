"""Whatever a night reads: it promotes one arm at most, and none that is not fit for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import event, given
from hypothesis import strategies as st
from night_readings import ELIGIBLE, OLD, PROVEN, UNKNOWN, WORSE, arm, performance

from bandit.core import night
from bandit.core.ladder import Family
from bandit.core.limits import Limits, check, with_champion
from bandit.core.model import (
    WHOLE_PPM,
    ArmMode,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Profile,
    Promoter,
    Rung,
    Strategy,
    Verdict,
)
from bandit.core.night import NightDecision
from bandit.core.reading import ArmReading, Rules

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
LIMITS = Limits()
mostly_active = st.sampled_from([ArmStatus.ACTIVE] * 8 + [ArmStatus.THROTTLED, ArmStatus.HALTED])
mostly_live = st.sampled_from([ArmMode.LIVE] * 8 + [ArmMode.SHADOW])
shown = st.sampled_from([performance()] * 6 + [performance(days=3), None])
families = st.builds(
    Family, generation=st.integers(1, 3), size=st.integers(1, 2), promotions=st.integers(0, 2)
)


@st.composite
def challengers(draw: st.DrawFn, name: str) -> ArmReading:
    standing = draw(st.sampled_from([ELIGIBLE] * 4 + [PROVEN, UNKNOWN, WORSE]))
    more = draw(st.floats(3.0, 9.0))
    standing = replace(
        standing,
        mean_up=standing.mean_up + more,
        factor_up=standing.factor_up + 6.0,
        family=draw(families),
    )
    status, mode = draw(mostly_active), draw(mostly_live)
    routable = status is ArmStatus.ACTIVE and mode is ArmMode.LIVE
    part = draw(st.integers(20_000, 150_000)) if routable else 0
    pf = draw(st.sampled_from([2.0] * 5 + [1.5]))
    found = arm(PolicyName(name), part, standing, pf=pf)
    place = replace(found.place, status=status, mode=mode)
    return replace(found, place=place, shown=draw(shown))


@st.composite
def nights(draw: st.DrawFn) -> tuple[NightDecision, list[ArmReading], Promoter]:
    others = [draw(challengers(f"arm-{i}")) for i in range(draw(st.integers(1, 5)))]
    rest = WHOLE_PPM - sum(reading.place.ppm for reading in others)
    readings = [*others, arm(OLD, rest, None)]
    promoter = draw(st.sampled_from([Promoter.NIGHT] * 7 + [Promoter.PERSON]))
    made = night.decide(
        readings,
        rules=Rules(promote=promoter),
        limits=LIMITS,
        profile=draw(st.sampled_from([Profile.GUARDED] * 6 + list(Profile))),
        strategy=draw(st.sampled_from([Strategy.RAMP, Strategy.FIXED])),
        seed=1,
        now=NOW,
        killed=draw(st.sampled_from([False] * 5 + [True])),
    )
    return made, readings, promoter


@given(nights())
def test_a_night_promotes_one_arm_at_most_and_only_one_that_is_fit(
    lived: tuple[NightDecision, list[ArmReading], Promoter],
) -> None:
    made, _, promoter = lived
    event(f"promotes: {made.promotion is not None}")
    if made.promotion is None:
        assert "promoted" not in made.results()
        return
    assert promoter is Promoter.NIGHT
    assert made.profile is Profile.GUARDED
    assert not made.killed
    policy = made.promotion.policy
    [judged] = [one for one in made.arms if one.reading.place.policy == policy]
    place = judged.reading.place
    assert (place.rung, place.status, place.mode) == (
        Rung.ELIGIBLE,
        ArmStatus.ACTIVE,
        ArmMode.LIVE,
    )
    assert not judged.is_worse
    assert policy not in {reading.place.policy for reading, _ in made.flagged}
    assert {reason.verdict for reason in made.promotion.reasons} == {Verdict.PASS}
    assert all(
        other.over_bar <= made.promotion.over_bar for other in made.candidates if other.passes
    )


@given(nights())
def test_a_promotion_is_lawful_and_all_that_moves(
    lived: tuple[NightDecision, list[ArmReading], Promoter],
) -> None:
    made, _, _ = lived
    if made.promotion is None:
        return
    places = [one.reading.place for one in made.arms]
    kind = DecisionKind.PROMOTE
    after = with_champion(places, made.promotion.policy, kind=kind, limits=LIMITS)
    check(made.promotion.ppm, arms=after, limits=LIMITS, profile=made.profile, kind=kind)
    assert made.before == made.proposal.ppm == made.promotion.ppm
    assert made.kind is DecisionKind.HOLD


@given(nights())
def test_what_is_left_undone_is_what_would_be_done(
    lived: tuple[NightDecision, list[ArmReading], Promoter],
) -> None:
    made, readings, promoter = lived
    best = [policy for policy, what in made.results().get("would", {}).items() if what == "promote"]
    assert len(best) <= 1
    if best:
        assert made.killed or made.profile is not Profile.GUARDED
        released = night.decide(
            readings,
            rules=Rules(promote=promoter),
            limits=LIMITS,
            profile=Profile.GUARDED,
            strategy=Strategy.RAMP,
            seed=None,
            now=NOW,
        )
        assert released.promotion is not None
        assert released.promotion.policy == best[0]
