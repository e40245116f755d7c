"""Nights bring back what the checklist throttled, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from ledger import (
    BETTER,
    EVEN,
    FALLEN,
    NIGHT,
    NOON,
    POOR,
    arms,
    assign,
    change,
    feed,
    join,
    market,
    open_btc,
    register,
    scale,
    traffic,
)
from shadow_history import fix, on_paper, tell
from sqlalchemy import Engine

from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import DecisionKind, PolicyName, Profile
from bandit.core.reading import ChecklistRule, Rules
from bandit.service import experiments, killing
from bandit.service.scaling import Night

ARM = "arm-00"
# Throttled at noon of 1 March, so that three days have passed by the night to 5 March.
BACK = NIGHT + timedelta(days=2)
WITH_PAPER = Rules(checklist=ChecklistRule(window=10, long_window=20))


def status(engine: Engine, policy: str = ARM) -> str:
    return experiments.load(engine, "btc").arm_of(PolicyName(policy)).place.status.value


def nights(engine: Engine, count: int) -> list[Night]:
    return [scale(engine, now=NIGHT + timedelta(days=day)) for day in range(count)]


def throttled(engine: Engine, *, profile: Profile = Profile.GUARDED, count: int = 1) -> None:
    open_btc(engine, challengers=arms(count), profile=profile)
    market(engine, EVEN, arm_00=POOR)
    assert status(engine) == "throttled"


def test_it_comes_back_once_it_has_waited_and_says_why(engine: Engine) -> None:
    throttled(engine)
    assert [night.actions for night in nights(engine, 2)] == [(), ()]
    [back] = scale(engine, now=BACK).actions
    assert (back.kind, back.actor) == (DecisionKind.RESUME, "test")
    assert back.reason.startswith("days throttled 3.5")
    assert back.reason.endswith(" reaches 3")
    checks = {reason["check"]: reason for reason in back.reasons[ARM]}
    assert checks["evidence beside the champion"]["verdict"] == "PASS"
    assert checks["days throttled"]["limit"] == 3
    # Two percent, and the night's own step: its numbers are better than the champion's.
    assert traffic(engine)[ARM] == 30_000
    assert back.inputs["readings"][1]["throttled"]["held"] == 100_000


def test_what_it_was_throttled_for_does_not_throttle_it_again(engine: Engine) -> None:
    throttled(engine)
    nights(engine, 4)
    assert status(engine) == "active"
    feed(engine, ARM, BETTER, now=BACK + timedelta(days=1), prefix="fresh")
    assert status(engine) == "active"
    feed(engine, ARM, POOR, now=BACK + timedelta(days=2), prefix="poor")
    assert status(engine) == "throttled"
    # The wait begins anew.
    later = BACK + timedelta(days=5)
    assert scale(engine, now=later).actions == ()
    [back] = scale(engine, now=later + timedelta(days=1)).actions
    assert back.kind is DecisionKind.RESUME


def test_what_a_person_throttled_waits_for_a_person(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    market(engine, EVEN, arm_00=BETTER)
    change(engine, ArmVerb.THROTTLE, ARM)
    assert all(night.actions == () for night in nights(engine, 6))
    assert status(engine) == "throttled"


def test_a_person_who_throttles_again_has_the_last_word(engine: Engine) -> None:
    throttled(engine)
    change(engine, ArmVerb.RESUME, ARM)
    change(engine, ArmVerb.THROTTLE, ARM)
    nights(engine, 6)
    assert status(engine) == "throttled"


def test_what_was_halted_waits_for_a_person(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    market(engine, EVEN, arm_00=FALLEN)
    nights(engine, 6)
    assert status(engine) == "halted"


def test_to_the_letter_it_stays_away(engine: Engine) -> None:
    throttled(engine, profile=Profile.SEED_EXACT)
    nights(engine, 6)
    assert status(engine) == "throttled"


def test_nobody_comes_back_while_the_account_is_killed(engine: Engine) -> None:
    throttled(engine)
    account = experiments.load(engine, "btc").experiment.account
    assert account is not None
    killing.kill(engine, [account], cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    assert scale(engine, now=BACK).actions == ()
    killing.release(engine, [account], reason="over", now=BACK, actor="test")
    [back] = scale(engine, now=BACK + timedelta(days=1)).actions
    assert back.kind is DecisionKind.RESUME


def test_it_waits_while_the_champion_has_nothing_to_give(engine: Engine) -> None:
    limits = Limits(champion_floor_ppm=900_000, start_ppm=100_000)
    open_btc(engine, challengers=arms(1), limits=limits)
    market(engine, EVEN, arm_00=POOR)
    register(engine, "new", "bbbbbbbb")
    assert join(engine, "new") == (100_000, True)
    assert scale(engine, now=BACK).actions == ()
    change(engine, ArmVerb.RETIRE, "new")
    [back] = scale(engine, now=BACK + timedelta(days=1)).actions
    assert back.kind is DecisionKind.RESUME


@pytest.mark.parametrize(
    ("earned", "is_back"),
    [(["0.002", "-0.001"], True), (["0.003", "-0.002"], False)],
)
def test_results_on_paper_say_when(engine: Engine, earned: list[str], is_back: bool) -> None:
    open_btc(engine, challengers=arms(1), rules=WITH_PAPER)
    fix(engine)
    market(engine, EVEN, arm_00=POOR)
    assert status(engine) == "throttled"
    made = assign(engine, [f"paper-{i}" for i in range(20)], now=NOON + timedelta(hours=5))
    paper = [on_paper(a, ARM, earned[i % 2]) for i, a in enumerate(made)]
    tell(engine, paper, now=NIGHT - timedelta(hours=1))
    night = scale(engine)
    assert [decision.kind for decision in night.actions] == [DecisionKind.RESUME] * is_back
    if is_back:
        assert night.actions[0].reason == "profit factor on paper 2 reaches 1.6"
        assert Decimal(night.actions[0].reasons[ARM][1]["value"]) == 2
