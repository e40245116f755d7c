"""Caps, floors and steps, each at its border and one part beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from bandit.core.errors import InvalidAllocation, InvalidInput
from bandit.core.limits import (
    REDUCING,
    ArmPlace,
    Limits,
    arm_cap_of,
    champion_floor_of,
    check,
    headroom,
    opening,
    step_up_limit,
    with_part,
)
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
    Rung,
)

LIMITS = Limits()
A, B, C, OLD = (PolicyName(name) for name in ("a", "b", "c", "old"))


def challenger(
    policy: PolicyName,
    ppm: int,
    *,
    trades: int = 0,
    status: ArmStatus = ArmStatus.ACTIVE,
    mode: ArmMode = ArmMode.LIVE,
    rung: Rung = Rung.UNPROVEN,
) -> ArmPlace:
    return ArmPlace(
        policy=policy,
        role=ArmRole.CHALLENGER,
        status=status,
        mode=mode,
        ppm=Ppm(ppm),
        trades=trades,
        rung=rung,
    )


def with_champion(*challengers: ArmPlace) -> list[ArmPlace]:
    champion = replace(
        challenger(OLD, 1_000_000 - sum(arm.ppm for arm in challengers)), role=ArmRole.CHAMPION
    )
    return [*challengers, champion]


def verdict(
    arms: Sequence[ArmPlace],
    parts: Mapping[PolicyName, int],
    *,
    kind: DecisionKind = DecisionKind.RESCALE,
    profile: Profile = Profile.GUARDED,
    limits: Limits = LIMITS,
) -> str | None:
    """The limit that refuses `parts` of the challengers, the champion taking the rest."""
    rest = 1_000_000 - sum(parts.values())
    proposed = {**{policy: Ppm(part) for policy, part in parts.items()}, OLD: Ppm(rest)}
    try:
        check(proposed, arms=arms, limits=limits, profile=profile, kind=kind)
    except InvalidAllocation as refused:
        return refused.limit
    return None


def test_step_up_is_one_and_a_half_times_a_night() -> None:
    arms = with_champion(challenger(A, 100_000))
    assert verdict(arms, {A: 150_000}) is None
    assert verdict(arms, {A: 150_001}) == "step_up"


def test_step_up_binds_a_nights_rescaling_alone() -> None:
    arms = with_champion(challenger(A, 100_000))
    assert verdict(arms, {A: 200_000}, kind=DecisionKind.ENTER) is None
    assert verdict(arms, {A: 200_000}, kind=DecisionKind.RESUME) is None


@pytest.mark.parametrize(("ppm", "limit"), [(33_333, 50_000), (1, 2), (3, 5)])
def test_step_up_rounds_half_up_to_a_part(ppm: int, limit: int) -> None:
    assert step_up_limit(ppm, Limits()) == limit


def test_step_up_leads_from_nothing_to_what_a_new_arm_starts_with() -> None:
    none_needed = Limits(arm_minimum_ppm=0, start_ppm=70_000)
    arms = with_champion(challenger(A, 0))
    assert verdict(arms, {A: 70_000}, limits=none_needed) is None
    assert verdict(arms, {A: 70_001}, limits=none_needed) == "step_up"


def test_active_live_arm_keeps_its_minimum() -> None:
    arms = with_champion(challenger(A, 100_000))
    assert verdict(arms, {A: 20_000}) is None
    assert verdict(arms, {A: 19_999}) == "arm_minimum"


@pytest.mark.parametrize("profile", [Profile.GUARDED, Profile.OBSERVE])
def test_unproven_arm_stops_at_a_quarter(profile: Profile) -> None:
    arms = with_champion(challenger(A, 240_000, trades=10_000))
    assert verdict(arms, {A: 250_000}, profile=profile) is None
    assert verdict(arms, {A: 250_001}, profile=profile) == "unproven_cap"


@pytest.mark.parametrize("profile", [Profile.GUARDED, Profile.OBSERVE])
@pytest.mark.parametrize(
    ("rung", "trades", "most"),
    [
        (Rung.PROVEN, 499, 600_000),
        (Rung.PROVEN, 500, 600_000),
        (Rung.ELIGIBLE, 499, 600_000),
        (Rung.ELIGIBLE, 500, 900_000),
    ],
)
def test_each_rung_lets_an_arm_rise_further(
    profile: Profile, rung: Rung, trades: int, most: int
) -> None:
    arms = with_champion(challenger(A, most - 1, trades=trades, rung=rung))
    assert verdict(arms, {A: most}, profile=profile) is None
    refused = verdict(arms, {A: most + 1}, profile=profile)
    assert refused == "arm_cap"


def test_arm_above_its_cap_keeps_what_it_holds_and_hinders_nobody() -> None:
    arms = with_champion(challenger(A, 400_000), challenger(B, 100_000))
    assert verdict(arms, {A: 400_000, B: 150_000}) is None
    assert verdict(arms, {A: 390_000, B: 150_000}) is None
    assert verdict(arms, {A: 400_001, B: 150_000}) == "unproven_cap"
    assert verdict(arms, {A: 400_000, B: 200_000}, kind=DecisionKind.ENTER) is None


@pytest.mark.parametrize(
    ("trades", "part", "limit"),
    [
        (499, 600_000, None),
        (499, 600_001, "arm_cap"),
        (500, 900_000, None),
        (500, 900_001, "arm_cap"),
    ],
)
def test_seed_exact_caps_an_arm_by_its_trades(trades: int, part: int, limit: str | None) -> None:
    arms = with_champion(challenger(A, 600_000, trades=trades))
    assert verdict(arms, {A: part}, profile=Profile.SEED_EXACT) == limit


def test_challengers_together_leave_the_champion_its_floor() -> None:
    arms = with_champion(challenger(A, 240_000), challenger(B, 240_000), challenger(C, 110_000))
    assert verdict(arms, {A: 240_000, B: 240_000, C: 120_000}) is None
    assert verdict(arms, {A: 240_000, B: 240_000, C: 120_001}) == "champion_floor"


def test_arms_without_enough_trades_stay_under_sixty_percent_beside_a_seasoned_one() -> None:
    arms = with_champion(
        challenger(A, 250_000, trades=500), challenger(B, 400_000), challenger(C, 200_000)
    )
    seed = Profile.SEED_EXACT
    assert verdict(arms, {A: 250_000, B: 400_000, C: 200_000}, profile=seed) is None
    # The champion may go down to a tenth now; the two young arms may not use that.
    assert verdict(arms, {A: 250_000, B: 400_000, C: 200_001}, profile=seed) == "challengers_cap"
    assert verdict(arms, {A: 300_000, B: 400_000, C: 200_000}, profile=seed) is None
    assert verdict(arms, {A: 300_001, B: 400_000, C: 200_000}, profile=seed) == "champion_floor"


@pytest.mark.parametrize("status", [ArmStatus.THROTTLED, ArmStatus.HALTED])
def test_stopped_arm_carries_nothing(status: ArmStatus) -> None:
    arms = with_champion(challenger(A, 0, status=status))
    assert verdict(arms, {A: 0}) is None
    assert verdict(arms, {A: 20_000}, kind=DecisionKind.ENTER) == "inactive_zero"


@pytest.mark.parametrize("mode", [ArmMode.SHADOW, ArmMode.PAPER])
def test_scored_arm_carries_nothing(mode: ArmMode) -> None:
    arms = with_champion(challenger(A, 0, mode=mode))
    assert verdict(arms, {A: 0}) is None
    assert verdict(arms, {A: 1}, kind=DecisionKind.ENTER) == "inactive_zero"


@pytest.mark.parametrize("kind", sorted(REDUCING))
def test_reducing_decisions_pass_every_limit_but_only_reduce(kind: DecisionKind) -> None:
    # Above its cap, with the champion under its floor: taking away is lawful all the same.
    arms = with_champion(challenger(A, 500_000), challenger(B, 300_000))
    assert verdict(arms, {A: 0, B: 300_000}, kind=kind) is None
    assert verdict(arms, {A: 0, B: 300_001}, kind=kind) == "reduces_only"


def test_every_arm_has_exactly_one_part() -> None:
    arms = with_champion(challenger(A, 100_000))
    assert verdict(arms, {}) == "arms"
    assert verdict(arms, {A: 100_000, B: 20_000}) == "arms"


@pytest.mark.parametrize("kind", DecisionKind)
@pytest.mark.parametrize("champion", [899_999, 900_001])
def test_a_sum_off_by_one_part_is_refused_for_every_decision(
    kind: DecisionKind, champion: int
) -> None:
    arms = with_champion(challenger(A, 100_000))
    proposed = {A: Ppm(100_000), OLD: Ppm(champion)}
    with pytest.raises(InvalidAllocation) as refused:
        check(proposed, arms=arms, limits=LIMITS, profile=Profile.GUARDED, kind=kind)
    assert refused.value.limit == "sum"


def test_floor_falls_only_for_a_seasoned_arm_that_trades() -> None:
    assert champion_floor_of(with_champion(challenger(A, 0, trades=499)), LIMITS) == 400_000
    assert champion_floor_of(with_champion(challenger(A, 0, trades=500)), LIMITS) == 100_000
    halted = challenger(A, 0, trades=500, status=ArmStatus.HALTED)
    assert champion_floor_of(with_champion(halted), LIMITS) == 400_000
    # A champion with trades is not what the floor waits for.
    champion = replace(with_champion()[0], trades=10_000)
    assert champion_floor_of([champion], LIMITS) == 400_000


def test_observe_caps_as_guarded_does() -> None:
    arm = challenger(A, 0, trades=10_000)
    assert arm_cap_of(arm, limits=LIMITS, profile=Profile.OBSERVE) == 250_000


@pytest.mark.parametrize(
    ("count", "share", "champion"),
    [(0, None, 1_000_000), (1, 100_000, 900_000), (6, 100_000, 400_000), (7, 85_714, 400_002)],
)
def test_challengers_open_at_ten_percent_or_an_equal_share(
    count: int, share: int | None, champion: int
) -> None:
    names = [PolicyName(f"arm-{i}") for i in range(count)]
    ppm = opening(OLD, names, limits=LIMITS)
    assert ppm == {**dict.fromkeys(names, share), OLD: champion}


def test_opening_with_less_than_the_minimum_each_is_refused() -> None:
    names = [PolicyName(f"arm-{i}") for i in range(31)]
    assert opening(OLD, names[:30], limits=LIMITS)[names[0]] == 20_000
    with pytest.raises(InvalidAllocation, match="31 challengers would start at 19354 ppm"):
        opening(OLD, names, limits=LIMITS)


@pytest.mark.parametrize(
    ("arms", "left"),
    [
        ([], 600_000),
        ([challenger(A, 100_000)], 500_000),
        ([challenger(A, 600_000)], 0),
        # A seasoned arm lowers the floor: 1,000,000 - 700,000 - 100,000.
        ([challenger(A, 700_000, trades=500)], 200_000),
        # But arms under 500 trades share 600,000 whatever the floor.
        ([challenger(A, 100_000, trades=500), challenger(B, 500_000)], 100_000),
        # A seasoned arm above the young ones' share, halted: nothing negative.
        ([challenger(A, 700_000, trades=500, status=ArmStatus.HALTED)], 0),
    ],
)
def test_headroom_is_what_floor_and_cap_leave(arms: list[ArmPlace], left: int) -> None:
    assert headroom(with_champion(*arms), LIMITS) == left


def test_champion_takes_the_difference_of_a_changed_part() -> None:
    arms = with_champion(challenger(A, 100_000), challenger(B, 50_000))
    assert with_part(arms, A, 0) == {A: 0, B: 50_000, OLD: 950_000}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("champion_floor_ppm", {"champion_floor_ppm": 1_000_001}),
        ("arm_minimum_ppm", {"arm_minimum_ppm": -1}),
        ("champion_floor_proven_ppm", {"champion_floor_proven_ppm": 400_001}),
        ("step_up", {"step_up": 0.99}),
        ("step_up", {"step_up": float("nan")}),
        ("start_ppm", {"start_ppm": 250_001}),
        ("start_ppm", {"start_ppm": 19_999}),
        ("proven_trades", {"proven_trades": 0}),
    ],
)
def test_limits_that_no_allocation_could_respect_are_refused(
    field: str, values: dict[str, float]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        Limits(**values)
    assert refused.value.field == field
