"""What a picture shows of an experiment follows from the ledger, worked out by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from evidence_history import prove
from ledger import (
    BEST,
    BETTER,
    EVEN,
    NIGHT,
    NOON,
    arms,
    change,
    feed,
    market,
    open_btc,
    open_eth,
    promote,
    scale,
)
from sqlalchemy import Engine, text

from bandit.core.errors import UnknownName
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmStatus, PolicyName, Rung
from bandit.service import charting, reporting
from bandit.service.charting import ArmLife, Life

ARM = PolicyName("arm-00")
CHAMPION = PolicyName("prod")
FIRST_DAY_ENDED = datetime(2026, 3, 2, tzinfo=UTC)


def trading(engine: Engine) -> None:
    open_btc(engine, challengers=arms(1))
    market(engine, BETTER, arm_00=BEST)


def of(life: Life, policy: str) -> ArmLife:
    return next(arm for arm in life.arms if arm.policy == policy)


def test_traffic_is_that_of_every_version(engine: Engine) -> None:
    trading(engine)
    scale(engine)
    change(engine, ArmVerb.HALT, ARM, now=NIGHT + timedelta(hours=1))
    life = charting.life(engine, "btc")
    assert [(v.since, v.champion, dict(v.parts)) for v in life.versions] == [
        (NOON, "prod", {"prod": 0.9, ARM: 0.1}),
        (NIGHT, "prod", {"prod": 0.85, ARM: 0.15}),
        (NIGHT + timedelta(hours=1), "prod", {"prod": 1.0, ARM: 0.0}),
    ]
    assert (life.opened_at, life.until) == (NOON, NIGHT + timedelta(hours=1))
    assert [(arm.policy, arm.status) for arm in life.arms] == [
        ("prod", ArmStatus.ACTIVE),
        (ARM, ArmStatus.HALTED),
    ]


def test_money_is_summed_by_day_arms_at_nominal_size_and_the_account_as_it_was(
    engine: Engine,
) -> None:
    trading(engine)
    life = charting.life(engine, "btc")
    # Thirty trades of 30 thousandths together, a tenth of the equity each.
    earned = of(life, ARM).earned
    assert [(p.at, round(p.earned, 12)) for p in earned] == [(NOON, 0), (FIRST_DAY_ENDED, 0.003)]
    feed(engine, "prod", EVEN[1:2], now=NOON + timedelta(days=1), prefix="later")
    life = charting.life(engine, "btc")
    days = [FIRST_DAY_ENDED + timedelta(days=i) for i in (0, 1)]
    # 15 thousandths, then one lost; in money 15 and 30, then 1 lost, of 10,000.
    assert [(p.at, round(p.earned, 12)) for p in of(life, CHAMPION).earned][1:] == [
        (days[0], 0.0015),
        (days[1], 0.0014),
    ]
    assert [(p.at, round(p.earned, 12)) for p in life.earned] == [
        (NOON, 0),
        (days[0], 0.0045),
        (days[1], 0.0044),
    ]
    assert life.until == days[1]


def test_the_account_is_that_of_all_its_experiments(engine: Engine) -> None:
    trading(engine)
    open_eth(engine)
    assert round(charting.life(engine, "btc").earned[-1].earned, 12) == 0.0045 / 2
    assert round(charting.life(engine, "eth").earned[-1].earned, 12) == 0.0045 / 2
    assert charting.life(engine, "eth").nights == 0


def test_nights_tell_evidence_proof_and_rung(engine: Engine) -> None:
    trading(engine)
    scale(engine)
    prove(engine, ARM, 0.1)
    scale(engine, now=NIGHT + timedelta(days=1))
    life = charting.life(engine, "btc")
    first, second = of(life, ARM).nights
    # The first family of one arm spends half of 5 percent; nobody tells results on paper.
    assert first.proof == second.proof == pytest.approx(math.log(1 / 0.025))
    assert (first.at, first.live, first.paper, first.rung) == (NIGHT, 0.0, None, Rung.UNPROVEN)
    stored = reporting.decision_history(engine, "btc", newest=1)[0].inputs["readings"]
    [standing] = [row["standing"] for row in stored if row["policy"] == ARM]
    assert second.live == standing["mean_up"] > second.proof
    assert second.rung is Rung.PROVEN
    assert of(life, CHAMPION).nights == ()
    assert life.nights == 2
    assert life.successions == ()


def test_another_champion_is_told_with_its_version(engine: Engine) -> None:
    trading(engine)
    promote(engine, ARM)
    life = charting.life(engine, "btc")
    (version,) = life.successions
    assert (version.since, version.champion) == (NOON + timedelta(hours=2), ARM)
    scale(engine)
    assert of(charting.life(engine, "btc"), CHAMPION).nights[0].live == 0


def test_nights_that_read_nothing_or_other_numbers_are_left_out(engine: Engine) -> None:
    trading(engine)
    scale(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE bandit_arms SET traffic_allocation = 0.05 WHERE traffic_allocation = 0.15")
        )
    # By hand, so on the day of the database's clock.
    assert len(charting.life(engine, "btc").versions) == 3
    scale(engine, now=NIGHT + timedelta(days=1))
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text("UPDATE decisions SET inputs = inputs #- '{readings,1,standing,family}'"
                 " WHERE decided_at = :night"),
            {"night": NIGHT},
        )  # fmt: skip
    (seen,) = of(charting.life(engine, "btc"), ARM).nights
    assert seen.at == NIGHT + timedelta(days=1)


def test_a_report_and_its_picture_are_of_one_moment(engine: Engine) -> None:
    trading(engine)
    scale(engine)
    found = charting.illustrated(engine, "btc")
    assert found.report.to_json() == reporting.report(engine, "btc").to_json()
    assert found.life == charting.life(engine, "btc")


def test_unknown_experiment_is_told_with_the_known_ones(engine: Engine) -> None:
    open_btc(engine)
    for read in (charting.life, charting.illustrated):
        with pytest.raises(UnknownName, match="no experiment is registered as 'eth'; known: btc"):
            read(engine, "eth")
