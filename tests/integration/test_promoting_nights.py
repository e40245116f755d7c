"""A night makes an eligible arm the champion, where the experiment's rules let it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from itertools import cycle

import pytest
from ledger import NOON, arms, change, open_btc, register, sizes, traffic
from rich.console import Console
from sqlalchemy import Engine, text

from bandit.core.kill_switch import KillCause
from bandit.core.ladder import LadderRule
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import ArmMode, DecisionKind, PolicyName, Profile, Promoter, UnitId
from bandit.core.outcomes import trade
from bandit.core.reading import ChecklistRule, RampRule, Rules
from bandit.core.rederivation import Comparison, Difference
from bandit.service import (
    auditing,
    experiments,
    explaining,
    killing,
    promoting,
    recording,
    reporting,
    scaling,
)
from bandit.service.assigning import Router
from bandit.service.rederiving import rederive
from bandit.service.routing_table import Opportunity
from bandit.service.scaling import Night
from liveops.explanation import explanation_lines
from liveops.report import render_report

PROD, BEST = PolicyName("prod"), PolicyName("arm-00")
HOUR = timedelta(hours=1)
GATE_DAYS = 14
# So quick a ladder that three weeks show every rung.
QUICK = Rules(
    ramp=RampRule(min_trades=10),
    checklist=ChecklistRule(pf_throttle=0.3),
    ladder=LadderRule(alpha=0.2, attribution_hours=24, trades=60, days=7, blocks=2),
    promote=Promoter.NIGHT,
)
RESULTS = {PROD: ("0.001", "-0.001"), BEST: ("0.002", "0.002", "-0.001")}


class Life:
    """Days of forty decisions of `btc`, each told before the night after it."""

    def __init__(self, engine: Engine, *, marked: bool = True) -> None:
        self.engine, self.router, self.marked = engine, Router(engine), marked
        self.results = {policy: cycle(found) for policy, found in RESULTS.items()}
        self.today = 0

    def day(self) -> Night:
        self.trade()
        return self.night()

    def trade(self) -> None:
        noon = NOON + timedelta(days=self.today)
        asked = [
            Opportunity(unit_id=UnitId(f"{self.today}-{i}"), instrument="BTCUSD") for i in range(40)
        ]
        told = []
        for made in self.router.assign("btc", asked, now=noon):
            earned = Decimal(next(self.results.get(made.policy, self.results[PROD])))
            outcome = trade(
                made.id,
                pnl=earned,
                return_ratio=earned,
                opened_at=noon,
                closed_at=noon + HOUR,
                worst_excursion=Decimal("0.002") if self.marked else None,
            )
            told.append(outcome)
        for found in recording.record(self.engine, told, now=noon + HOUR):
            assert isinstance(found, recording.Recorded), found
        self.today += 1

    def night(self) -> Night:
        return scaling.scale(self.engine, "btc", now=self.now, actor="cron")

    @property
    def now(self) -> datetime:
        """When the newest day's night is."""
        return NOON + timedelta(days=self.today, hours=-10)

    def until(self, holds: Callable[[Night], bool], *, days: int = 25) -> Night:
        for _ in range(days):
            night = self.day()
            if holds(night):
                return night
        raise AssertionError(f"not within {days} days: {night.decision.reasons}")


def promotes(night: Night) -> bool:
    return any(made.kind is DecisionKind.PROMOTE for made in night.actions)


def is_eligible(night: Night) -> bool:
    return night.decision.inputs["rungs"][BEST] == "eligible"


def opened(engine: Engine, rules: Rules = QUICK, profile: Profile = Profile.GUARDED) -> None:
    open_btc(
        engine,
        challengers=arms(1),
        rules=rules,
        profile=profile,
        limits=Limits(proven_trades=60),
    )


def champion(engine: Engine) -> str:
    return reporting.report(engine, "btc").record.experiment.champion


