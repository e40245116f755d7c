"""Every trial is in the ledger once, whatever became of it, and all of them are counted."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from backtest_trials import a_failure, a_trial, metrics, without_promise
from ledger import NOON, count
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.backtest import BacktestTrial
from bandit.core.errors import Conflict, InvalidInput
from bandit.core.model import PolicyKind
from bandit.core.multiplicity import Search
from bandit.service import trials
from bandit.service.ledger import ledger_digest


def put(engine: Engine, trial: BacktestTrial) -> tuple[BacktestTrial, bool]:
    return trials.record(engine, trial, now=NOON, actor="test")


def test_trial_comes_back_as_it_was_recorded(engine: Engine) -> None:
    third = a_trial([0.1, 0.2, -1 / 3], kind=PolicyKind.TABNET, seed=2**63 - 1)
    never_traded = a_trial([], seed=1)
    one_value = a_trial([0.0, 0.0], seed=2)
    lost = a_failure()
    made = [third, never_traded, one_value, lost]
    assert [put(engine, trial) for trial in made] == [(trial, True) for trial in made]
    assert trials.listed(engine, "drill") == made
    assert trials.listed(engine, "another") == []
    assert count(engine, "audit_log") == 4


def test_the_same_again_changes_nothing(engine: Engine) -> None:
    first = a_trial()
    put(engine, first)
    later = replace(first, started_at=NOON, finished_at=NOON + timedelta(minutes=1))
    assert put(engine, later) == (first, False)
    assert (count(engine, "backtest_trials"), count(engine, "audit_log")) == (1, 1)


def test_the_same_with_other_numbers_is_refused(engine: Engine) -> None:
    first = a_trial()
    put(engine, first)
    for other in ([0.02, -0.01, 0.0300000001], [0.02, -0.01], []):
        with pytest.raises(Conflict, match="other metrics; a trial never changes"):
            put(engine, replace(first, metrics=metrics(other)))
    assert trials.listed(engine, "drill") == [first]


def test_promise_is_no_other_number_where_the_ledger_kept_none(engine: Engine) -> None:
    old = without_promise(a_trial())
    put(engine, old)
    assert put(engine, a_trial()) == (old, False)
    with pytest.raises(Conflict, match="other metrics"):
        put(engine, replace(old, metrics=metrics([0.02, -0.01, 0.04])))
    assert trials.listed(engine, "drill") == [old]


def test_promise_that_was_kept_never_changes(engine: Engine) -> None:
    first = a_trial()
    put(engine, first)
    assert first.metrics is not None
    assert first.metrics.promise is not None
    other = replace(first.metrics.promise, slippage=0.0005)
    with pytest.raises(Conflict, match="other metrics"):
        put(engine, replace(first, metrics=replace(first.metrics, promise=other)))


def test_failed_attempt_counts_beside_the_one_that_succeeded(engine: Engine) -> None:
    for trial in (a_failure("killed"), a_failure("killed"), a_failure("no memory"), a_trial()):
        put(engine, trial)
    assert count(engine, "backtest_trials") == 3


@pytest.mark.parametrize(
    "change",
    [
        {"family": "other"},
        {"kind": PolicyKind.TABNET},
        {"spec": "d" * 64},
        {"data": "d" * 64},
        {"features": "d" * 64},
        {"window_first": NOON - timedelta(days=901)},
        {"window_last": NOON - timedelta(days=29)},
        {"seed": 8},
        {"steps": 250_001},
    ],
)
def test_anything_else_that_was_tried_is_another_trial(
    engine: Engine, change: dict[str, object]
) -> None:
    put(engine, a_trial())
    assert put(engine, a_trial(**change))[1]
    assert count(engine, "backtest_trials") == 2


def test_search_counts_all_families_and_the_trial_itself_once(engine: Engine) -> None:
    good, bad = a_trial([0.02, -0.01, 0.03]), a_trial([-0.02, 0.01, -0.03], family="other")
    put(engine, bad)
    put(engine, a_failure(family="third"))
    sharpe = good.annual_sharpe
    assert sharpe is not None
    before = trials.searched(engine, good)
    assert (before.n_trials, before.n_measured) == (3, 2)
    # Two ratios s and -s: a deviation of s √2.
    assert before.annual_deviation == pytest.approx(sharpe * math.sqrt(2), rel=1e-14)
    put(engine, good)
    assert trials.searched(engine, good) == before
    assert before == Search.of([-sharpe, None, sharpe])


def test_digest_of_the_ledger_covers_trials(engine: Engine) -> None:
    before = ledger_digest(engine)
    put(engine, a_trial())
    assert ledger_digest(engine) != before


def test_trial_of_the_future_is_refused(engine: Engine) -> None:
    late = replace(a_trial(), finished_at=NOON + timedelta(minutes=6))
    with pytest.raises(InvalidInput, match="finished_at"):
        put(engine, late)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "'x'"),
        ("sharpe", "NULL"),
        ("variance", "'NaN'"),
        ("n_trades", "NULL"),
        ("failure", "'lost'"),
        ("total_return", "-1.5"),
        ("drawdown_max_percent", "101"),
        ("verdict", "'MAYBE'"),
        ("n_wins", "3"),
        ("n_wins", "-1"),
        ("n_wins", "NULL"),
        ("trade_mean", "NULL"),
        ("trade_error", "NULL"),
        ("trade_error", "-0.1"),
        ("trade_slippage", "NULL"),
        ("trade_slippage", "-0.1"),
        ("started_at", "finished_at + interval '1 second'"),
    ],
)
def test_database_refuses_what_is_no_trial(engine: Engine, column: str, value: str) -> None:
    put(engine, a_trial())
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM backtest_trials LIMIT 0")).keys()
    chosen = {name: name for name in found if name != "ordinal"}
    chosen["id"] = f"'{'f' * 64}'"
    statement = "INSERT INTO backtest_trials ({}) SELECT {} FROM backtest_trials"
    with engine.begin() as connection:
        connection.execute(text(statement.format(", ".join(chosen), ", ".join(chosen.values()))))
    chosen["id"] = f"'{'e' * 64}'"
    chosen[column] = value
    with pytest.raises(IntegrityError, match="check"), engine.begin() as connection:
        connection.execute(text(statement.format(", ".join(chosen), ", ".join(chosen.values()))))
