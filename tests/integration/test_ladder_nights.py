"""The ladder in the ledger: evidence places an arm on its rung, and the rung lets it rise."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from evidence_history import prove
from ledger import BEST, BETTER, NIGHT, arms, change, market, open_btc, register, scale
from sqlalchemy import Engine, text

from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import ArmMode, PolicyName, Profile
from bandit.service import experiments, promoting, reporting
from bandit.storage.engine import snapshot

ARM = "arm-00"


def state(engine: Engine, policy: str = ARM) -> tuple[str, int]:
    """An arm's rung and its part."""
    with snapshot(engine) as connection:
        place = experiments.experiments.load(connection, "btc").arm_of(PolicyName(policy)).place
    return place.rung.value, place.ppm


def nights(engine: Engine, count: int) -> list[tuple[str, int]]:
    """Scale on so many nights; what the challenger had after each."""
    found = []
    for i in range(count):
        scale(engine, now=NIGHT + timedelta(days=i))
        found.append(state(engine))
    return found


def trading(engine: Engine, profile: Profile = Profile.GUARDED) -> None:
    """A market in which the ramp's conditions favour the challenger."""
    open_btc(engine, challengers=arms(1), profile=profile)
    market(engine, BETTER, arm_00=BEST)


def test_an_unproven_arm_stops_at_a_quarter_and_a_proven_one_rises_on(engine: Engine) -> None:
    trading(engine)
    assert nights(engine, 4)[-1] == ("unproven", 250_000)
    prove(engine, ARM, 0.1)
    scale(engine, now=NIGHT + timedelta(days=4))
    assert state(engine) == ("proven", 375_000)
    scale(engine, now=NIGHT + timedelta(days=5))
    scale(engine, now=NIGHT + timedelta(days=6))
    assert state(engine) == ("proven", 600_000)


def test_decisions_count_once_their_attribution_window_has_closed(engine: Engine) -> None:
    trading(engine)
    # 72 hours after the end of the 1st of March is the 5th.
    prove(engine, ARM, 1.0, last=date(2026, 3, 1), days=1)
    assert [rung for rung, _ in nights(engine, 3)] == ["unproven", "unproven", "proven"]


def test_an_arm_shown_to_be_worse_steps_down_while_its_last_trades_shine(engine: Engine) -> None:
    trading(engine)
    assert nights(engine, 2)[-1] == ("unproven", 225_000)
    prove(engine, ARM, -0.1)
    scale(engine, now=NIGHT + timedelta(days=2))
    assert state(engine) == ("unproven", 150_000)
    decision = reporting.decision_history(engine, "btc")[0]
    against = next(r for r in decision.reasons[ARM] if r["check"] == "evidence against")
    assert against["verdict"] == "FAIL"


@pytest.mark.parametrize("profile", [Profile.OBSERVE, Profile.SEED_EXACT])
def test_other_profiles_write_evidence_down_and_do_not_act_on_it(
    engine: Engine, profile: Profile
) -> None:
    trading(engine, profile)
    prove(engine, ARM, 0.1)
    found = nights(engine, 2)
    held = {Profile.OBSERVE: ("unproven", 100_000), Profile.SEED_EXACT: ("proven", 225_000)}
    assert found[-1] == held[profile]
    decision = reporting.decision_history(engine, "btc")[0]
    [read] = [r for r in decision.inputs["readings"] if r["policy"] == ARM]
    assert read["standing"]["mean_up"] > 3


def test_a_family_needs_more_and_retired_members_count(engine: Engine) -> None:
    open_btc(engine, challengers=arms(4))
    change(engine, ArmVerb.RETIRE, "arm-03")
    scale(engine)
    standing = standings(engine)[ARM]
    assert standing["family"] == {"generation": 1, "size": 4, "promotions": 0}
    needed = limit(engine, ARM, "evidence of the mean")
    assert needed == pytest.approx(np.log(4 / 0.025))


def standings(engine: Engine) -> dict[str, Any]:
    """Where the newest night found each arm."""
    readings = reporting.decision_history(engine, "btc")[0].inputs["readings"]
    return {row["policy"]: row["standing"] for row in readings}


def limit(engine: Engine, policy: str, check: str) -> float:
    reasons = reporting.decision_history(engine, "btc")[0].reasons[policy]
    return float(next(r["limit"] for r in reasons if r["check"] == check))


def test_experiments_from_before_the_ladder_have_its_defaults(engine: Engine) -> None:
    open_btc(engine)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE experiments SET rules = rules - 'ladder'"))
    with snapshot(engine) as connection:
        assert experiments.experiments.load(connection, "btc").rules.ladder.alpha == 0.05


def test_evidence_begins_anew_with_every_champion_and_a_discovery_earns_more(
    engine: Engine,
) -> None:
    open_btc(engine, challengers=arms(2), limits=Limits(proven_trades=30))
    market(engine, BETTER, arm_00=BEST)
    prove(engine, ARM, 0.1, days=40)
    scale(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE arms SET rung = 'eligible' WHERE rung = 'proven'"))
    later = NIGHT + timedelta(hours=1)
    assert promoting.promote(
        engine, name="btc", policy=PolicyName(ARM), reason="eligible", now=later, actor="test"
    )[1]
    promoted = reporting.decision_history(engine, "btc")[0]
    checks = {r["check"]: r["verdict"] for r in promoted.reasons[ARM]}
    assert checks["evidence of the mean"] == "PASS"
    promoting.roll_back(engine, name="btc", to=None, reason="no", now=later, actor="test")
    change(engine, ArmVerb.RESUME, ARM)
    joins(engine, "late", now=NIGHT + timedelta(days=1, hours=-1))
    scale(engine, now=NIGHT + timedelta(days=1))
    found = standings(engine)
    # What had been shown of it beside this champion led to where it failed.
    assert found[ARM]["mean_up"] == found[ARM]["days"] == 0
    assert found["late"]["family"] == {"generation": 2, "size": 1, "promotions": 1}


def joins(engine: Engine, name: str, *, now: datetime) -> None:
    policy = register(engine, name, "f" * 8, now=now)
    experiments.add_arm(engine, name="btc", policy=policy, mode=ArmMode.LIVE, now=now, actor="test")
