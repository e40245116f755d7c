"""Nights of the ramp worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bandit.core.allocators.fitting import Proposal
from bandit.core.allocators.ramp import conditions, propose
from bandit.core.errors import InvalidInput
from bandit.core.limits import ArmPlace, Limits
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    PolicyName,
    Ppm,
    Profile,
    Verdict,
)
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, RampRule

A, B, C, OLD = (PolicyName(name) for name in ("a", "b", "c", "old"))


def factor(value: float, *, n: int = 30) -> ProfitFactor:
    """A profit factor of `value` over `n` trades, one of them a loss of 1."""
    return ProfitFactor(gross_profit=value, gross_loss=1.0, n=n, n_losses=1)


NO_LOSSES = ProfitFactor(gross_profit=5.0, gross_loss=0.0, n=30, n_losses=0)
NO_TRADES = ProfitFactor(gross_profit=0.0, gross_loss=0.0, n=0, n_losses=0)


def reading(
    policy: PolicyName,
    ppm: int,
    *,
    pf: ProfitFactor | None = None,
    prod: ProfitFactor | None = None,
    drawdown: float = 1.0,
    trades: int = 30,
    status: ArmStatus = ArmStatus.ACTIVE,
    mode: ArmMode = ArmMode.LIVE,
    role: ArmRole = ArmRole.CHALLENGER,
) -> ArmReading:
    """A challenger that every condition favours: profit factor 2 against 1."""
    return ArmReading(
        place=ArmPlace(
            policy=policy, role=role, status=status, mode=mode, ppm=Ppm(ppm), trades=trades
        ),
        pf_short=factor(2.0),
        pf_long=pf or factor(2.0),
        dd_long_percent=drawdown,
        pf_prod=prod or factor(1.0),
    )


def night(*challengers: ArmReading, profile: Profile = Profile.GUARDED) -> Proposal:
    rest = 1_000_000 - sum(r.place.ppm for r in challengers)
    champion = reading(OLD, rest, role=ArmRole.CHAMPION)
    return propose([*challengers, champion], rule=RampRule(), limits=Limits(), profile=profile)


def test_better_challenger_grows_by_half() -> None:
    made = night(reading(A, 100_000))
    assert made.ppm == {A: 150_000, OLD: 850_000}
    assert [reason.verdict for reason in made.reasons[A]] == [Verdict.PASS] * 4


@pytest.mark.parametrize(("profile", "part"), [("guarded", 66_666), ("seed_exact", 100_000)])
@pytest.mark.parametrize("worse", [{"pf": factor(0.99)}, {"drawdown": 3.01}])
def test_failed_condition_steps_down_in_guarded_and_stays_in_seed_exact(
    profile: str, part: int, worse: dict[str, float]
) -> None:
    made = night(reading(A, 100_000, **worse), profile=Profile(profile))
    assert made.ppm == {A: part, OLD: 1_000_000 - part}


def test_step_down_stops_at_the_minimum() -> None:
    assert night(reading(A, 25_000, pf=factor(0.5))).ppm[A] == 20_000


@pytest.mark.parametrize(
    "borderline", [{"pf": factor(1.0)}, {"drawdown": 3.0}, {"prod": factor(2.0, n=30)}]
)
def test_conditions_hold_at_their_border(borderline: dict[str, float]) -> None:
    assert night(reading(A, 100_000, **borderline)).ppm[A] == 150_000


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize(
    "unknown",
    [
        {"trades": 29},
        {"trades": 29, "drawdown": 50.0},
        {"prod": factor(0.1, n=29)},
        {"prod": NO_TRADES},
        {"prod": NO_LOSSES},
        {"pf": NO_LOSSES},
    ],
)
def test_what_cannot_be_judged_holds(profile: Profile, unknown: dict[str, float]) -> None:
    made = night(reading(A, 100_000, **unknown), profile=profile)
    assert made.ppm == {A: 100_000, OLD: 900_000}


def test_drawdown_alone_is_judged_when_the_champion_cannot_be() -> None:
    assert night(reading(A, 90_000, prod=NO_TRADES, drawdown=3.5)).ppm[A] == 60_000


def test_ladder_stops_unproven_arms_at_a_quarter() -> None:
    assert night(reading(A, 200_000)).ppm[A] == 250_000
    assert night(reading(A, 250_000)).ppm[A] == 250_000
    assert night(reading(A, 200_000), profile=Profile.SEED_EXACT).ppm[A] == 300_000


def test_seed_exact_stops_at_the_ceiling() -> None:
    made = night(reading(A, 600_000, trades=500), profile=Profile.SEED_EXACT)
    assert made.ppm[A] == 600_000
    assert made.reasons[A][3].verdict is Verdict.FAIL


def test_seasoned_arm_may_take_what_the_lower_floor_leaves() -> None:
    made = night(reading(A, 590_000, trades=500), profile=Profile.SEED_EXACT)
    assert made.ppm == {A: 885_000, OLD: 115_000}


def test_ups_share_what_is_left_in_proportion() -> None:
    # A and B want 50,000 (their cap), C wants 80,000; 40,000 are left under the 600,000.
    made = night(reading(A, 200_000), reading(B, 200_000), reading(C, 160_000))
    assert made.ppm == {A: 211_111, B: 211_111, C: 177_777, OLD: 400_001}


def test_downs_come_first_and_make_room_for_the_ups() -> None:
    # A gives up 66,667: 76,667 are left for B, that wants 50,000, and C, that wants 60,000.
    made = night(reading(A, 200_000, pf=factor(0.5)), reading(B, 200_000), reading(C, 190_000))
    assert made.ppm == {A: 133_333, B: 234_848, C: 231_818, OLD: 400_001}


def test_seasoned_and_young_arms_share_what_the_floor_leaves() -> None:
    # A (500 trades) wants 250,000, B wants 100,000; the champion keeps a tenth: 200,000 are left.
    made = night(reading(A, 500_000, trades=500), reading(B, 200_000), profile=Profile.SEED_EXACT)
    assert made.ppm == {A: 642_857, B: 257_142, OLD: 100_001}


def test_young_arms_share_their_sixty_percent_before_the_floor_is_asked() -> None:
    # B and C (young) hold 500,000 and want 250,000: their cap leaves 100,000, half each in
    # proportion to 150,000 and 100,000. A (seasoned) wants 50,000; the floor leaves 300,000.
    made = night(
        reading(A, 100_000, trades=500),
        reading(B, 300_000),
        reading(C, 200_000),
        profile=Profile.SEED_EXACT,
    )
    assert made.ppm == {A: 150_000, B: 360_000, C: 240_000, OLD: 250_000}


@pytest.mark.parametrize(
    "place",
    [
        {"status": ArmStatus.THROTTLED},
        {"status": ArmStatus.HALTED},
        {"mode": ArmMode.SHADOW},
        {"mode": ArmMode.PAPER},
    ],
)
def test_arms_without_traffic_are_not_asked(place: dict[str, str]) -> None:
    made = night(reading(A, 0, **place), reading(B, 100_000))
    assert made.ppm == {A: 0, B: 150_000, OLD: 850_000}
    assert set(made.reasons) == {B}


def test_champion_alone_keeps_everything() -> None:
    made = night()
    assert made.ppm == {OLD: 1_000_000}
    assert made.reasons == {}


def test_every_condition_says_value_limit_and_verdict() -> None:
    asked = reading(A, 100_000, pf=NO_LOSSES, prod=factor(1.5, n=29), drawdown=3.5, trades=29)
    assert [reason.to_json() for reason in conditions(asked, rule=RampRule())] == [
        {"check": "trades", "value": 29, "limit": 30, "verdict": "FAIL", "note": ""},
        {
            "check": "pf_150 >= pf_prod",
            "value": None,
            "limit": None,
            "verdict": "INCONCLUSIVE",
            "note": "arm no_losses (30 trades), champion finite (29 trades)",
        },
        {"check": "dd_150 percent", "value": 3.5, "limit": 3.0, "verdict": "FAIL", "note": ""},
        {
            "check": "traffic_allocation",
            "value": 0.1,
            "limit": 0.6,
            "verdict": "PASS",
            "note": "",
        },
    ]


def test_order_of_the_arms_does_not_matter() -> None:
    arms = [reading(A, 200_000), reading(B, 190_000), reading(C, 150_000)]
    assert night(*arms).ppm == night(*arms[::-1]).ppm


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_trades", 0),
        ("step_down", 1.0),
        ("step_down", 10.5),
        ("step_down", float("nan")),
        ("drawdown_limit_percent", 0.0),
        ("drawdown_limit_percent", 101.0),
    ],
)
def test_rule_that_grows_or_shrinks_the_wrong_way_is_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(RampRule(), **{field: value})
    assert refused.value.field == field
