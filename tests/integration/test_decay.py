"""Decay in the ledger: an arm and a champion that earn less than they did, told and acted on."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from api_service import service
from evidence_history import cohorts, leave
from ledger import BEST, BETTER, NIGHT, arms, market, open_btc, promote, scale, traffic
from sqlalchemy import Engine

from bandit.core.model import Profile
from bandit.core.rederivation import Comparison
from bandit.service import explaining, reporting
from bandit.service.rederiving import rederive
from liveops.clock import VirtualClock
from liveops.explanation import explanation_lines
from liveops.report import advice_lines

ARM = "arm-00"
WAS, NOW = [0.1] * 60, [-0.07] * 20
LAST = date(2026, 6, 1)
LATER = NIGHT + timedelta(days=100)


def reasons(engine: Engine, policy: str = ARM) -> dict[str, Any]:
    """What the newest night's decision says of an arm, by check."""
    made = reporting.decision_history(engine, "btc")[0].reasons[policy]
    return {reason["check"]: reason for reason in made}


@pytest.mark.parametrize(
    ("profile", "after"), [(Profile.GUARDED, 66_666), (Profile.SEED_EXACT, 150_000)]
)
def test_a_proven_arm_that_decays_steps_down_and_the_night_follows_from_its_row(
    engine: Engine, profile: Profile, after: int
) -> None:
    open_btc(engine, challengers=arms(1), profile=profile)
    market(engine, BETTER, arm_00=BEST)
    leave(engine, ARM, cohorts(WAS + NOW, last=LAST))
    scale(engine, now=LATER)
    assert traffic(engine)[ARM] == after
    found = reasons(engine)
    assert found["evidence of the mean"]["verdict"] == "PASS"
    assert found["evidence against"]["verdict"] == "PASS"
    assert (found["decay"]["verdict"], found["decay"]["limit"]) == ("FAIL", 1000)
    assert "decay of the champion" not in found
    assert [night.comparison for night in rederive(engine, "btc")] == [Comparison.SAME]


def test_a_correction_takes_the_alarm_back(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    leave(engine, ARM, cohorts(WAS + NOW, last=LAST))
    scale(engine, now=LATER)
    assert reasons(engine)["decay"]["verdict"] == "FAIL"
    better = [0.17] * 20  # what the last twenty days lacked
    leave(engine, ARM, cohorts(better, last=LAST))
    scale(engine, now=LATER + timedelta(days=1))
    assert reasons(engine)["decay"]["verdict"] == "PASS"


def test_a_champion_that_decays_beside_its_hold_out_is_told_and_a_person_decides(
    engine: Engine,
) -> None:
    open_btc(engine, challengers=arms(2))
    promote(engine, ARM)
    leave(engine, "prod", cohorts([-0.02] * 60 + [0.1] * 20, last=LAST), champion=ARM)
    leave(engine, "arm-01", cohorts([0.1] * 20, last=LAST), champion=ARM)
    scale(engine, now=LATER)
    report = reporting.report(engine, "btc")
    assert report.record.experiment.champion == ARM
    advice = (
        "arm-00 earns less than it did beside its hold-out prod: "
        "`liveops rollback btc --to prod` is worth considering."
    )
    assert advice_lines(report) == [advice]
    told = " ".join(" ".join(explanation_lines(explaining.explain(engine, "btc", ARM))).split())
    assert advice in told
    assert "level of decay in days: 3.041e+05, at most 1000: no" in told
    stated = explaining.explain(engine, "btc", ARM).to_json()["hold_outs"]
    assert {policy: found["verdict"] for policy, found in stated.items()} == {"prod": "FAIL"}
    # Beside any other arm the question is whether that one is better.
    assert explaining.explain(engine, "btc", "prod").to_json()["hold_outs"] == {}
    assert "decay of the champion" not in reasons(engine, "arm-01")
    with service(engine, clock=VirtualClock(LATER)) as client:
        lines = client.get("/metrics").text.splitlines()
    levels = [line for line in lines if line.startswith("liveops_arm_decay_days{")]
    assert len(levels) == 3  # the champion's beside its hold-out, and each challenger's own
    [level] = [line for line in levels if 'of="champion"' in line]
    assert 'policy="prod"' in level
    assert float(level.split()[-1]) == pytest.approx(304068.5)


def test_what_a_night_found_of_an_earlier_champion_is_not_told_of_the_next(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    promote(engine, ARM)
    leave(engine, "prod", cohorts([0.1] * 40, last=LAST), champion=ARM)
    scale(engine, now=LATER)
    assert explaining.explain(engine, "btc", ARM).hold_outs
    promote(engine, "arm-01")
    assert not explaining.explain(engine, "btc", "arm-01").hold_outs
    assert not explaining.explain(engine, "btc", ARM).hold_outs
