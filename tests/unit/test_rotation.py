"""When models are due, what the next ones must show, and where they go."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from backtest_trials import a_trial
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.backtest import BacktestMetrics
from bandit.core.errors import InvalidInput
from bandit.core.model import NAME_LENGTH_MAX, PolicyName, Profile, Verdict, checked_name
from bandit.core.profit_factor import profit_factor
from bandit.core.rotation import (
    Contest,
    Model,
    Placing,
    RotationRule,
    gates,
    is_due,
    placing,
    successor_name,
    triggers,
)
from bandit.core.verdicts import overall

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULE = RotationRule()


def a_model(*, days: float = 1.0, trades: int = 100, win_rate: float | None = 0.6) -> Model:
    known = NOW - timedelta(days=days)
    return Model(policy=PolicyName("dqn"), knows_until=known, trades=trades, win_rate=win_rate)


@pytest.mark.parametrize(
    ("model", "due"),
    [
        (a_model(days=30), False),
        (a_model(days=30.01), True),
        (a_model(win_rate=0.48), False),
        (a_model(win_rate=0.4799), True),
        (a_model(trades=29, win_rate=0.1), False),
        (a_model(trades=30, win_rate=0.1), True),
        (a_model(trades=0, win_rate=None), False),
    ],
    ids=["30 days", "older", "at 48 %", "below", "too few", "just enough", "no trades"],
)
def test_age_and_win_rate_make_a_model_due(model: Model, due: bool) -> None:
    assert is_due(triggers(model, rule=RULE, now=NOW)) is due


def measured() -> BacktestMetrics:
    found = a_trial().metrics
    assert found is not None
    factor = profit_factor([0.02] * 40 + [-0.01] * 30)
    moments = replace(found.moments, mean=0.004, variance=0.0001)
    return replace(
        found,
        moments=moments,
        profit_factor=factor,
        drawdown_max_percent=20.0,
        promise=None,
    )


AHEAD = Contest(days=7.0, new_return=0.02, present_return=0.01)


def test_what_holds_every_limit_passes() -> None:
    found = gates(measured(), AHEAD, rule=RULE)
    assert overall(found) is Verdict.PASS, found
    assert [reason.check for reason in found] == [
        "trades",
        "sharpe_annual",
        "profit_factor",
        "drawdown_max_percent",
        "return beside the present model",
    ]


@pytest.mark.parametrize(
    ("metrics", "contest", "verdict"),
    [
        (replace(measured(), drawdown_max_percent=20.01), AHEAD, Verdict.FAIL),
        (
            replace(measured(), profit_factor=profit_factor([0.02] * 70)),
            AHEAD,
            Verdict.INCONCLUSIVE,
        ),
        (
            replace(measured(), profit_factor=profit_factor([0.02] * 25 + [-0.01] * 24)),
            AHEAD,
            Verdict.FAIL,
        ),
        (
            replace(measured(), profit_factor=profit_factor([0.01] * 40 + [-0.01] * 40)),
            AHEAD,
            Verdict.FAIL,
        ),
        (measured(), replace(AHEAD, new_return=0.01), Verdict.FAIL),
        (measured(), replace(AHEAD, days=6.9), Verdict.INCONCLUSIVE),
        (measured(), replace(AHEAD, new_return=math.nan), Verdict.INCONCLUSIVE),
        (measured(), None, Verdict.INCONCLUSIVE),
    ],
    ids=["deep", "no losses", "few trades", "even", "no better", "short", "not a number", "none"],
)
def test_what_breaks_one_limit_or_is_not_known_does_not(
    metrics: BacktestMetrics, contest: Contest | None, verdict: Verdict
) -> None:
    assert overall(gates(metrics, contest, rule=RULE)) is verdict


def test_outperformance_may_be_left_out() -> None:
    rule = replace(RULE, outperforms=False)
    assert overall(gates(measured(), None, rule=rule)) is Verdict.PASS


@pytest.mark.parametrize("profile", Profile, ids=str)
@pytest.mark.parametrize("verdict", Verdict, ids=str)
@pytest.mark.parametrize("replaces", [True, False], ids=["replaces", "joins"])
def test_only_what_passed_gets_a_place_and_only_seed_exact_replaces(
    profile: Profile, verdict: Verdict, replaces: bool
) -> None:
    found = placing(verdict, profile=profile, replaces=replaces)
    if verdict is not Verdict.PASS or profile is Profile.OBSERVE:
        assert found is Placing.KEPT_OUT
    elif profile is Profile.SEED_EXACT and replaces:
        assert found is Placing.REPLACED
    else:
        assert found is Placing.JOINED


@given(
    st.from_regex(r"\A[a-z0-9][a-z0-9_.-]{0,62}\Z"), st.dates(date(2000, 1, 1), date(2099, 1, 1))
)
def test_a_successor_has_a_lawful_name_and_its_own_has_the_same_stem(name: str, day: date) -> None:
    first = successor_name(PolicyName(name), day)
    checked_name(first)
    assert len(first) <= NAME_LENGTH_MAX
    assert successor_name(first, day) == first
    later = successor_name(first, day + timedelta(days=7))
    assert later.rpartition("-")[0] == first.rpartition("-")[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"age_max": timedelta(0)},
        {"win_rate_min": 1.0},
        {"drawdown_max_percent": 0.0},
        {"profit_factor_min": -1.0},
        {"trades_min": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_rule_that_decides_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        RotationRule(**wrong)  # type: ignore[arg-type]
