"""A simulated experiment told to the service ends as the simulation says."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from ledger import UNGUARDED, register
from sqlalchemy import Engine

from bandit.core import trial, trial_plan
from bandit.core.account import LossLimits
from bandit.core.ladder import LadderRule
from bandit.core.limits import Limits
from bandit.core.model import (
    WHOLE_PPM,
    DecisionKind,
    Experiment,
    PolicyName,
    Profile,
    Strategy,
)
from bandit.core.outcomes import trade
from bandit.core.reading import ChecklistRule, RampRule, Rules
from bandit.core.shadow import shadow_trade
from bandit.core.simulation import IID, REAL, HypotheticalArm
from bandit.core.trial import Trial
from bandit.core.trial_plan import CHAMPION, SCALE, Fate, TrialPlan
from bandit.service import experiments, recording, reporting, scaling, shadowing
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.decisions import DecisionRecord

NEW, BAD = PolicyName("new"), PolicyName("bad")
# So quick a ladder that a month shows every rung.
RULES = Rules(
    ramp=RampRule(min_trades=10),
    checklist=ChecklistRule(pf_throttle=0.3),
    ladder=LadderRule(alpha=0.2, attribution_hours=24, trades=60, days=14, blocks=2),
)


def plan(profile: Profile, *, delay_days: int = 0) -> TrialPlan:
    """A great challenger, whose edge is plain within weeks, and a poor one."""
    return TrialPlan(
        setting=REAL if delay_days else IID,
        champion=HypotheticalArm(profit_factor=1.1),
        challengers={
            NEW: (HypotheticalArm(profit_factor=12.0),),
            BAD: (HypotheticalArm(profit_factor=0.4), HypotheticalArm(profit_factor=1.1)),
        },
        profile=profile,
        rules=RULES,
        limits=Limits(proven_trades=60),
        days=24,
        per_day=40,
        delay_days=delay_days,
        dwell=200,
    )


def told(engine: Engine, made: TrialPlan, fate: Fate) -> list[DecisionRecord]:
    """Let the service live through it; its nights, oldest first."""
    for i, policy in enumerate((CHAMPION, *made.challengers)):
        register(engine, policy, f"{i:08x}", now=trial_plan.OPENED)
    experiments.open_experiment(
        engine,
        Experiment(
            name=trial_plan.EXPERIMENT,
            champion=CHAMPION,
            capital=Decimal(10**6),
            currency="USD",
            equity_fraction=made.equity_fraction,
            profile=made.profile,
            strategy=made.strategy,
        ),
        challengers=list(made.challengers),
        salt=fate.salt,
        limits=made.limits,
        loss_limits=LossLimits(daily_loss=Decimal("0.1"), drawdown=Decimal("0.1")),
        # A trial tells what nights decide; no guard stands between them and the trades.
        rules=replace(made.rules, guard=UNGUARDED.guard),
        now=trial_plan.OPENED,
        actor="test",
    )
    router, routed = Router(engine), []
    for day in range(made.days):
        routed.append(assigned(router, made, day))
        if day >= made.delay_days:
            past = day - made.delay_days
            record(engine, made, fate, past, routed[past])
            if made.on_paper:
                record_on_paper(engine, made, fate, past, routed[past])
        scaling.scale(engine, trial_plan.EXPERIMENT, now=trial_plan.night_of(day), actor="test")
    history = reporting.decision_history(engine, trial_plan.EXPERIMENT)
    return [decision for decision in reversed(history) if decision.trading_day is not None]


def assigned(router: Router, made: TrialPlan, day: int) -> list[tuple[object, str]]:
    """Ask for every opportunity of a day, one after the other's time."""
    asked = [
        Opportunity(unit_id=trial_plan.unit_of(day, place), instrument=trial_plan.INSTRUMENT)
        for place in range(made.per_day)
    ]
    found = router.assign(trial_plan.EXPERIMENT, asked, now=trial_plan.decided_at(day, 0))
    return [(assignment.id, assignment.policy) for assignment in found]


def record(
    engine: Engine, made: TrialPlan, fate: Fate, day: int, routed: list[tuple[object, str]]
) -> None:
    batch = []
    for place, (key, policy) in enumerate(routed):
        arm = made.policies.index(PolicyName(policy))
        earned = Decimal(int(fate.results[arm, day, place])) / SCALE
        at = trial_plan.closed_at(made, day, place)
        batch.append(
            trade(
                key,  # type: ignore[arg-type]
                # Too little for the account's own limits to stop anything.
                pnl=round(earned, 8),
                return_ratio=earned,
                opened_at=trial_plan.decided_at(day, place),
                closed_at=at,
            )
        )
    for found in recording.record(engine, batch, now=at):
        assert isinstance(found, recording.Recorded), found


