"""A night follows from its own row: what was read, and the rules the experiment has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from ledger import (
    BEST,
    BETTER,
    CHALLENGER,
    EVEN,
    FALLEN,
    NIGHT,
    POOR,
    arms,
    assign_to,
    change,
    closed,
    feed,
    market,
    open_btc,
    record_all,
    scale,
    wait_until_blocked,
)
from shadow_history import on_paper, tell
from sqlalchemy import Engine

from bandit.core import checklist
from bandit.core.allocators.fitting import Proposal
from bandit.core.allocators.posterior import Moments
from bandit.core.fill_gap import FillGapRule
from bandit.core.ladder import Standing
from bandit.core.lifecycle import ArmVerb, after
from bandit.core.limits import ArmPlace, Limits
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
    Strategy,
)
from bandit.core.night import judged, propose
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, RampRule, Rules
from bandit.service import reporting
from bandit.storage import locks
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import transaction


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def rederived(decision: DecisionRecord, limits: Limits, rules: Rules) -> Proposal:
    """The night's proposal, from nothing but what its row says."""
    readings = [reading_of(row) for row in decision.inputs["readings"]]
    if decision.profile != Profile.OBSERVE:
        stopped = {r.place.policy: row for r, row in checklist.actions(readings, rules.checklist)}
        readings = [stopped_by(r, stopped.get(r.place.policy)) for r in readings]
    rest = 10**6 - sum(r.place.ppm for r in readings if r.place.role is ArmRole.CHALLENGER)
    readings = [
        replace(r, place=replace(r.place, ppm=Ppm(rest))) if r.place.role is ArmRole.CHAMPION else r
        for r in readings
    ]
    assert {r.place.policy: r.place.ppm for r in readings} == decision.inputs["before"]
    profile = Profile(decision.profile)
    arms = [judged(reading, rules=rules) for reading in readings]
    return propose(
        arms,
        rules=rules,
        limits=limits,
        profile=profile,
        strategy=Strategy(decision.strategy),
        seed=decision.seed,
    )


def reading_of(row: Mapping[str, Any]) -> ArmReading:
    place = ArmPlace(
        policy=PolicyName(row["policy"]),
        role=ArmRole(row["role"]),
        status=ArmStatus(row["status"]),
        mode=ArmMode(row["mode"]),
        ppm=Ppm(row["ppm"]),
        trades=row["trades"],
    )
    return ArmReading(
        place=place,
        pf_short=factor_of(row["pf_30"]),
        pf_long=factor_of(row["pf_150"]),
        dd_long_percent=row["dd_150_percent"],
        pf_prod=factor_of(row["pf_prod"] or row["pf_150"]),
        standing=None if row["standing"] is None else Standing.from_json(row["standing"]),
        moments=None if row["moments"] is None else Moments.from_json(row["moments"]),
    )


def written_of(proposed: Proposal) -> dict[str, Any]:
    return {arm: [reason.to_json() for reason in found] for arm, found in proposed.reasons.items()}


def factor_of(row: Mapping[str, Any]) -> ProfitFactor:
    return ProfitFactor(**{k: row[k] for k in ("gross_profit", "gross_loss", "n", "n_losses")})


def stopped_by(reading: ArmReading, row: checklist.ChecklistRow | None) -> ArmReading:
    if row is None:
        return reading
    place = reading.place
    status = after(row.action, status=place.status, role=place.role)
    return replace(reading, place=replace(place, status=status, ppm=Ppm(0)))


@pytest.mark.parametrize(
    ("profile", "strategy"),
    [*((profile, Strategy.RAMP) for profile in Profile), (Profile.GUARDED, Strategy.THOMPSON)],
)
def test_every_night_follows_from_its_own_row(
    engine: Engine, profile: Profile, strategy: Strategy
) -> None:
    rules = Rules(ramp=RampRule(min_trades=10))
    record = open_btc(engine, challengers=arms(4), profile=profile, rules=rules, strategy=strategy)
    market(engine, BETTER, arm_00=BEST, arm_01=POOR, arm_02=FALLEN, arm_03=["0.0015", "-0.001"] * 8)
    for day in range(4):
        now = NIGHT + timedelta(days=day)
        scale(engine, now=now)
        if day == 1:
            change(engine, ArmVerb.RETIRE, "arm-03")
        feed(engine, "arm-00", ["0.001", "-0.003"], now=now, prefix=f"night-{day}")
    history = reporting.decision_history(engine, "btc")
    nights = [decision for decision in history if decision.trading_day is not None]
    assert len(nights) == 4
    for decision in nights:
        proposed = rederived(decision, record.limits, record.rules)
        assert proposed.ppm == decision.inputs["proposed"]
        assert written_of(proposed) == decision.reasons
    for decision in history:
        written = json.dumps(decision.inputs, sort_keys=True).encode()
        assert hashlib.sha256(written).hexdigest() == decision.inputs_digest


def test_a_night_that_weighed_paper_follows_from_its_own_row(engine: Engine) -> None:
    rules = Rules(ramp=RampRule(min_trades=10), fill_gap=FillGapRule(trades=2))
    record = open_btc(engine, challengers=arms(2), rules=rules, strategy=Strategy.THOMPSON)
    market(engine, BETTER, arm_01=BEST)
    mine = assign_to(engine, "arm-00", 4, prefix="mine")
    record_all(engine, [closed(a, "-0.001") for a in mine], now=NIGHT)
    others = assign_to(engine, "prod", 40, prefix="others")
    paper = [(a, "-0.001") for a in mine] + [(a, "0.0006") for a in others]
    tell(engine, [on_paper(a, "arm-00", earned) for a, earned in paper], now=NIGHT)
    decision = scale(engine).decision
    kinds = [row["moments"]["kind"] for row in decision.inputs["readings"]]
    assert kinds == ["live", "on paper", "live"]
    proposed = rederived(decision, record.limits, rules)
    assert proposed.ppm == decision.inputs["proposed"] != decision.inputs["before"]
    assert written_of(proposed) == decision.reasons


def test_outcomes_that_arrive_while_the_night_is_written_do_not_enter_it(
    engine: Engine, worker: ThreadPoolExecutor
) -> None:
    rules = Rules(ramp=RampRule(min_trades=30))
    record = open_btc(engine, rules=rules)
    market(engine, EVEN)
    feed(engine, CHALLENGER, BEST[:29], prefix="c")
    [thirtieth] = assign_to(engine, CHALLENGER, 1, prefix="thirtieth")
    with transaction(engine) as connection:
        locks.gate_exclusive(connection, record.id)
        night = worker.submit(scale, engine)
        wait_until_blocked(engine, night)
        record_all(engine, [closed(thirtieth, "0.002")], now=NIGHT)
    decision = night.result(timeout=60).decision
    assert decision.kind is DecisionKind.HOLD
    assert decision.inputs["readings"][1]["trades"] == 29
    assert decision.reasons[CHALLENGER][0]["verdict"] == "FAIL"
    assert rederived(decision, record.limits, rules).ppm == decision.inputs["proposed"]
