"""What outcomes add as evidence, in the transaction that records them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from ledger import (
    CHALLENGER,
    NOON,
    UNGUARDED,
    assign,
    change,
    closed,
    feed,
    open_btc,
    record_all,
)
from sqlalchemy import Engine, text

from bandit.core import evidence
from bandit.core.evidence import Tally, Terms
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import Assignment
from bandit.core.outcomes import declined
from bandit.service import experiments, rebuilding, revising, scaling, scoring
from bandit.storage import evidence as stored
from bandit.storage.engine import snapshot, transaction

TERMS = Terms(unit=0.004, baseline=0.2, profit_factor=1.5, units={"ETHUSD": 0.02})
FIXED = NOON + timedelta(hours=1)
LATER = NOON + timedelta(hours=2)


def fix(engine: Engine, terms: Terms = TERMS, *, now: datetime = FIXED) -> None:
    with transaction(engine) as connection:
        record = experiments.experiments.load(connection, "btc")
        stored.fix_terms(connection, record.id, terms, fixed_at=now)


def tallies(engine: Engine, policy: str = CHALLENGER) -> dict[str, Tally]:
    """The stored cohorts of a challenger beside the champion, by day."""
    with snapshot(engine) as connection:
        record = experiments.experiments.load(connection, "btc")
        ids = {arm.place.policy: arm.id for arm in record.arms}
        found = stored.cohorts(connection, arm_id=ids[policy], champion_id=ids["prod"])
    return {cohort.day.isoformat(): cohort.tally for cohort in found}


def expected(
    made: Sequence[Assignment], returns: Sequence[str], *, share: float, terms: Terms = TERMS
) -> Tally:
    rewarded = evidence.rewards([float(r) / terms.unit for r in returns], terms)
    chosen = np.array([a.policy == CHALLENGER for a in made])
    return Tally.of(evidence.routed_scores(rewarded, chosen, share), chosen=chosen)


def drawn(engine: Engine, n: int, *, now: datetime, prefix: str = "u") -> list[Assignment]:
    return assign(engine, [f"{prefix}-{i}" for i in range(n)], now=now)


def test_outcomes_add_the_scores_of_the_champion_and_its_challenger(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    made = drawn(engine, 300, now=LATER)
    returns = [f"{(i % 7 - 2) / 1000}" for i in range(300)]
    batch = [closed(a, r) for a, r in zip(made, returns, strict=True)]
    record_all(engine, batch, now=LATER + timedelta(days=1))
    tally = expected(made, returns, share=0.1)
    assert 10 < tally.n_challenger < 60
    assert tallies(engine) == {"2026-03-01": tally}


def test_a_declined_decision_is_evidence_of_a_result_of_nothing(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    made = drawn(engine, 60, now=LATER)
    record_all(engine, [declined(a.id) for a in made], now=LATER)
    assert tallies(engine) == {"2026-03-01": expected(made, ["0"] * 60, share=0.1)}


def test_order_repetition_and_batches_change_nothing(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    made = drawn(engine, 90, now=LATER)
    returns = [f"{(i % 5 - 2) / 1000}" for i in range(90)]
    batch = [closed(a, r) for a, r in zip(made, returns, strict=True)]
    for some in (batch[60:], batch[:30], batch[20:70], batch):
        record_all(engine, some, now=LATER + timedelta(days=1))
    assert tallies(engine) == {"2026-03-01": expected(made, returns, share=0.1)}


def test_a_revision_takes_back_what_it_corrects(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    made = drawn(engine, 40, now=LATER)
    now = LATER + timedelta(days=1)
    record_all(engine, [closed(a, "-0.002") for a in made], now=now)
    corrected = ["0.003" if i % 3 else "-0.002" for i in range(40)]
    for assignment, earned in zip(made, corrected, strict=True):
        if earned != "-0.002":
            body = closed(assignment, earned)
            revising.revise(engine, body, reason="fill", now=now, actor="test")
    assert tallies(engine) == {"2026-03-01": expected(made, corrected, share=0.1)}
    # A trade that turns out to have been none stays evidence.
    revising.revise(engine, declined(made[0].id), reason="none", now=now, actor="test")
    corrected[0] = "0"
    assert tallies(engine) == {"2026-03-01": expected(made, corrected, share=0.1)}


def test_each_decision_is_judged_on_its_own_allocation_and_terms(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    first = drawn(engine, 50, now=LATER, prefix="a")
    change(engine, ArmVerb.THROTTLE)
    change(engine, ArmVerb.RESUME)  # at the minimum of 2 %
    second = drawn(engine, 50, now=LATER, prefix="b")
    other = Terms(unit=0.001, baseline=0.0, profit_factor=2.0)
    fix(engine, other, now=LATER + timedelta(hours=1))
    third = drawn(engine, 50, now=LATER + timedelta(hours=2), prefix="c")
    record_all(
        engine,
        [closed(a, "0.001") for a in (*first, *second, *third)],
        now=LATER + timedelta(days=1),
    )
    returns = ["0.001"] * 50
    assert tallies(engine)["2026-03-01"] == evidence.total(
        [
            expected(first, returns, share=0.1),
            expected(second, returns, share=0.02),
            expected(third, returns, share=0.02, terms=other),
        ]
    )


def test_cohorts_are_of_the_day_of_the_decision(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    made = {
        day: drawn(engine, 30, now=LATER + timedelta(days=day), prefix=f"d{day}") for day in (0, 1)
    }
    late = LATER + timedelta(days=3)
    for assignments in made.values():
        record_all(engine, [closed(a, "0.001") for a in assignments], now=late)
    assert tallies(engine) == {
        f"2026-03-0{day + 1}": expected(made[day], ["0.001"] * 30, share=0.1) for day in (0, 1)
    }


def test_decisions_before_there_were_terms_are_no_evidence(engine: Engine) -> None:
    open_btc(engine)
    made = drawn(engine, 30, now=NOON)
    fix(engine)
    record_all(engine, [closed(a, "0.001") for a in made], now=LATER)
    assert tallies(engine) == {}


def test_a_positions_next_decision_and_a_throttled_arm_are_no_evidence(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    change(engine, ArmVerb.HALT)
    made = drawn(engine, 30, now=LATER)
    record_all(engine, [closed(a, "0.001") for a in made], now=LATER + timedelta(days=1))
    assert tallies(engine) == {}


def test_a_night_fixes_terms_by_what_the_champion_has_earned(engine: Engine) -> None:
    open_btc(engine)
    now = feed(engine, "prod", ["0.006", "-0.002"] * 14)
    scaling.scale(engine, "btc", now=now + timedelta(days=1), actor="test")
    with snapshot(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM evidence_terms")).scalar_one() == 0
    now = feed(engine, "prod", ["0.006", "-0.002"] * 2, now=now + timedelta(hours=1), prefix="v")
    night = now + timedelta(days=2)
    scaling.scale(engine, "btc", now=night, actor="test")
    with snapshot(engine) as connection:
        record = experiments.experiments.load(connection, "btc")
        notice = night + timedelta(minutes=1)
        (fixed,) = stored.terms_between(connection, record.id, first=night, last=notice)
    assert fixed.fixed_at == notice
    assert fixed.terms.unit == pytest.approx(0.004)
    assert fixed.terms.units == {"BTCUSD": pytest.approx(0.004)}
    assert fixed.terms.baseline == pytest.approx(0.5)
    assert fixed.terms.profit_factor == pytest.approx(3.0)
    assert Decimal(str(fixed.terms.unit)) > 0
    assert scoring.terms_of({}) is None


# Counted again


def test_cohorts_are_what_their_outcomes_say_whatever_came_in_between(engine: Engine) -> None:
    open_btc(engine, rules=UNGUARDED)
    fix(engine)
    now = LATER + timedelta(days=1)
    made = drawn(engine, 80, now=LATER)
    record_all(engine, [closed(a, "-0.002") for a in made], now=now)
    change(engine, ArmVerb.THROTTLE)
    change(engine, ArmVerb.RESUME)
    more = drawn(engine, 80, now=LATER + timedelta(days=1), prefix="v")
    record_all(engine, [closed(a, "0.001") for a in more], now=now + timedelta(days=1))
    revising.revise(
        engine, closed(made[3], "0.004"), reason="fill", now=now + timedelta(days=1), actor="test"
    )
    assert len(tallies(engine)) == 2
    assert rebuilding.compare(engine, now=now + timedelta(days=2)).mismatches == ()


def test_a_changed_cohort_is_found_and_written_anew(engine: Engine) -> None:
    open_btc(engine)
    fix(engine)
    made = drawn(engine, 80, now=LATER)
    now = LATER + timedelta(days=1)
    record_all(engine, [closed(a, "0.002") for a in made], now=now)
    before = tallies(engine)
    with transaction(engine) as connection:
        connection.execute(
            text("UPDATE evidence_cohorts SET wealth[1] = wealth[1] + 1, n_champion = 7")
        )
        connection.execute(
            text(
                "INSERT INTO evidence_cohorts SELECT arm_id, champion_id, day + 1, 1, 1, scores,"
                " wealth FROM evidence_cohorts"
            )
        )
    found = rebuilding.repair(engine, now=now, actor="test")
    assert {str(m) for m in found.mismatches} == {
        f"btc/{CHALLENGER}: evidence_cohorts.{column}"
        for column in ("n_champion", "rows", "wealth")
    }
    assert tallies(engine) == before
    assert rebuilding.compare(engine, now=now).mismatches == ()
