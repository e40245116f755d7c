"""Rungs: each condition alone keeps an arm down, and levels spend no more than there is."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.cohorts import Cohort, CohortSums, worst_mean_score
from bandit.core.errors import InvalidInput
from bandit.core.evidence import Tally
from bandit.core.ladder import (
    ArmEvidence,
    Family,
    LadderRule,
    Standing,
    climb,
    decays,
    families,
    harm,
    matured,
)
from bandit.core.model import PolicyName, Rung, Verdict

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = LadderRule()
FIRST = Family(generation=1, size=1, promotions=0)


def cohort(day: int, mean: float, *, factor: float | None = None, n: int = 40) -> Cohort:
    """A day of decisions, half of them the challenger's, all with the same scores."""
    scores = np.full((n, 2), [mean, mean if factor is None else factor])
    chosen = np.arange(n) % 2 == 0
    return Cohort(day=date(2026, 1, 1) + timedelta(days=day), tally=Tally.of(scores, chosen=chosen))


def strong(**changes: object) -> ArmEvidence:
    """An arm that is eligible, but for `changes`."""
    known = ArmEvidence(
        trades=600,
        routed=[cohort(day, 0.1) for day in range(60)],
        paired=None,
        fill_gap=Verdict.INCONCLUSIVE,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def stand(known: ArmEvidence) -> Standing:
    return Standing.of(known.sums, family=FIRST, rule=RULE)


def rung(known: ArmEvidence, **family: int) -> Rung:
    standing = Standing.of(known.sums, family=replace(FIRST, **family), rule=RULE)
    return climb(standing, rule=RULE)[0]


def test_strong_arm_is_eligible_for_named_reasons() -> None:
    found, reasons = climb(stand(strong()), rule=RULE)
    assert found is Rung.ELIGIBLE
    assert {reason.check: reason.verdict for reason in reasons} == {
        "evidence of the mean": Verdict.PASS,
        "evidence of the profit factor": Verdict.PASS,
        "trades to be eligible": Verdict.PASS,
        "days with decisions": Verdict.PASS,
        "worst of 6 blocks": Verdict.PASS,
    }


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"trades": 499}, "trades to be eligible"),
        ({"routed": [cohort(day, 0.1, n=200) for day in range(29)]}, "days with decisions"),
        (
            {"routed": [cohort(day, 0.1, factor=-0.1) for day in range(60)]},
            "evidence of the profit factor",
        ),
        (
            {"routed": [cohort(day, 0.3 if day < 50 else -0.1) for day in range(60)]},
            "worst of 6 blocks",
        ),
    ],
    ids=lambda found: found if isinstance(found, str) else "",
)
def test_each_lasting_condition_alone_keeps_a_proven_arm_from_eligibility(
    changes: dict[str, object], failed: str
) -> None:
    found, reasons = climb(stand(strong(**changes)), rule=RULE)
    assert found is Rung.PROVEN
    assert [r.check for r in reasons if r.verdict is not Verdict.PASS] == [failed]


def test_no_evidence_is_unproven() -> None:
    assert rung(strong(routed=[])) is Rung.UNPROVEN
    assert rung(strong(routed=[cohort(day, -0.1) for day in range(60)])) is Rung.UNPROVEN


def test_a_larger_or_later_family_needs_more() -> None:
    known = strong(routed=[cohort(day, 0.02) for day in range(60)])
    evidence = stand(known).mean_up
    assert math.log(1 / 0.025) < evidence < math.log(1 / (0.05 / 90))
    assert rung(known) is not Rung.UNPROVEN
    assert rung(known, size=50) is Rung.UNPROVEN
    assert rung(known, generation=9) is Rung.UNPROVEN
    assert rung(known, generation=9, promotions=40) is not Rung.UNPROVEN


# Paper


def paper(mean: float) -> list[Cohort]:
    return [cohort(day, mean, n=50) for day in range(60)]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (Verdict.PASS, Rung.PROVEN),
        (Verdict.FAIL, Rung.UNPROVEN),
        (Verdict.INCONCLUSIVE, Rung.UNPROVEN),
    ],
)
def test_paper_alone_proves_where_it_agrees_with_live_and_never_more(
    gap: Verdict, expected: Rung
) -> None:
    weak = [cohort(day, 0.001) for day in range(60)]
    assert rung(strong(routed=weak, paired=paper(0.2), fill_gap=gap)) is expected


def test_two_ways_to_be_proven_share_the_level() -> None:
    just = strong(routed=[cohort(day, 0.0155) for day in range(60)])
    assert math.log(40) < stand(just).mean_up < math.log(80)
    assert rung(just) is not Rung.UNPROVEN
    assert rung(replace(just, paired=paper(-0.2))) is Rung.UNPROVEN


# Decay


def decaying(known: ArmEvidence, **rule: int) -> dict[str, Verdict]:
    return {r.check: r.verdict for r in decays(stand(known), rule=replace(RULE, **rule))}


