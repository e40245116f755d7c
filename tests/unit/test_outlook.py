"""Forecasts: worked out by hand where evidence is steady, and silent where nothing can be said."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pytest

from bandit.core.cohorts import Cohort
from bandit.core.evidence import BETS, Tally
from bandit.core.ladder import ArmEvidence, Bar, Family, LadderRule, Standing
from bandit.core.model import Rung, Verdict
from bandit.core.outlook import (
    HORIZON_DAYS,
    Outlook,
    Path,
    Question,
    State,
    both_a_day,
    forecast,
    outlook,
)

FIRST = date(2026, 1, 1)
RULE = LadderRule()
ALONE = Family(generation=1, size=1, promotions=0)
NEEDED = math.log(1 / 0.025)


def cohort(day: int, mean: float, *, n: int = 40) -> Cohort:
    """A day of decisions, half of them the challenger's, all with the same scores."""
    tally = Tally.of(np.full((n, 2), mean), chosen=np.arange(n) % 2 == 0)
    return Cohort(day=FIRST + timedelta(days=day), tally=tally)


def days(*means: float) -> list[Cohort]:
    return [cohort(day, mean) for day, mean in enumerate(means)]


def by_hand(score: float, *, decided: int, a_day: float, needed: float = NEEDED) -> int:
    """The first day on which bets that win the same on each decision are worth enough."""
    for day in range(1, 10_000):
        decisions = decided + 2 * a_day * day  # the champion decides as often
        wealth = [(1 + bet * score) ** decisions for bet in BETS]
        if math.log(sum(wealth) / len(BETS)) >= needed:
            return day
    raise AssertionError("never")


@pytest.mark.parametrize(("score", "a_day"), [(0.02, 20.0), (0.02, 5.0), (0.03, 1.5)])
def test_steady_evidence_is_decided_on_the_day_it_is_worth_enough(
    score: float, a_day: float
) -> None:
    found = forecast(
        days(*[score] * 20), Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=a_day
    )
    expected = by_hand(score, decided=20 * 40, a_day=a_day)
    assert (found.soonest, found.expected, found.latest) == (expected,) * 3
    assert (found.decisions, found.days, found.state) == (400, 20, State.OPEN)
    assert found.decisions_in(found.expected) == math.ceil(expected * a_day)


def test_on_paper_every_pair_counts() -> None:
    known = days(*[0.02] * 20)
    routed, paper = (
        forecast(known, Question.BETTER, path=path, needed=NEEDED, a_day=10.0)
        for path in (Path.ROUTED, Path.PAPER)
    )
    assert (routed.decisions, paper.decisions) == (400, 800)
    # Ten of its own decisions come with as many of the champion's; of pairs, ten are ten.
    assert routed.expected == by_hand(0.02, decided=800, a_day=10.0)
    assert paper.expected == by_hand(0.02, decided=800, a_day=5.0)


def test_the_range_is_as_wide_as_evidence_is_unsteady() -> None:
    def ends(swing: float) -> list[float]:
        swings = [0.02 + swing * (-1) ** day for day in range(30)]
        found = forecast(days(*swings), Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=4.0)
        return [math.inf if end is None else end for end in (found.soonest, found.latest)]

    calm, wild, wildest = ends(0.0), ends(0.05), ends(0.3)
    assert calm[0] == calm[1]
    assert wildest[0] < wild[0] < calm[0]
    assert calm[1] < wild[1] < wildest[1] == math.inf


def test_the_ends_of_the_range_are_those_of_the_formula() -> None:
    scores = [0.02, 0.05, -0.01, 0.04, 0.03, 0.0, 0.06, 0.01, 0.03, 0.02]
    a_day = 6.0
    found = forecast(days(*scores), Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=a_day)
    n = 20 * len(scores)

    def log_e(day: int, sign: int) -> float:
        total = 0.0
        for bet in BETS:
            grown = [40 * math.log(1 + bet * score) for score in scores]
            pace = sum(grown) / n
            apart = sum((g - 20 * pace) ** 2 for g in grown) / n * len(scores) / (len(scores) - 1)
            more = a_day * day
            off = 1.64 * math.sqrt(apart * (more + more**2 / n))
            total += math.exp(sum(grown) + pace * more + sign * off)
        return math.log(total / len(BETS))

    for end, sign in ((found.soonest, 1), (found.expected, 0), (found.latest, -1)):
        assert end is not None
        assert log_e(end - 1, sign) < NEEDED <= log_e(end, sign)


@pytest.mark.parametrize("score", [0.0, -0.02])
def test_evidence_that_does_not_grow_may_never_be_decided(score: float) -> None:
    found = forecast(
        days(*[score] * 30), Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=20.0
    )
    assert (found.state, found.soonest, found.expected, found.latest) == (
        State.NEVER,
        None,
        None,
        None,
    )


def test_what_takes_longer_than_two_years_may_never_be_decided() -> None:
    known = days(*[0.02] * 20)
    told = [
        forecast(known, Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=a_day).state
        for a_day in (1.0, 0.2)
    ]
    assert told == [State.OPEN, State.NEVER]
    assert by_hand(0.02, decided=800, a_day=0.2) > HORIZON_DAYS


