"""Whatever evidence there is: ranges are in order, and a forecast moves the way it should."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.cohorts import Cohort
from bandit.core.evidence import Tally
from bandit.core.outlook import Forecast, Path, Question, State, forecast

FIRST = date(2026, 1, 1)
paths, questions = st.sampled_from(Path), st.sampled_from(Question)
rates = st.floats(0.05, 200.0)
bars = st.floats(0.5, 12.0)


@st.composite
def histories(draw: st.DrawFn) -> list[Cohort]:
    """Days of decisions that differ in number, in who decided, and in what they were worth."""
    found = []
    for day in range(draw(st.integers(0, 25))):
        n = draw(st.integers(1, 30))
        mean, spread = draw(st.floats(-0.2, 0.2)), draw(st.floats(0.0, 1.0))
        rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        scores = mean + spread * rng.standard_normal((n, 2))
        tally = Tally.of(scores, chosen=rng.random(n) < 0.3)
        found.append(Cohort(day=FIRST + timedelta(days=day), tally=tally))
    return found


def ends(found: Forecast) -> list[float]:
    named = (found.soonest, found.expected, found.latest)
    return [math.inf if end is None else end for end in named]


@given(histories(), questions, paths, bars, rates)
def test_the_range_is_in_order_and_lawful_json(
    known: list[Cohort], question: Question, path: Path, needed: float, a_day: float
) -> None:
    found = forecast(known, question, path=path, needed=needed, a_day=a_day)
    soonest, expected, latest = ends(found)
    assert 1 <= soonest <= expected <= latest
    assert (found.state is State.OPEN) == (expected < math.inf)
    json.dumps(found.to_json(), allow_nan=False)


@given(histories(), questions, paths, bars, rates, st.floats(1.0, 10.0))
def test_more_decisions_a_day_are_expected_to_decide_no_later(
    known: list[Cohort],
    question: Question,
    path: Path,
    needed: float,
    a_day: float,
    more: float,
) -> None:
    slow, fast = (
        forecast(known, question, path=path, needed=needed, a_day=rate)
        for rate in (a_day, a_day * more)
    )
    assert ends(fast)[1] <= ends(slow)[1]


@given(histories(), questions, paths, bars, rates, st.floats(0.0, 5.0))
def test_a_higher_bar_is_reached_no_sooner(
    known: list[Cohort],
    question: Question,
    path: Path,
    needed: float,
    a_day: float,
    more: float,
) -> None:
    low, high = (
        forecast(known, question, path=path, needed=bar, a_day=a_day)
        for bar in (needed, needed + more)
    )
    if low.state is not State.REACHED:
        assert all(a <= b for a, b in zip(ends(low), ends(high), strict=True))
