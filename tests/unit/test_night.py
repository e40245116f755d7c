"""Nights under the ladder: how far each rung lets an arm rise, and what takes it down."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from night_readings import ELIGIBLE, NEW, OLD, OTHER, PROVEN, UNKNOWN, WORSE, arm

from bandit.core.allocators.fitting import Proposal
from bandit.core.claims import Claims
from bandit.core.errors import InvalidInput
from bandit.core.ladder import LadderRule, Standing
from bandit.core.limits import Limits
from bandit.core.model import (
    ArmStatus,
    DecisionKind,
    Ppm,
    Profile,
    Rung,
    Strategy,
    Verdict,
)
from bandit.core.night import NightDecision, decide, judged, propose, seed_of
from bandit.core.reading import ArmReading, Rules, Throttled

RULES = Rules()
NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)


def night(*challengers: ArmReading, profile: Profile = Profile.GUARDED) -> Proposal:
    rest = 1_000_000 - sum(r.place.ppm for r in challengers)
    arms = [judged(r, rules=RULES) for r in (*challengers, arm(OLD, rest, None))]
    return propose(arms, rules=RULES, limits=Limits(), profile=profile)


@pytest.mark.parametrize(
    ("standing", "held", "part"),
    [
        (UNKNOWN, 200_000, 250_000),
        (UNKNOWN, 250_000, 250_000),
        (PROVEN, 250_000, 375_000),
        (PROVEN, 550_000, 600_000),
        (PROVEN, 600_000, 600_000),
        (ELIGIBLE, 600_000, 900_000),
    ],
)
def test_each_rung_lets_an_arm_rise_further(standing: Standing, held: int, part: int) -> None:
    assert night(arm(NEW, held, standing)).ppm == {NEW: part, OLD: 1_000_000 - part}


def test_an_arm_that_lost_its_rung_keeps_its_part_but_does_not_grow() -> None:
    assert night(arm(NEW, 400_000, UNKNOWN)).ppm[NEW] == 400_000
    assert night(arm(NEW, 400_000, UNKNOWN, pf=0.9)).ppm[NEW] == 266_666


def test_proof_does_not_replace_the_conditions_of_the_ramp() -> None:
    assert night(arm(NEW, 300_000, ELIGIBLE, pf=0.9)).ppm[NEW] == 200_000


def test_an_arm_shown_to_be_worse_steps_down_however_its_last_trades_look() -> None:
    assert night(arm(NEW, 150_000, WORSE)).ppm[NEW] == 100_000
    assert night(arm(NEW, 150_000, WORSE, trades=0)).ppm[NEW] == 100_000
    assert night(arm(NEW, 20_000, WORSE)).ppm[NEW] == 20_000


def test_a_proven_arm_that_decays_steps_down_however_its_last_trades_look() -> None:
    fallen = replace(ELIGIBLE, decay=1001.0)
    assert night(arm(NEW, 150_000, fallen)).ppm[NEW] == 100_000
    assert night(arm(NEW, 150_000, replace(fallen, decay=1000.0))).ppm[NEW] == 225_000
    letter = night(arm(NEW, 150_000, fallen), profile=Profile.SEED_EXACT)
    assert letter.ppm[NEW] == 225_000
    assert verdict(letter, "decay") is Verdict.FAIL


def test_that_the_champion_decays_is_told_and_takes_nothing_from_its_hold_out() -> None:
    made = night(arm(NEW, 150_000, replace(ELIGIBLE, decay=1.0, champion_decay=5000.0)))
    assert made.ppm[NEW] == 225_000
    assert verdict(made, "decay of the champion") is Verdict.FAIL
    assert verdict(made, "decay") is Verdict.PASS


def test_an_arm_whose_claims_come_to_nothing_keeps_its_part() -> None:
    failing = replace(arm(NEW, 150_000, ELIGIBLE), claims=Claims(n=100, failed=30))
    made = night(failing)
    assert made.ppm[NEW] == 150_000
    assert verdict(made, "unreported claims") is Verdict.FAIL
    assert night(failing, profile=Profile.SEED_EXACT).ppm[NEW] == 225_000
    assert night(replace(failing, claims=Claims(n=100, failed=5))).ppm[NEW] == 225_000
    # It may still fall.
    poor = replace(arm(NEW, 150_000, ELIGIBLE, pf=0.9), claims=failing.claims)
    assert night(poor).ppm[NEW] == 100_000


def verdict(made: Proposal, check: str) -> Verdict:
    return next(r.verdict for r in made.reasons[NEW] if r.check == check)


def test_to_the_letter_evidence_changes_nothing_but_is_written_down() -> None:
    for standing in (UNKNOWN, PROVEN, WORSE):
        made = night(arm(NEW, 300_000, standing), profile=Profile.SEED_EXACT)
        assert made.ppm[NEW] == 450_000
        assert "evidence against" in {reason.check for reason in made.reasons[NEW]}


def test_reasons_say_what_is_missing() -> None:
    made = night(arm(NEW, 100_000, PROVEN), arm(OTHER, 100_000, UNKNOWN))
    verdicts = {reason.check: reason.verdict for reason in made.reasons[NEW]}
    assert verdicts == {
        "trades": Verdict.PASS,
        "pf_150 >= pf_prod": Verdict.PASS,
        "dd_150 percent": Verdict.PASS,
        "traffic_allocation": Verdict.PASS,
        "evidence against": Verdict.PASS,
        "evidence of the mean": Verdict.PASS,
        "trades to be eligible": Verdict.FAIL,
        "evidence of the profit factor": Verdict.FAIL,
        "days with decisions": Verdict.FAIL,
        "worst of 6 blocks": Verdict.INCONCLUSIVE,
    }
    of_other = {reason.check: reason.verdict for reason in made.reasons[OTHER]}
    assert of_other["evidence of the mean"] is Verdict.FAIL


def test_rungs_of_a_night_are_those_of_its_evidence() -> None:
    rungs = [judged(arm(NEW, 0, s), rules=RULES).reading.place.rung for s in (UNKNOWN, PROVEN)]
    assert rungs == [Rung.UNPROVEN, Rung.PROVEN]
    assert judged(arm(NEW, 0, ELIGIBLE), rules=RULES).reading.place.rung is Rung.ELIGIBLE
    assert judged(arm(OLD, 0, None), rules=RULES).reading.place.rung is Rung.UNPROVEN


def test_standing_survives_its_json() -> None:
    decayed = replace(UNKNOWN, decay=3.5, champion_decay=1e9)
    on_paper = replace(ELIGIBLE, paper_up=2.5, fill_gap=Verdict.PASS)
    for standing in (UNKNOWN, ELIGIBLE, on_paper, decayed):
        assert Standing.from_json(standing.to_json()) == standing


def test_rules_nobody_could_satisfy_are_refused() -> None:
    with pytest.raises(InvalidInput, match="alpha"):
        LadderRule(alpha=0.3)


# The night as a whole


def decided(
    *challengers: ArmReading, profile: Profile = Profile.GUARDED, killed: bool = False
) -> NightDecision:
    rest = 1_000_000 - sum(r.place.ppm for r in challengers)
    return decide(
        (*challengers, arm(OLD, rest, None)),
        rules=RULES,
        limits=Limits(),
        profile=profile,
        strategy=Strategy.RAMP,
        seed=None,
        now=NOW,
        killed=killed,
    )


def test_whom_the_checklist_stops_has_nothing_left_and_the_champion_takes_it() -> None:
    made = decided(arm(NEW, 100_000, UNKNOWN), arm(OTHER, 200_000, PROVEN, pf=1.5))
    assert [(r.place.policy, row.metric) for r, row in made.actions] == [
        (OTHER, "pf_challenger_30")
    ]
    assert made.before == {NEW: 100_000, OTHER: 0, OLD: 900_000}
    assert made.proposal.ppm == {NEW: 150_000, OTHER: 0, OLD: 850_000}
    assert set(made.reasons()) == {NEW}
    # What has been shown for it stays shown.
    assert made.rungs == {NEW: Rung.UNPROVEN, OTHER: Rung.PROVEN, OLD: Rung.UNPROVEN}


def test_observing_flags_and_stops_nobody() -> None:
    made = decided(arm(NEW, 100_000, UNKNOWN, pf=1.5), profile=Profile.OBSERVE)
    assert made.actions == ()
    assert made.before == {NEW: 100_000, OLD: 900_000}
    assert made.results()["would"] == {NEW: "throttle"}
    assert made.kind is DecisionKind.HOLD


def test_a_killed_account_holds_what_would_move() -> None:
    made = decided(arm(NEW, 100_000, UNKNOWN))
    assert made.kind is DecisionKind.RESCALE
    killed = decided(arm(NEW, 100_000, UNKNOWN), killed=True)
    assert killed.kind is DecisionKind.HOLD
    assert killed.results()["killed"] is True
    assert decided(arm(NEW, 250_000, UNKNOWN)).kind is DecisionKind.HOLD


def test_who_comes_back_has_its_part_before_the_strategy_proposes() -> None:
    other = arm(OTHER, 0, UNKNOWN)
    throttled = replace(
        other,
        place=replace(other.place, status=ArmStatus.THROTTLED),
        throttled=Throttled(since=NOW - timedelta(days=3), held=Ppm(90_000), paper=None),
    )
    made = decided(arm(NEW, 100_000, UNKNOWN), throttled)
    assert [(back.policy, back.part) for back in made.back] == [(OTHER, 20_000)]
    assert made.before == {NEW: 100_000, OTHER: 20_000, OLD: 880_000}
    assert made.proposal.ppm == {NEW: 150_000, OTHER: 30_000, OLD: 820_000}
    killed = decided(arm(NEW, 100_000, UNKNOWN), throttled, killed=True)
    assert (killed.back, killed.before[OTHER]) == ((), 0)


def test_to_the_letter_what_guarded_would_propose_stands_beside() -> None:
    made = decided(arm(NEW, 200_000, UNKNOWN), profile=Profile.SEED_EXACT)
    results = made.results()
    assert results["proposed"] == {NEW: 300_000, OLD: 700_000}
    assert results["guarded_would_propose"] == {NEW: 250_000, OLD: 750_000}
    assert "guarded_would_propose" not in decided().results()


def test_only_strategies_of_chance_have_a_seed() -> None:
    day, salt = date(2026, 3, 1), bytes(32)
    assert seed_of(Strategy.RAMP, salt, day) is None
    seeds = {seed_of(strategy, salt, day) for strategy in Strategy if strategy is not Strategy.RAMP}
    assert len(seeds) == 1
    assert seeds != {seed_of(Strategy.THOMPSON, salt, date(2026, 3, 2))}