@pytest.mark.parametrize(
    ("known", "a_day", "state"),
    [
        (days(*[0.02] * 30), 0.0, State.IDLE),
        (days(*[0.02] * 6), 5.0, State.EARLY),
        ([], 5.0, State.EARLY),
        ([], 0.0, State.IDLE),
        (days(*[0.5] * 6), 0.0, State.REACHED),
    ],
)
def test_where_nothing_can_be_forecast_the_state_says_why(
    known: list[Cohort], a_day: float, state: State
) -> None:
    found = forecast(known, Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=a_day)
    assert (found.state, found.expected) == (state, None)
    json.dumps(found.to_json(), allow_nan=False)


def test_an_arm_that_has_decided_nothing_yet_has_no_pace() -> None:
    champion = Tally.of(np.full((40, 2), 0.01), chosen=np.zeros(40))
    known = [Cohort(day=FIRST + timedelta(days=day), tally=champion) for day in range(20)]
    found = forecast(known, Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=1.0)
    assert (found.decisions, found.state) == (0, State.EARLY)


def test_json_says_days_and_decisions() -> None:
    found = forecast(
        days(*[0.02] * 20), Question.BETTER, path=Path.ROUTED, needed=NEEDED, a_day=2.5
    )
    told = found.to_json()
    expected = by_hand(0.02, decided=800, a_day=2.5)
    assert told["state"] == "open"
    assert told["days_more"] == dict.fromkeys(("soonest", "expected", "latest"), expected)
    assert told["decisions_more"] == dict.fromkeys(
        ("soonest", "expected", "latest"), math.ceil(expected * 2.5)
    )


# How many come now


def test_the_newest_fortnight_says_how_many_come_now() -> None:
    known = [cohort(day, 0.0, n=40 if day < 30 else 10) for day in range(44)]
    assert both_a_day(known, until=FIRST + timedelta(days=43)) == 10.0
    assert both_a_day(known, until=FIRST + timedelta(days=46)) == pytest.approx(11 * 10 / 14)
    assert both_a_day(known, until=FIRST + timedelta(days=60)) == 0.0
    assert both_a_day([], until=FIRST) == 0.0


def test_days_before_an_arm_came_back_do_not_count() -> None:
    known = [cohort(0, 0.0), cohort(40, 0.0), cohort(42, 0.0)]
    assert both_a_day(known, until=FIRST + timedelta(days=43)) == pytest.approx(80 / 4)


# An arm's outlook


def evidence_of(
    routed: Sequence[Cohort], paired: Sequence[Cohort] | None = None, *, trades: int = 100
) -> ArmEvidence:
    return ArmEvidence(trades=trades, routed=routed, paired=paired, fill_gap=Verdict.PASS)


def seen(known: ArmEvidence, *, share: float = 0.25) -> Outlook:
    return outlook(known, family=ALONE, rule=RULE, share=share, until=FIRST + timedelta(days=29))


def test_an_outlook_starts_from_what_the_ladder_reads() -> None:
    known = evidence_of(days(*[0.01, 0.005] * 15), days(*[0.01] * 30))
    standing = Standing.of(known.sums, family=ALONE, rule=RULE)
    found = seen(known)
    bar = Bar.of(standing, rule=RULE)
    assert found.paper is not None
    assert (found.proof.evidence, found.proof.needed) == (standing.mean_up, bar.mean)
    assert (found.paper.evidence, found.paper.needed) == (standing.paper_up, bar.mean)
    assert (found.harm.evidence, found.harm.needed) == (standing.mean_down, bar.harm)
    assert (found.factor.evidence, found.factor.needed) == (standing.factor_up, bar.factor)
    assert bar.mean == math.log(1 / 0.0125)
    assert found.rung is Rung.UNPROVEN
    # 40 decisions a day of either, a quarter of them its own from now on.
    assert found.proof.a_day == 10.0
    assert found.paper.a_day == 40.0


def test_the_faster_path_is_named() -> None:
    slow, fast = days(*[0.005] * 30), days(*[0.01] * 30)
    assert seen(evidence_of(slow, fast)).faster is Path.PAPER
    assert seen(evidence_of(fast, slow), share=0.5).faster is Path.ROUTED
    assert seen(evidence_of(fast)).faster is Path.ROUTED
    assert seen(evidence_of(days(*[-0.01] * 30))).faster is None


def test_an_arm_without_traffic_is_decided_on_paper_or_not_at_all() -> None:
    known = days(*[0.005] * 30)
    found = seen(evidence_of(known, known), share=0.0)
    assert (found.proof.state, found.harm.state) == (State.IDLE, State.IDLE)
    assert found.faster is Path.PAPER


def test_an_arm_that_loses_is_shown_to_be_worse() -> None:
    found = seen(evidence_of(days(*[-0.01] * 30)))
    assert (found.proof.state, found.harm.state) == (State.NEVER, State.OPEN)