def test_night_promotes_an_eligible_arm_once_and_keeps_the_champion_as_hold_out(
    engine: Engine,
) -> None:
    opened(engine)
    life = Life(engine)
    waiting = life.until(is_eligible)
    # The gates ask for a fortnight, and the night says so.
    assert not promotes(waiting)
    checks = {r["check"]: r["verdict"] for r in waiting.decision.reasons[BEST]}
    assert [c for c, v in checks.items() if v != "PASS"] == ["gate days"]
    night = life.until(promotes)
    assert champion(engine) == BEST
    assert traffic(engine) == {PROD: 100_000, BEST: 900_000}
    [made] = night.actions
    assert (made.actor, made.decided_at) == ("cron", life.now)
    assert made.reason.startswith(f"promoted by the night of {life.now.date()}: evidence ")
    assert (made.inputs["policy"], made.inputs["demoted"]) == (BEST, PROD)
    assert {r["verdict"] for r in made.reasons[BEST]} == {"PASS"}
    checks = {r["check"] for r in made.reasons[BEST]}
    assert {"gate excursion_per_realised_loss", "pf_150 >= pf_prod", "room to promote"} <= checks
    decision = night.decision
    assert (decision.kind, decision.version) == (DecisionKind.HOLD, None)
    assert decision.inputs["before"] == decision.inputs["proposed"] == traffic(engine)
    assert (decision.inputs["rungs"][BEST], decision.inputs["promoted"]) == ("eligible", BEST)
    before = sizes(engine)
    assert life.night().already_done
    assert sizes(engine) == before
    assert {found.comparison for found in rederive(engine, "btc")} == {Comparison.SAME}
    assert auditing.verify(engine, []).findings == ()
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE decisions SET kind = 'RESUME' WHERE kind = 'PROMOTE'"))
    [changed] = rederive(engine, "btc", day=life.now.date())
    assert changed.differences == (
        Difference(what=f"actions: {BEST}: decision", stored="RESUME", derived="PROMOTE"),
    )


def test_a_new_champion_gathers_evidence_of_its_own_before_the_next(engine: Engine) -> None:
    opened(engine)
    life = Life(engine)
    first = life.until(promotes)
    assert not promotes(life.day())
    # Better from now on: who was replaced is not promoted before as many days have matured.
    life.results = {PROD: cycle(RESULTS[BEST]), BEST: cycle(RESULTS[PROD])}
    second = life.until(promotes, days=60)
    [made] = second.actions
    assert made.inputs["policy"] == PROD
    apart = made.decided_at - first.decision.decided_at
    assert apart >= timedelta(days=QUICK.ladder.days)
    [standing] = [r["standing"] for r in made.inputs["readings"] if r["policy"] == PROD]
    assert standing["days"] >= QUICK.ladder.days
    assert {found.comparison for found in rederive(engine, "btc")} == {Comparison.SAME}


def test_promotion_of_a_night_is_a_discovery_and_can_be_rolled_back(engine: Engine) -> None:
    # Later than the gates: the night that finds it eligible promotes it.
    opened(engine, rules=replace(QUICK, ladder=replace(QUICK.ladder, days=15)))
    life = Life(engine)
    [made] = life.until(promotes).actions
    rungs = {r["policy"]: r["rung"] for r in made.inputs["readings"]}
    assert (rungs[BEST], made.inputs["rungs"][BEST]) == ("proven", "eligible")
    joins(engine, "late", now=life.now + HOUR)
    standings = {r["policy"]: r["standing"] for r in life.day().decision.inputs["readings"]}
    # Whoever joins the day after the promotion has the share that it earned.
    assert standings["late"]["family"] == {"generation": 2, "size": 1, "promotions": 0}
    joins(engine, "later", now=life.now + HOUR)
    standings = {r["policy"]: r["standing"] for r in life.day().decision.inputs["readings"]}
    assert standings["later"]["family"] == {"generation": 3, "size": 1, "promotions": 1}
    arm, changed = promoting.roll_back(
        engine, name="btc", to=None, reason="no", now=life.now + HOUR, actor="bob"
    )
    assert (arm.place.policy, changed) == (PROD, True)
    status = {p.policy: p.status.value for p in experiments.load(engine, "btc").places}
    assert status[BEST] == "halted"
    # What was shown of it before counts no longer, also when a person resumes it.
    change(engine, ArmVerb.RESUME, BEST, now=life.now + HOUR)
    night = life.day()
    assert not promotes(night)
    assert night.decision.inputs["rungs"][BEST] == "unproven"
    assert {found.comparison for found in rederive(engine, "btc")} == {Comparison.SAME}