def record_on_paper(
    engine: Engine, made: TrialPlan, fate: Fate, day: int, routed: list[tuple[object, str]]
) -> None:
    batch = [
        shadow_trade(
            key,  # type: ignore[arg-type]
            policy,
            return_ratio=Decimal(int(fate.results[arm, day, place])) / SCALE,
            opened_at=trial_plan.decided_at(day, place),
            closed_at=trial_plan.closed_at(made, day, place),
        )
        for place, (key, _) in enumerate(routed)
        for arm, policy in enumerate(made.policies)
    ]
    for found in shadowing.record(engine, batch, now=trial_plan.told_at(day + made.delay_days)):
        assert isinstance(found, shadowing.RecordedShadow), found


@pytest.mark.parametrize(
    ("profile", "delay_days", "seed", "strategy"),
    [
        (Profile.GUARDED, 0, 1, Strategy.RAMP),
        (Profile.GUARDED, 2, 2, Strategy.RAMP),
        (Profile.SEED_EXACT, 0, 3, Strategy.RAMP),
        (Profile.OBSERVE, 0, 4, Strategy.RAMP),
        (Profile.GUARDED, 0, 5, Strategy.THOMPSON),
        (Profile.GUARDED, 2, 6, Strategy.DISCOUNTED_THOMPSON),
        (Profile.SEED_EXACT, 0, 7, Strategy.SLIDING_WINDOW_THOMPSON),
        (Profile.GUARDED, 0, 8, Strategy.UCB),
        (Profile.GUARDED, 0, 9, Strategy.EPSILON_GREEDY),
        (Profile.GUARDED, 0, 10, Strategy.FIXED),
    ],
)
def test_service_and_simulation_live_through_the_same(
    engine: Engine, profile: Profile, delay_days: int, seed: int, strategy: Strategy
) -> None:
    live_through_both(
        engine, replace(plan(profile, delay_days=delay_days), strategy=strategy), seed
    )


@pytest.mark.parametrize(
    ("strategy", "on_paper", "seed"),
    [
        (Strategy.RAMP, False, 14),
        (Strategy.RAMP, True, 12),
        (Strategy.DISCOUNTED_THOMPSON, True, 13),
    ],
)
def test_who_was_throttled_comes_back_in_both(
    engine: Engine, strategy: Strategy, on_paper: bool, seed: int
) -> None:
    checklist = ChecklistRule(window=10, long_window=40, pf_throttle=1.6, reentry_days=2)
    made = replace(
        plan(Profile.GUARDED),
        strategy=strategy,
        challengers={
            NEW: (HypotheticalArm(profit_factor=2.6),),
            BAD: (HypotheticalArm(profit_factor=0.4),),
        },
        rules=replace(RULES, checklist=checklist),
        agreement=0.5,
        on_paper=on_paper,
    )
    lived = live_through_both(engine, made, seed)
    history = [statuses[0].value for statuses in lived.statuses]
    assert ("throttled", "active") in pairwise(history)
    came_back = [
        decision
        for decision in reporting.decision_history(engine, trial_plan.EXPERIMENT)
        if decision.kind is DecisionKind.RESUME
    ]
    assert len(came_back) >= list(pairwise(history)).count(("throttled", "active"))
    check = "profit factor on paper" if on_paper else "days throttled"
    assert {decision.reason.rsplit(" ", 3)[0] for decision in came_back} == {check}


def live_through_both(engine: Engine, made: TrialPlan, seed: int) -> Trial:
    """Live through a plan in memory and in the ledger; both must end the same."""
    delay_days, fate = made.delay_days, Fate.drawn(made, seed=seed)
    expected, nights = trial.run(made, fate), told(engine, made, fate)
    assert len(nights) == made.days
    record = reporting.report(engine, trial_plan.EXPERIMENT).record
    ends = {arm.place.policy: arm.place for arm in record.arms}
    versions = reporting.allocation_history(engine, trial_plan.EXPERIMENT)
    for day in range(made.days + 1):
        noon = trial_plan.decided_at(day, 0)
        held = [allocation.ppm for allocation, at in versions if at <= noon][-1]
        assert [held[policy] for policy in made.policies] == expected.ppm[day].tolist()
    known = expected.chosen[: made.days - delay_days]
    for i, policy in enumerate(made.policies):
        assert ends[policy].trades == np.count_nonzero(known == i)
        assert ends[policy].rung is expected.rungs[-1][i]
        assert ends[policy].status is expected.statuses[-1][i]
    assert sum(place.ppm for place in ends.values()) == WHOLE_PPM
    return expected


def test_the_great_arm_rises_over_every_rung_and_the_poor_one_falls() -> None:
    made = plan(Profile.GUARDED)
    lived = trial.run(made, Fate.drawn(made, seed=1))
    rungs = {rungs[0].value for rungs in lived.rungs}
    assert rungs == {"unproven", "proven", "eligible"}
    assert lived.ppm[-1, 0] > 600_000
    assert lived.ppm[-1, 1] < 100_000
    assert np.all(lived.ppm.sum(axis=1) == WHOLE_PPM)
