"""Drift checks are in the ledger once a window, come back as they were, and never change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from drift_runs import SHA, a_check, a_run, an_encoder_check
from ledger import NOON, count, together
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.drift import DriftMetric, DriftRun
from bandit.core.errors import Conflict, InvalidInput
from bandit.core.model import PolicySha, Verdict
from bandit.service import drift
from bandit.service.ledger import ledger_digest

OTHER = PolicySha("0ddba115" * 8)


def put(engine: Engine, run: DriftRun) -> tuple[DriftRun, bool]:
    return drift.record(engine, run, now=max(NOON, run.checked_at), actor="test")


def audited(engine: Engine) -> list[dict[str, object]]:
    with engine.connect() as connection:
        statement = text("SELECT details FROM audit_log WHERE action = 'drift' ORDER BY id")
        return list(connection.execute(statement).scalars())


def test_run_comes_back_as_it_was_recorded(engine: Engine) -> None:
    unknown = replace(
        a_check("adx", metric=DriftMetric.KS),
        value=None,
        limit=None,
        p_value=None,
        n_effective=None,
        verdict=Verdict.INCONCLUSIVE,
        detail={
            "reason": "the reference is constant",
            "tiny": 5e-324,
            "huge": [1.7e308, -1.2345678e25],
        },
    )
    run = a_run(a_check(value=0.1 + 0.2, verdict=Verdict.FAIL), unknown, an_encoder_check())
    assert put(engine, run) == (run, True)
    assert drift.latest(engine) == [run]
    (row,) = audited(engine)
    assert (row["run"], row["checks"], row["drifted"]) == (run.run_id, 3, 1)


def test_the_same_again_changes_nothing(engine: Engine) -> None:
    run = a_run()
    put(engine, run)
    later = replace(run, checked_at=NOON + timedelta(minutes=1))
    assert put(engine, later) == (run, False)
    assert (count(engine, "drift_checks"), len(audited(engine))) == (2, 1)


def test_checks_of_a_window_may_come_in_parts(engine: Engine) -> None:
    first, second = a_run(a_check()), a_run(a_check(), a_check("adx"))
    put(engine, first)
    assert put(engine, second) == (second, True)
    assert [row["checks"] for row in audited(engine)] == [1, 1]


@pytest.mark.parametrize("change", [{"value": 0.26}, {"n": 901}, {"detail": {}}, {"p_value": None}])
def test_the_same_window_with_other_numbers_is_refused(
    engine: Engine, change: dict[str, object]
) -> None:
    run = a_run(a_check())
    put(engine, run)
    with pytest.raises(Conflict, match=r"psi of rsi of 5ca1ab1e5ca1 .* a check never changes"):
        put(engine, a_run(a_check(**change), a_check("adx")))
    assert drift.latest(engine) == [run]


def test_twice_at_once_is_once(engine: Engine) -> None:
    run = a_run()
    found = together(*[lambda: put(engine, run)] * 4)
    assert sorted(answer[1] for answer in found if isinstance(answer, tuple)) == [False] * 3 + [
        True
    ]
    assert (count(engine, "drift_checks"), len(audited(engine))) == (2, 1)


def test_latest_is_the_newest_window_of_each_artefact(engine: Engine) -> None:
    newest, other = a_run(hours=2), a_run(sha=OTHER, hours=1)
    # Recorded last, and of an older window.
    for run in (a_run(), newest, other, a_run(hours=1)):
        put(engine, run)
    assert drift.latest(engine) == [newest, other]
    assert drift.latest(engine, since=NOON + timedelta(hours=2)) == [newest]
    assert drift.latest(engine, since=NOON + timedelta(hours=3)) == []


def test_latest_is_bounded_whatever_was_checked(engine: Engine) -> None:
    runs = [a_run(sha=PolicySha(f"{i:08x}"), hours=i) for i in range(drift.ARTIFACTS_MAX + 2)]
    for run in runs:
        put(engine, run)
    assert drift.latest(engine) == runs[:1:-1]


def test_digest_of_the_ledger_covers_drift(engine: Engine) -> None:
    before = ledger_digest(engine)
    put(engine, a_run())
    assert ledger_digest(engine) != before


@pytest.mark.parametrize("field", ["window_to", "checked_at"])
def test_run_of_the_future_is_refused(engine: Engine, field: str) -> None:
    run = replace(a_run(), **{field: NOON + timedelta(minutes=6)})
    with pytest.raises(InvalidInput, match=field):
        drift.record(engine, run, now=NOON, actor="test")
    assert count(engine, "drift_checks") == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("run_id", "'x'"),
        ("sha", "'x'"),
        ("metric", "'mood'"),
        ("subject", "''"),
        ("value", "NULL"),
        ("value", "'NaN'"),
        ("limit_value", "NULL"),
        ("p_value", "1.1"),
        ("p_value", "'NaN'"),
        ("verdict", "'MAYBE'"),
        ("n", "-1"),
        ("n_effective", "-0.1"),
        ("window_to", "window_from - interval '1 second'"),
        ("checked_at", "'infinity'"),
        ("detail", "'[]'"),
        ("detail", "jsonb_build_object('a', repeat('x', 270000))"),
    ],
)
def test_database_refuses_what_is_no_check(engine: Engine, column: str, value: str) -> None:
    put(engine, a_run(a_check()))
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM drift_checks LIMIT 0")).keys()
    lawful = {name: name for name in found if name != "id"} | {"subject": "'adx'"}
    statement = "INSERT INTO drift_checks ({}) SELECT {} FROM drift_checks LIMIT 1"
    with engine.begin() as connection:
        connection.execute(text(statement.format(", ".join(lawful), ", ".join(lawful.values()))))
    forged = lawful | {"subject": "'atr'"} | {column: value}
    with pytest.raises(IntegrityError, match="check"), engine.begin() as connection:
        connection.execute(text(statement.format(", ".join(forged), ", ".join(forged.values()))))


def test_one_check_of_a_window_stands_once(engine: Engine) -> None:
    put(engine, a_run(a_check()))
    columns = "run_id, sha, metric, subject, value, limit_value, verdict, n, window_from,"
    columns += " window_to, checked_at, detail"
    statement = f"INSERT INTO drift_checks ({columns}) SELECT {columns} FROM drift_checks"
    with pytest.raises(IntegrityError, match="unique"), engine.begin() as connection:
        connection.execute(text(statement))
    assert drift.latest(engine)[0].sha == SHA