def test_an_arm_decays_that_was_better_for_long_and_is_worse_now() -> None:
    was = [cohort(day, 0.1) for day in range(60)]
    now = [cohort(60 + day, -0.07) for day in range(20)]
    fallen = strong(routed=[*was, *now])
    assert harm(stand(fallen), rule=RULE).verdict is Verdict.PASS
    assert climb(stand(fallen), rule=RULE)[0] is not Rung.UNPROVEN
    assert decaying(strong(routed=was)) == {"decay": Verdict.PASS}
    assert decaying(fallen) == {"decay": Verdict.FAIL}
    assert decaying(fallen, decay_days=10**5) == {"decay": Verdict.PASS}


def test_a_champion_decays_beside_its_hold_out_alone() -> None:
    was = [cohort(day, -0.02) for day in range(60)]
    now = [cohort(60 + day, 0.1) for day in range(20)]
    known = strong(routed=[*was, *now])
    assert decaying(known) == {"decay": Verdict.PASS}
    assert decaying(replace(known, is_hold_out=True)) == {
        "decay": Verdict.PASS,
        "decay of the champion": Verdict.FAIL,
    }
    assert decaying(replace(known, routed=was, is_hold_out=True)) == {
        "decay": Verdict.FAIL,  # the hold-out's, which was worse from its first day
        "decay of the champion": Verdict.PASS,
    }


def test_days_without_decisions_do_not_count() -> None:
    days = [cohort(day, 0.0) for day in range(4)]
    pause = [Cohort(day=date(2026, 2, day), tally=Tally()) for day in range(1, 20)]
    assert stand(strong(routed=days)).decay == pytest.approx(4.0)
    assert stand(strong(routed=[*days, *pause])).decay == pytest.approx(4.0)


# Levels


@given(st.integers(1, 400))
def test_generations_never_spend_more_than_alpha(n: int) -> None:
    spent = math.fsum(
        Family(generation=g, size=3, promotions=0).level(RULE) for g in range(1, n + 1)
    )
    assert spent < RULE.alpha
    assert spent == pytest.approx(RULE.alpha * n / (n + 1))


def test_families_are_those_who_joined_on_one_day() -> None:
    def at(day: int, hour: int) -> datetime:
        return datetime(2026, 3, day, hour, tzinfo=UTC)

    joined = {
        PolicyName("a"): at(1, 9),
        PolicyName("b"): at(1, 23),
        PolicyName("c"): at(8, 0),
        PolicyName("d"): at(9, 0),
    }
    found = families(joined, promoted=[at(8, 23)])
    assert found == {
        "a": Family(generation=1, size=2, promotions=0),
        "b": Family(generation=1, size=2, promotions=0),
        "c": Family(generation=2, size=1, promotions=0),
        "d": Family(generation=3, size=1, promotions=1),
    }


# Cohorts


@pytest.mark.parametrize(("hours", "days"), [(0, 5), (12, 5), (13, 4), (36, 4), (72, 2)])
def test_a_day_matures_when_the_window_of_its_last_decision_has_closed(
    hours: int, days: int
) -> None:
    # Noon of the seventh day: the sixth is over for twelve hours.
    now = datetime(2026, 1, 7, 12, tzinfo=UTC)
    cohorts = [cohort(day, 0.1) for day in reversed(range(1, 9))]
    found = matured(cohorts, now=now, rule=LadderRule(attribution_hours=hours))
    assert [c.day.day for c in found] == list(range(2, 2 + days))


def test_blocks_hold_as_many_decisions_each() -> None:
    # Ten days of 10 and one of 100: the long day is a block, the short ones are the other.
    cohorts = [cohort(day, 0.1, n=10) for day in range(10)] + [cohort(10, -0.2, n=100)]
    assert worst_mean_score(CohortSums.of(cohorts), 2) == pytest.approx(-0.2)
    assert worst_mean_score(CohortSums.of(cohorts[:10]), 2) == pytest.approx(0.1)
    assert worst_mean_score(CohortSums.of(cohorts[:1]), 2) is None
    assert worst_mean_score(CohortSums(), 1) is None


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=40), st.integers(1, 6))
def test_the_worst_block_is_no_better_than_all_of_it(means: list[float], blocks: int) -> None:
    cohorts = [cohort(day, mean) for day, mean in enumerate(means)]
    worst = worst_mean_score(CohortSums.of(cohorts), blocks)
    assert worst is not None
    assert worst <= math.fsum(means) / len(means) + 1e-9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 0.0),
        ("alpha", 0.3),
        ("alpha", math.nan),
        ("attribution_hours", -1),
        ("trades", 0),
        ("days", 0),
        ("blocks", 0),
        ("decay_days", 9),
        ("unreported_max", 0.0),
        ("unreported_max", 0.6),
        ("unreported_max", math.nan),
    ],
)
def test_unlawful_rules_are_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        LadderRule(**{field: value})  # type: ignore[arg-type]
    assert refused.value.field == field
