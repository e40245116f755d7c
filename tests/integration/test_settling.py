"""What became of claims and draws: counted from the ledger, told, and kept from rising on."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
from api_service import service
from ledger import (
    BEST,
    BETTER,
    NIGHT,
    NOON,
    arms,
    assign_to,
    closed,
    market,
    open_btc,
    record_all,
    scale,
    traffic,
)
from rich.console import Console
from sqlalchemy import Engine, text

from bandit.core.claims import WINDOW, Claims
from bandit.core.ladder import LadderRule
from bandit.core.marks import Mark
from bandit.core.model import Assignment, Profile, UnitId
from bandit.core.outcomes import Outcome, declined
from bandit.core.reading import Rules
from bandit.core.rederivation import Comparison
from bandit.service import charting, explaining, marking, reporting, revising
from bandit.service.ageing import AGE_MIN
from bandit.service.assigning import Router
from bandit.service.rederiving import rederive
from bandit.service.routing_table import Opportunity
from bandit.service.scaling import Night
from liveops.clock import VirtualClock
from liveops.explanation import explanation_lines
from liveops.report import render_report
from liveops.report_page import report_page

ARM = "arm-00"
# Decisions of the first of March count on the third.
QUICK = Rules(ladder=LadderRule(attribution_hours=24))


def claimed(engine: Engine, count: int, *, policy: str = ARM, prefix: str) -> list[Assignment]:
    """Decisions for a policy that a bot claimed at once."""
    made = assign_to(engine, policy, count, prefix=prefix)
    for decision in made:
        Router(engine).claim(decision.id, now=decision.decided_at)
    return made


def late(decision: Assignment) -> Outcome:
    """A trade that was opened a second after its decision had expired."""
    opened = decision.expires_at + timedelta(seconds=1)
    found = closed(decision, "0.001", minutes=600)
    return replace(found, opened_at=opened, closed_at=opened + timedelta(minutes=1))


def claims_of(night: Night) -> dict[str, Claims | None]:
    readings = night.decision.inputs["readings"]
    return {r["policy"]: None if r["claims"] is None else Claims(**r["claims"]) for r in readings}


def test_a_claim_fails_without_an_outcome_or_when_it_was_opened_too_late(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1), rules=QUICK)
    answered, silent, slow, nothing = claimed(engine, 4, prefix="first")
    record_all(
        engine,
        [closed(answered, "0.001"), late(slow), declined(nothing.id)],
        now=NOON + timedelta(hours=12),
    )
    open_now, forgotten = claimed(engine, 2, prefix="marked")
    for decision, hours in ((open_now, 13), (forgotten, 1)):
        at = NOON + timedelta(hours=hours)
        mark = Mark(assignment_id=decision.id, unrealised_pnl=Decimal(1), marked_at=at)
        marking.mark(engine, [mark], now=at)
    # Nobody claimed these: their outcome counts, and nothing is missing of them.
    asked, _ = assign_to(engine, ARM, 2, prefix="unclaimed")
    record_all(engine, [closed(asked, "0.001")], now=NOON + timedelta(hours=12))
    follows = Opportunity(unit_id=UnitId("on"), instrument="BTCUSD", position=silent.id)
    [following] = Router(engine).assign("btc", [follows], now=NOON)
    Router(engine).claim(following.id, now=NOON)
    found = claims_of(scale(engine))
    # Failed: the silent one, the late one, and the one that was marked for the last time that day.
    assert found == {"prod": None, ARM: Claims(n=6, failed=3)}
    timely = replace(closed(slow, "0.001", minutes=700))
    revising.revise(engine, timely, reason="was in time", now=NIGHT, actor="ann")
    record_all(engine, [closed(silent, "0.001")], now=NIGHT)
    again = claims_of(scale(engine, now=NIGHT + timedelta(hours=22)))
    assert again == {"prod": None, ARM: Claims(n=6, failed=2)}


def test_decisions_in_their_attribution_window_and_old_ones_are_not_asked_for(
    engine: Engine,
) -> None:
    open_btc(engine, challengers=arms(1), rules=QUICK)
    claimed(engine, 3, prefix="u")
    early = claims_of(scale(engine, now=NIGHT - timedelta(hours=3)))
    assert early == {"prod": None, ARM: None}
    last = scale(engine, now=NOON + WINDOW)
    assert claims_of(last)[ARM] == Claims(n=3, failed=3)
    gone = scale(engine, now=NOON + WINDOW + timedelta(days=1))
    assert (claims_of(gone)[ARM], gone.decision.inputs["draws"]) == (None, None)


def test_nothing_that_a_night_looks_at_may_have_left_the_ledger() -> None:
    assert WINDOW <= AGE_MIN


@pytest.mark.parametrize(
    ("profile", "failing", "after"),
    [
        (Profile.GUARDED, 12, 100_000),
        (Profile.GUARDED, 2, 150_000),
        (Profile.SEED_EXACT, 12, 150_000),
    ],
)
def test_an_arm_whose_claims_come_to_nothing_may_not_rise(
    engine: Engine, profile: Profile, failing: int, after: int
) -> None:
    open_btc(engine, challengers=arms(1), rules=QUICK, profile=profile)
    market(engine, BETTER, arm_00=BEST)
    made = claimed(engine, 40, prefix="claimed")
    told = [closed(decision, "0.001") for decision in made[failing:]]
    record_all(engine, told, now=NOON + timedelta(hours=12))
    scale(engine)
    assert traffic(engine)[ARM] == after
    [arm] = [a for a in reporting.report(engine, "btc").to_json()["arms"] if a["policy"] == ARM]
    verdict = "FAIL" if failing == 12 else "PASS"
    note = f"log e-value; {failing} of 40 failed, 0.05 of them may"
    assert (arm["claims"]["verdict"], arm["claims"]["note"]) == (verdict, note)
    page = report_page([charting.illustrated(engine, "btc")], made_at=NIGHT)
    assert page.count(note) >= 2  # in its table, and among the reasons of the night
    lines = " ".join(explanation_lines(explaining.explain(engine, "btc", ARM)))
    assert note in " ".join(lines.split())
    assert [night.comparison for night in rederive(engine, "btc")] == [Comparison.SAME]
    with service(engine, clock=VirtualClock(NIGHT)) as client:
        metrics = client.get("/metrics").text
    assert f'policy="{ARM}",role="challenger"}} {failing / 40}' in metrics


def test_draws_are_held_against_their_shares_in_report_and_metric(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2), rules=QUICK)
    assert reporting.report(engine, "btc").to_json()["draws"] is None
    market(engine, BETTER, arm_00=BEST, arm_01=BETTER)
    scale(engine)
    found = reporting.report(engine, "btc").draws
    assert found is not None
    assert (found.check, found.verdict) == ("units drawn as allocated", "PASS")
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        moved = connection.execute(
            text(
                "UPDATE assignments SET arm_id = (SELECT max(arm_id) FROM assignments)"
                " WHERE role = 'champion' AND mod(hashtext(unit_id), 3) = 0"
            )
        )
        assert moved.rowcount > 100
    scale(engine, now=NIGHT + timedelta(days=1))
    skewed = reporting.report(engine, "btc")
    assert skewed.draws is not None
    assert (skewed.draws.verdict, skewed.draws.limit) == ("FAIL", pytest.approx(math.log(1000)))
    Console(file=(said := StringIO()), width=80).print(render_report(skewed))
    [line] = [line for line in said.getvalue().splitlines() if "units drawn" in line]
    assert line.split()[-1] == "FAIL"
    with service(engine, clock=VirtualClock(NIGHT)) as client:
        metrics = client.get("/metrics").text
    assert 'liveops_experiment_draw_mismatch{experiment="btc"}' in metrics