def joins(engine: Engine, name: str, *, now: datetime) -> None:
    policy = register(engine, name, name.encode().hex(), now=now)
    experiments.add_arm(engine, name="btc", policy=policy, mode=ArmMode.LIVE, now=now, actor="test")


@pytest.mark.parametrize("profile", [Profile.SEED_EXACT, Profile.OBSERVE])
def test_other_profiles_say_whom_they_would_promote(engine: Engine, profile: Profile) -> None:
    opened(engine, profile=profile)
    night = Life(engine).until(
        lambda night: night.decision.inputs.get("would") == {BEST: "promote"}
    )
    assert not night.actions
    assert champion(engine) == PROD
    assert {found.comparison for found in rederive(engine, "btc")} == {Comparison.SAME}


def test_a_killed_account_promotes_nobody_until_it_is_released(engine: Engine) -> None:
    opened(engine)
    life = Life(engine)
    life.until(is_eligible)
    while life.today < GATE_DAYS - 1:
        assert not promotes(life.day())
    life.trade()
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=life.now, actor="test")
    night = life.night()
    assert (night.actions, night.decision.inputs["would"]) == ((), {BEST: "promote"})
    killing.release(engine, None, reason="over", now=life.now + HOUR, actor="test")
    life.today += 1
    assert promotes(life.night())


def test_without_marks_a_person_decides(engine: Engine) -> None:
    opened(engine)
    life = Life(engine, marked=False)
    for _ in range(20):
        night = life.day()
        assert not promotes(night)
    assert is_eligible(night)
    unknown = {r["check"] for r in night.decision.reasons[BEST] if r["verdict"] == "INCONCLUSIVE"}
    assert unknown == {
        "gate marked_drawdown_percent",
        "gate worst_excursion_percent",
        "gate excursion_per_realised_loss",
    }
    said = explained(engine, BEST)
    assert "It is eligible: a night promotes it once all it asks holds." in said
    assert "worst_excursion is missing" in said
    arm, _ = promoting.promote(
        engine, name="btc", policy=BEST, reason="I looked", now=life.now + HOUR, actor="ann"
    )
    assert arm.place.policy == BEST


def test_by_default_a_person_promotes_and_experiments_from_before_have_that(
    engine: Engine,
) -> None:
    opened(engine, rules=replace(QUICK, promote=Promoter.PERSON))
    life = Life(engine)
    for _ in range(20):
        night = life.day()
        assert not promotes(night)
    assert is_eligible(night)
    assert all("shown" not in reading for reading in night.decision.inputs["readings"])
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE experiments SET rules = rules - 'promote'"))
    assert experiments.load(engine, "btc").rules.promote is Promoter.PERSON
    assert Rules().promote is Promoter.PERSON


def test_report_and_explanation_say_which_night_promoted(engine: Engine) -> None:
    opened(engine)
    life = Life(engine)
    life.until(promotes)
    by = f"promoted by the night of {life.now.date()}: evidence"
    assert f"It is the champion, by PROMOTE on {life.now.date()} 02:00." in explained(engine, BEST)
    assert by in explained(engine, BEST)
    assert f"{BEST} became the champion, and nothing else moved." in explained(engine, PROD)
    console = Console(file=StringIO(), width=200)
    report = reporting.report(engine, "btc")
    console.print(render_report(report))
    assert isinstance(console.file, StringIO)
    assert by in console.file.getvalue()
    told = report.to_json()["succession"]
    assert (told["kind"], told["demoted"], told["actor"]) == ("PROMOTE", PROD, "cron")
    assert told["reason"].startswith(by)


def explained(engine: Engine, policy: PolicyName) -> str:
    lines = explanation_lines(explaining.explain(engine, "btc", policy))
    assert max(map(len, lines)) <= 80
    return " ".join(" ".join(lines).split())
