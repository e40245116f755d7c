"""From the shares a strategy would like to what one night may do about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from bandit.core.allocators.fitting import Proposal
from bandit.core.allocators.posterior import Moments, ResultKind
from bandit.core.allocators.registry import strategy
from bandit.core.allocators.sharing import propose
from bandit.core.limits import ArmPlace, Limits, check
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
    Rung,
    Verdict,
)
from bandit.core.night import night_seed
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, RampRule

A, B, OLD = (PolicyName(name) for name in ("a", "b", "old"))
GOOD = Moments(n=600, total=300.0, squares=1200.0)
EVEN = Moments(n=600, total=0.0, squares=1200.0)
BAD = Moments(n=600, total=-300.0, squares=1200.0)
LIMITS = Limits()
FACTOR = ProfitFactor(gross_profit=1.0, gross_loss=1.0, n=150, n_losses=75)


def arm(
    policy: PolicyName,
    ppm: int,
    moments: Moments | None,
    *,
    rung: Rung = Rung.UNPROVEN,
    status: ArmStatus = ArmStatus.ACTIVE,
    trades: int = 600,
) -> ArmReading:
    place = ArmPlace(
        policy=policy,
        role=ArmRole.CHAMPION if policy == OLD else ArmRole.CHALLENGER,
        status=status,
        mode=ArmMode.LIVE,
        ppm=Ppm(ppm),
        trades=trades,
        rung=rung,
    )
    return ArmReading(
        place=place,
        pf_short=FACTOR,
        pf_long=FACTOR,
        dd_long_percent=0.0,
        pf_prod=FACTOR,
        moments=moments,
    )


def night(
    *challengers: ArmReading,
    name: str = "thompson",
    champion_trades: int = 600,
    profile: Profile = Profile.GUARDED,
    worse: frozenset[PolicyName] = frozenset(),
    held: frozenset[PolicyName] = frozenset(),
    limits: Limits = LIMITS,
    seed: int = 7,
) -> Proposal:
    rest = 1_000_000 - sum(r.place.ppm for r in challengers)
    readings = [*challengers, arm(OLD, rest, EVEN, trades=champion_trades)]
    made = propose(
        readings,
        strategy=strategy(name, {}),
        rule=RampRule(),
        limits=limits,
        profile=profile,
        worse=worse,
        held=held,
        seed=seed,
    )
    kind = DecisionKind.RESCALE
    check(made.ppm, arms=[r.place for r in readings], limits=limits, profile=profile, kind=kind)
    return made


def test_a_better_arm_rises_by_half_a_night_up_to_its_cap() -> None:
    assert night(arm(A, 100_000, GOOD)).ppm == {A: 150_000, OLD: 850_000}
    assert night(arm(A, 200_000, GOOD)).ppm[A] == 250_000
    assert night(arm(A, 200_000, GOOD, rung=Rung.PROVEN)).ppm[A] == 300_000
    assert night(arm(A, 200_000, GOOD), profile=Profile.SEED_EXACT).ppm[A] == 300_000


def test_a_worse_arm_falls_to_the_minimum_at_once() -> None:
    made = night(arm(A, 240_000, BAD))
    assert made.ppm == {A: 20_000, OLD: 980_000}
    [trades, wanted] = made.reasons[A]
    assert trades.verdict is Verdict.PASS
    assert (wanted.value, wanted.limit, wanted.verdict) == (0.0, 0.24, Verdict.FAIL)
    assert wanted.note == "thompson, weighed live, beside the part it holds"


def test_who_was_taken_everything_from_may_begin_anew() -> None:
    none_needed = Limits(arm_minimum_ppm=0, start_ppm=70_000)
    assert night(arm(A, 240_000, BAD), limits=none_needed).ppm[A] == 0
    assert night(arm(A, 0, BAD), limits=none_needed).ppm[A] == 0
    assert night(arm(A, 0, GOOD), limits=none_needed).ppm[A] == 70_000
    for barred in ({"worse": frozenset({A})}, {"held": frozenset({A})}):
        assert night(arm(A, 0, GOOD), limits=none_needed, **barred).ppm[A] == 0


def test_the_reason_says_of_each_arm_what_it_was_weighed_by() -> None:
    made = night(arm(A, 100_000, replace(GOOD, kind=ResultKind.PAPER)), arm(B, 100_000, GOOD))
    notes = {policy: reasons[1].note for policy, reasons in made.reasons.items()}
    assert notes == {
        A: "thompson, weighed on paper, beside the part it holds",
        B: "thompson, weighed live, beside the part it holds",
    }


def test_who_was_shown_to_be_worse_steps_down_whatever_the_strategy_would_like() -> None:
    worse = frozenset({A})
    assert night(arm(A, 90_000, GOOD), worse=worse).ppm[A] == 60_000
    assert night(arm(A, 240_000, BAD), worse=worse).ppm[A] == 20_000
    to_the_letter = night(arm(A, 90_000, GOOD), worse=worse, profile=Profile.SEED_EXACT)
    assert to_the_letter.ppm[A] == 135_000


def test_an_arm_that_is_held_falls_and_does_not_rise() -> None:
    held = frozenset({A})
    assert night(arm(A, 90_000, GOOD), held=held).ppm[A] == 90_000
    assert night(arm(A, 240_000, BAD), held=held).ppm[A] == night(arm(A, 240_000, BAD)).ppm[A]
    to_the_letter = night(arm(A, 90_000, GOOD), held=held, profile=Profile.SEED_EXACT)
    assert to_the_letter.ppm[A] == 135_000


def test_nothing_moves_while_the_champion_cannot_be_measured() -> None:
    made = night(arm(A, 100_000, BAD), arm(B, 50_000, GOOD), champion_trades=29)
    assert made.ppm == {A: 100_000, B: 50_000, OLD: 850_000}
    assert {reason.verdict for (reason,) in made.reasons.values()} == {Verdict.FAIL}


def test_arms_without_traffic_are_not_asked_and_take_no_share() -> None:
    throttled = arm(A, 0, GOOD, status=ArmStatus.THROTTLED)
    made = night(throttled, arm(B, 100_000, GOOD))
    assert made.ppm == {A: 0, B: 150_000, OLD: 850_000}
    assert set(made.reasons) == {B}


def test_a_fixed_split_is_reached_and_kept() -> None:
    made = night(arm(A, 20_000, BAD), arm(B, 100_000, GOOD), name="fixed")
    assert made.ppm == {A: 30_000, B: 100_000, OLD: 870_000}


def test_the_seed_decides_what_chance_does() -> None:
    unsure = Moments(n=40, total=-20.0, squares=80.0)
    parts = [night(arm(A, 240_000, unsure), seed=seed).ppm[A] for seed in (1, 1, 2, 3, 4)]
    assert parts[0] == parts[1]
    assert len(set(parts)) > 2


@pytest.mark.parametrize("other", [(b"t" * 32, date(2026, 3, 1)), (b"s" * 32, date(2026, 3, 2))])
def test_every_experiment_and_night_has_a_seed_of_its_own(other: tuple[bytes, date]) -> None:
    seed = night_seed(b"s" * 32, date(2026, 3, 1))
    assert 0 <= seed < 2**63
    assert night_seed(*other) != seed
