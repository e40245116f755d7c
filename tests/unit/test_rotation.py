"""When models are due, what the next ones must show, and where they go."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

import pytest
from backtest_trials import a_trial
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.backtest import BacktestMetrics
from bandit.core.errors import InvalidInput
from bandit.core.model import (
    NAME_LENGTH_MAX,
    PolicyName,
    PolicySha,
    Profile,
    Verdict,
    checked_name,
)
from bandit.core.profit_factor import profit_factor
from bandit.core.rotation import (
    Contest,
    Model,
    Placing,
    RotationRule,
    gates,
    is_due,
    placing,
    successor_names,
    triggers,
)
from bandit.core.verdicts import overall

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULE = RotationRule()
DAY = date(2026, 11, 22)


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


def sha_of(name: str) -> PolicySha:
    return PolicySha(hashlib.sha256(name.encode()).hexdigest())


def named(
    names: Iterable[str],
    day: date = DAY,
    taken: Mapping[PolicyName, PolicyName | None] = MappingProxyType({}),
) -> dict[PolicyName, PolicyName]:
    models = {PolicyName(name): sha_of(name) for name in names}
    return successor_names(models, day, taken=taken)


def test_models_of_one_stem_get_names_of_their_own() -> None:
    found = named(["dqn-a", "dqn-a-20261101", "dqn-a-r5", "dqn-a-20261101-r7", "other"])
    assert found == {
        "dqn-a": f"dqn-a-{sha_of('dqn-a')[:8]}-20261122",
        "dqn-a-20261101": f"dqn-a-{sha_of('dqn-a-20261101')[:8]}-20261122",
        "dqn-a-r5": "dqn-a-r5-20261122",
        "dqn-a-20261101-r7": "dqn-a-r7-20261122",
        "other": "other-20261122",
    }


def test_a_name_that_is_taken_is_given_again_only_to_the_same_parent() -> None:
    mine = PolicyName("dqn")
    plain = PolicyName("dqn-20261122")
    other = PolicyName(f"dqn-{sha_of('dqn')[:8]}-20261122")
    assert named(["dqn"], taken={plain: mine}) == {mine: plain}
    for parent in (None, PolicyName("else")):
        assert named(["dqn"], taken={plain: parent}) == {mine: other}
    # Made under the other name before its rival went: it goes on under that.
    assert named(["dqn"], taken={other: mine}) == {mine: other}
    # A name that is the day's already is nobody's successor.
    again = named([plain], taken={plain: None})
    assert again == {plain: f"dqn-{sha_of(plain)[:8]}-20261122"}


_NAMES = st.one_of(
    st.from_regex(r"\A[a-z0-9][a-z0-9_.-]{0,62}\Z"),
    st.from_regex(r"\A(a|dqn)(-r[1-3])?(-2026110[1-3])?(-r[1-3])?\Z"),
    st.integers(1, 20).map(lambda n: "a" * 50 + "b" * min(n, 13)),
)


@given(st.sets(_NAMES, min_size=1, max_size=8), st.dates(date(2000, 1, 1), date(2099, 1, 1)))
def test_distinct_models_get_distinct_lawful_names_that_stay(names: set[str], day: date) -> None:
    registered: dict[PolicyName, PolicyName | None] = dict.fromkeys(map(PolicyName, names))
    first = named(names, day, registered)
    assert len({*first.values()} | names) == 2 * len(names)
    for name in first.values():
        checked_name(name)
        assert len(name) <= NAME_LENGTH_MAX
        assert name.endswith(f"-{day:%Y%m%d}")
    made = {new: parent for parent, new in first.items()}
    assert named(names, day, {**registered, **made}) == first
    # Also when only some were made, and some models are gone meanwhile.
    some = dict(sorted(made.items())[::2])
    later = named(some.values(), day, {**registered, **some})
    assert later == {parent: new for new, parent in some.items()}
    rest = named(names, day, {**registered, **some})
    assert len({*rest.values()}) == len(names)


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
