"""Whom a night makes the champion, and whom it does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from night_readings import ELIGIBLE, NEW, OLD, OTHER, PROVEN, WORSE, arm, performance, ready

from bandit.core.claims import Claims
from bandit.core.errors import InvalidInput
from bandit.core.ladder import Family
from bandit.core.limits import Limits
from bandit.core.model import (
    ArmMode,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
    Promoter,
    Rung,
    Strategy,
    Verdict,
)
from bandit.core.night import NightDecision, decide
from bandit.core.reading import ArmReading, Rules, Throttled
from bandit.core.simulation import IID, HypotheticalArm
from bandit.core.trial_plan import TrialPlan

RULES = Rules(promote=Promoter.NIGHT)
NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
THIRD = PolicyName("third")


def night(
    *challengers: ArmReading,
    profile: Profile = Profile.GUARDED,
    killed: bool = False,
    rules: Rules = RULES,
    limits: Limits | None = None,
    champion_trades: int = 500,
) -> NightDecision:
    rest = 1_000_000 - sum(r.place.ppm for r in challengers)
    return decide(
        (*challengers, arm(OLD, rest, None, trades=champion_trades)),
        rules=rules,
        limits=limits or Limits(),
        profile=profile,
        strategy=Strategy.RAMP,
        seed=None,
        now=NOW,
        killed=killed,
    )


def chosen(*challengers: ArmReading, **given: bool) -> PolicyName | None:
    made = night(*challengers, **given).promotion
    return None if made is None else made.policy


def verdicts(made: NightDecision, policy: PolicyName) -> dict[object, object]:
    found = made.reasons()[policy]
    assert isinstance(found, list)
    return {reason["check"]: reason["verdict"] for reason in found}


def stronger(by: float, *, generation: int = 1) -> ArmReading:
    family = Family(generation=generation, size=1, promotions=0)
    standing = replace(ELIGIBLE, mean_up=9.0, factor_up=9.0, family=family)
    return ready(OTHER, 100_000, replace(standing, mean_up=standing.mean_up + by))


def test_the_promotion_is_all_that_moves_that_night() -> None:
    made = night(ready(NEW, 600_000), arm(OTHER, 100_000, PROVEN))
    assert made.promotion is not None
    after = {NEW: 800_000, OLD: 100_000, OTHER: 100_000}
    assert made.before == made.proposal.ppm == made.promotion.ppm == after
    assert made.promotion.demoted == OLD
    assert made.kind is DecisionKind.HOLD
    results = made.results()
    assert (results["promoted"], "would" in results) == (NEW, False)
    assert made.rungs[NEW] is Rung.ELIGIBLE
    # On a night without a promotion it would have risen.
    alone = night(arm(OTHER, 100_000, PROVEN))
    assert alone.proposal.ppm[OTHER] == 150_000


def test_the_arm_with_most_evidence_over_its_bar_is_promoted_alone() -> None:
    weak = replace(ELIGIBLE, mean_up=9.0, factor_up=9.0)
    assert chosen(ready(NEW, 100_000, weak), stronger(0.5)) == OTHER
    assert chosen(ready(NEW, 100_000, weak), stronger(-0.5)) == NEW
    # Of a later generation the bar is higher: log 3 more than the half.
    assert chosen(ready(NEW, 100_000, weak), stronger(0.5, generation=2)) == NEW


def test_equals_go_by_age_and_then_by_name() -> None:
    old_family = Family(generation=1, size=1, promotions=0)
    # Both families have the same share: alpha / 2 and alpha / 2 · (2 + 1) / 3.
    young_family = Family(generation=2, size=1, promotions=2)
    standing = replace(ELIGIBLE, mean_up=9.0, factor_up=9.0)
    young = ready(NEW, 100_000, replace(standing, family=young_family))
    older = ready(THIRD, 100_000, replace(standing, family=old_family))
    assert chosen(young, older) == THIRD
    same = ready(OTHER, 100_000, replace(standing, family=old_family))
    assert chosen(older, same) == OTHER


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"sharpe_daily": 0.9}, "gate sharpe_daily"),
        ({"profit_factor": 1.1}, "gate profit_factor"),
        ({"drawdown_max_percent": 20.1}, "gate drawdown_max_percent"),
        ({"days": 13}, "gate days"),
        ({"worst_excursion_percent": None}, "gate worst_excursion_percent"),
        ({"excursion_per_realised_loss": 50.0}, "gate excursion_per_realised_loss"),
    ],
)
def test_a_gate_that_does_not_pass_keeps_an_eligible_arm_waiting(
    changes: dict[str, float | None], check: str
) -> None:
    made = night(replace(ready(NEW, 100_000), shown=performance(**changes)))
    assert made.promotion is None
    found = verdicts(made, NEW)
    assert [c for c, v in found.items() if v != "PASS"] == [check]
    assert made.proposal.ppm[NEW] == 150_000


def test_an_arm_that_nobody_measured_waits() -> None:
    made = night(arm(NEW, 100_000, ELIGIBLE))
    assert made.promotion is None
    assert verdicts(made, NEW)["gates"] == "INCONCLUSIVE"


def test_the_total_return_of_arms_with_unequal_traffic_is_not_compared() -> None:
    made = night(replace(ready(NEW, 100_000), shown=performance(return_on_capital=-1.0)))
    assert made.promotion is not None
    assert not any("return_on_capital" in str(check) for check in verdicts(made, NEW))


def test_conditions_of_the_ramp_bind_a_promotion_too() -> None:
    assert chosen(ready(NEW, 600_000, pf=0.9)) is None
    assert chosen(replace(ready(NEW, 600_000), dd_long_percent=3.5)) is None
    # But not its ceiling, which is for growing.
    assert chosen(ready(NEW, 900_000)) == NEW


@pytest.mark.parametrize("standing", [PROVEN, WORSE])
def test_only_the_last_rung_is_promoted(standing: object) -> None:
    assert chosen(ready(NEW, 100_000, standing)) is None  # type: ignore[arg-type]


def test_who_is_shown_to_be_worse_at_the_same_time_is_not_promoted() -> None:
    both = replace(ELIGIBLE, mean_down=WORSE.mean_down)
    assert chosen(ready(NEW, 100_000, both)) is None


def test_who_does_not_report_what_it_claimed_is_not_promoted() -> None:
    eligible = ready(NEW, 100_000, ELIGIBLE)
    assert chosen(replace(eligible, claims=Claims(n=100, failed=1))) == NEW
    assert chosen(replace(eligible, claims=Claims(n=100, failed=30))) is None


@pytest.mark.parametrize(
    "place",
    [
        {"status": ArmStatus.HALTED, "ppm": Ppm(0)},
        {"status": ArmStatus.THROTTLED, "ppm": Ppm(0)},
        {"mode": ArmMode.SHADOW, "ppm": Ppm(0)},
    ],
)
def test_who_takes_no_live_traffic_is_not_promoted(place: dict[str, object]) -> None:
    reading = ready(NEW, 100_000)
    stopped = replace(reading, place=replace(reading.place, **place))  # type: ignore[arg-type]
    assert chosen(stopped) is None


def test_whom_the_checklist_flags_or_brings_back_is_not_promoted_that_night() -> None:
    flagged = replace(ready(NEW, 100_000), resumed=(ready(NEW, 0, pf=1.5).pf_short, 1.0))
    assert chosen(flagged) is None
    observed = night(flagged, profile=Profile.OBSERVE)
    assert observed.results()["would"] == {NEW: "throttle"}
    reading = ready(NEW, 0)
    throttled = replace(
        reading,
        place=replace(reading.place, status=ArmStatus.THROTTLED),
        throttled=Throttled(since=NOW - timedelta(days=3), held=Ppm(90_000), paper=None),
    )
    made = night(throttled)
    assert [back.policy for back in made.back] == [NEW]
    assert made.promotion is None


def test_without_room_under_the_limits_nobody_is_promoted_and_the_night_goes_on() -> None:
    limits = Limits(arm_minimum_ppm=90_000, start_ppm=90_000, champion_floor_ppm=730_000)
    crowd = [arm(PolicyName(name), 90_000, PROVEN, trades=0) for name in "abc"]
    made = night(ready(NEW, 90_000), *crowd, limits=limits, champion_trades=0)
    assert made.promotion is None
    assert verdicts(made, NEW)["room to promote"] == "FAIL"


@pytest.mark.parametrize(
    ("profile", "killed"),
    [(Profile.SEED_EXACT, False), (Profile.OBSERVE, False), (Profile.GUARDED, True)],
)
def test_where_a_night_may_not_it_says_whom_it_would_promote(
    profile: Profile, killed: bool
) -> None:
    made = night(ready(NEW, 100_000), profile=profile, killed=killed)
    assert made.promotion is None
    results = made.results()
    assert (results["would"], "promoted" in results) == ({NEW: "promote"}, False)
    assert made.before == {NEW: 100_000, OLD: 900_000}


def test_by_default_only_a_person_promotes() -> None:
    made = night(ready(NEW, 100_000), rules=Rules())
    assert (made.promotion, made.candidates) == (None, ())
    assert "would" not in made.results()
    assert Verdict.PASS.value in verdicts(made, NEW).values()


def test_a_simulation_keeps_its_champion_and_refuses_rules_that_replace_it() -> None:
    with pytest.raises(InvalidInput, match="promote: must be person"):
        TrialPlan(
            setting=IID,
            champion=HypotheticalArm(profit_factor=1.1),
            challengers={NEW: (HypotheticalArm(profit_factor=1.5),)},
            rules=RULES,
        )
