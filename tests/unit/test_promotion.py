"""Who becomes the champion, and what everybody has afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bandit.core.errors import InvalidAllocation, InvalidTransition
from bandit.core.limits import ArmPlace, Limits, check, hold_out_of, with_champion
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
)
from bandit.core.promotion import (
    champion_to_return,
    promoted,
    require_promotable,
    rolled_back,
)

OLD, NEW, A, B = (PolicyName(name) for name in ("old", "new", "a", "b"))
LIMITS = Limits()
SEED = Profile.SEED_EXACT


def arm(
    policy: PolicyName,
    ppm: int,
    *,
    trades: int = 0,
    status: ArmStatus = ArmStatus.ACTIVE,
    mode: ArmMode = ArmMode.LIVE,
) -> ArmPlace:
    return ArmPlace(
        policy=policy,
        role=ArmRole.CHAMPION if policy == OLD else ArmRole.CHALLENGER,
        status=status,
        mode=mode,
        ppm=Ppm(ppm),
        trades=trades,
    )


def after(
    *challengers: ArmPlace,
    champion_trades: int = 0,
    limits: Limits = LIMITS,
    profile: Profile = Profile.GUARDED,
) -> Mapping[PolicyName, int]:
    """What everybody has once `new` is the champion, if that is lawful."""
    rest = 1_000_000 - sum(one.ppm for one in challengers)
    arms = [*challengers, arm(OLD, rest, trades=champion_trades)]
    ppm = promoted(arms, NEW, limits=limits, profile=profile)
    kind = DecisionKind.PROMOTE
    left = with_champion(arms, NEW, kind=kind, limits=limits)
    check(ppm, arms=left, limits=limits, profile=profile, kind=kind)
    return ppm


# Promotion


def test_old_champion_keeps_a_tenth_as_hold_out_and_the_new_one_has_the_rest() -> None:
    assert after(arm(NEW, 250_000)) == {NEW: 900_000, OLD: 100_000}


def test_roles_swap_where_the_challenger_had_all_that_the_hold_out_leaves() -> None:
    before = arm(NEW, 900_000, trades=500)
    assert after(before, champion_trades=9000, profile=SEED) == {NEW: 900_000, OLD: 100_000}


@pytest.mark.parametrize(
    ("floor", "minimum", "part"),
    [(100_000, 20_000, 100_000), (0, 20_000, 20_000), (0, 0, 0), (250_000, 20_000, 250_000)],
)
def test_hold_out_is_the_floor_of_a_proven_experiment_and_keeps_the_arm_alive(
    floor: int, minimum: int, part: int
) -> None:
    limits = Limits(champion_floor_proven_ppm=floor, arm_minimum_ppm=minimum)
    assert hold_out_of(limits) == part
    assert after(arm(NEW, 250_000), limits=limits)[OLD] == part


def test_hold_out_stops_at_the_cap_of_an_unproven_arm() -> None:
    limits = Limits(champion_floor_proven_ppm=300_000)
    assert after(arm(NEW, 250_000), limits=limits)[OLD] == 250_000
    assert after(arm(NEW, 250_000), limits=limits, profile=SEED)[OLD] == 300_000


def test_other_challengers_keep_their_parts_and_stopped_ones_stay_without() -> None:
    others = (
        arm(A, 200_000),
        arm(B, 0, status=ArmStatus.HALTED),
        arm(PolicyName("c"), 0, mode=ArmMode.SHADOW),
    )
    assert after(arm(NEW, 100_000), *others) == {
        NEW: 700_000,
        OLD: 100_000,
        A: 200_000,
        B: 0,
        "c": 0,
    }


def test_other_challengers_shrink_first_and_in_proportion_to_what_they_can_give() -> None:
    # 20 + 220 + 360: the hold-out asks for 80 more than sixty percent leave. Of the 540 that the
    # two have above their minimum 200 and 340 are kept in the same proportion.
    parts = after(arm(NEW, 20_000), arm(A, 220_000), arm(B, 360_000), profile=SEED)
    assert parts == {
        A: 20_000 + 200_000 * 460_000 // 540_000,
        B: 20_000 + 340_000 * 460_000 // 540_000,
        OLD: 100_000,
        NEW: 400_001,
    }


def test_hold_out_shrinks_once_the_others_stand_at_their_minimum() -> None:
    limits = Limits(arm_minimum_ppm=90_000, start_ppm=90_000, champion_floor_ppm=730_000)
    young = (arm(NEW, 90_000), arm(A, 90_000), arm(B, 90_000))
    assert after(*young, limits=limits) == {A: 90_000, B: 90_000, OLD: 90_000, NEW: 730_000}


def test_old_champion_with_many_trades_lowers_the_floor_of_the_new_one() -> None:
    # Its trades count where any challenger's do; those without enough keep to sixty percent.
    young = (arm(NEW, 20_000), arm(A, 220_000), arm(B, 360_000))
    parts = after(*young, champion_trades=500, profile=SEED)
    assert parts == {A: 220_000, B: 360_000, OLD: 100_000, NEW: 320_000}


def test_no_room_for_everybody_is_refused_by_the_name_of_the_limit() -> None:
    limits = Limits(arm_minimum_ppm=90_000, start_ppm=90_000, champion_floor_ppm=730_000)
    crowd = [arm(PolicyName(name), 90_000) for name in "abc"]
    with pytest.raises(InvalidAllocation) as refused:
        after(arm(NEW, 90_000, trades=500), *crowd, limits=limits)
    assert refused.value.limit == "champion_floor"


@pytest.mark.parametrize(
    ("policy", "part", "limit"),
    [(A, 50_001, "reduces_only"), (OLD, 100_001, "reduces_only"), (OLD, 19_999, "arm_minimum")],
)
def test_promotion_lets_nobody_else_gain(policy: PolicyName, part: int, limit: str) -> None:
    arms = [arm(NEW, 250_000), arm(A, 50_000), arm(OLD, 700_000)]
    parts = {NEW: 0, A: 50_000, OLD: 100_000, policy: part}
    parts[NEW] = 1_000_000 - sum(parts.values())
    left = with_champion(arms, NEW, kind=DecisionKind.PROMOTE, limits=LIMITS)
    proposed = {name: Ppm(part) for name, part in parts.items()}
    with pytest.raises(InvalidAllocation) as refused:
        check(
            proposed,
            arms=left,
            limits=LIMITS,
            profile=Profile.GUARDED,
            kind=DecisionKind.PROMOTE,
        )
    assert refused.value.limit == limit


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (arm(OLD, 900_000), "cannot promote old: it is the champion"),
        (arm(A, 0, mode=ArmMode.SHADOW), "cannot promote a: its mode is shadow, not live"),
        (arm(A, 0, mode=ArmMode.PAPER), "cannot promote a: its mode is paper, not live"),
        (arm(A, 0, status=ArmStatus.HALTED), "cannot promote a: it is halted, not active"),
        (arm(A, 0, status=ArmStatus.THROTTLED), "cannot promote a: it is throttled, not active"),
        (arm(A, 0, status=ArmStatus.RETIRED), "cannot promote a: it is retired, not active"),
    ],
)
def test_arm_that_takes_no_live_traffic_is_refused_by_name(place: ArmPlace, message: str) -> None:
    with pytest.raises(InvalidTransition) as refused:
        require_promotable(place)
    assert str(refused.value) == message


def test_challenger_with_the_least_traffic_may_be_promoted() -> None:
    require_promotable(arm(A, 20_000))


# Rollback

CROWNED = [
    replace(arm(OLD, 100_000), role=ArmRole.CHALLENGER),
    replace(arm(NEW, 850_000), role=ArmRole.CHAMPION),
    arm(A, 50_000),
]


def test_rollback_leaves_the_failed_one_nothing_and_others_what_they_have() -> None:
    ppm = rolled_back(CROWNED, OLD)
    assert ppm == {OLD: 950_000, NEW: 0, A: 50_000}
    kind = DecisionKind.ROLL_BACK
    left = with_champion(CROWNED, OLD, kind=kind, limits=LIMITS)
    check(ppm, arms=left, limits=LIMITS, profile=Profile.GUARDED, kind=kind)
    for policy in (NEW, A):
        more = {**ppm, policy: Ppm(ppm[policy] + 1), OLD: Ppm(949_999)}
        with pytest.raises(InvalidAllocation, match="reduces_only"):
            check(more, arms=left, limits=LIMITS, profile=Profile.GUARDED, kind=kind)


def test_newest_earlier_champion_that_is_still_an_arm_returns() -> None:
    assert champion_to_return([NEW, OLD, A], CROWNED, named=None) == OLD
    assert champion_to_return([NEW, B, A, OLD], CROWNED, named=None) == A  # b is retired


def test_an_older_one_returns_when_it_is_named() -> None:
    assert champion_to_return([NEW, OLD, A], CROWNED, named=A) == A


@pytest.mark.parametrize("named", [NEW, B])
def test_only_an_earlier_champion_returns(named: PolicyName) -> None:
    expected = f"cannot roll back to {named}: earlier champions still there: old, a"
    with pytest.raises(InvalidTransition, match=expected):
        champion_to_return([NEW, OLD, B, A], CROWNED, named=named)


def test_first_champion_has_nobody_before_it() -> None:
    with pytest.raises(InvalidTransition, match="no earlier champion is still an arm"):
        champion_to_return([NEW], CROWNED, named=None)


def test_halted_one_returns_only_when_it_is_named_and_a_throttled_one_without() -> None:
    stopped = replace(CROWNED[0], status=ArmStatus.HALTED, ppm=Ppm(0))
    arms = [stopped, *CROWNED[1:]]
    with pytest.raises(InvalidTransition, match="cannot roll back to old: it is halted"):
        champion_to_return([NEW, OLD], arms, named=None)
    assert champion_to_return([NEW, OLD], arms, named=OLD) == OLD
    arms[0] = replace(stopped, status=ArmStatus.THROTTLED)
    assert champion_to_return([NEW, OLD], arms, named=None) == OLD
