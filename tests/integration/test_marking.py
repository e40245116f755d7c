"""Marks of open positions: forwards in time, counted once, and gone with their outcome."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from ledger import NOON, assign, closed, count, open_btc, record_all, together
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.account import AccountEquity
from bandit.core.marks import Mark, PositionMark
from bandit.core.model import Assignment
from bandit.core.outcomes import Outcome
from bandit.service import accounts, killing, marking, recording

LATER = NOON + timedelta(hours=2)


def equity(engine: Engine) -> AccountEquity:
    return accounts.named(engine, "usd", now=LATER).equity


def lost(made: Assignment, money: str) -> Outcome:
    return closed(made, "-0.000001", pnl=money)


def kills(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT cause FROM kill_events ORDER BY id")).scalars())


def mark(engine: Engine, made: Assignment, money: str, *, minutes: int = 1) -> object:
    at = NOON + timedelta(minutes=minutes)
    value = Mark(assignment_id=made.id, unrealised_pnl=Decimal(money), marked_at=at)
    (answer,) = marking.mark(engine, [value], now=LATER)
    return answer


def unrealised(engine: Engine) -> Decimal:
    return equity(engine).unrealised


def test_marks_go_forward_and_keep_the_worst(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    mark(engine, made, "-5", minutes=1)
    mark(engine, made, "-20", minutes=2)
    newest = mark(engine, made, "7", minutes=3)
    assert isinstance(newest, PositionMark)
    assert mark(engine, made, "-99", minutes=2) == newest
    assert mark(engine, made, "-99", minutes=3) == newest
    assert (newest.newest.unrealised_pnl, newest.worst_pnl) == (7, -20)
    assert newest.worst_at == NOON + timedelta(minutes=2)
    assert unrealised(engine) == 7


def test_outcome_takes_its_mark_with_it(engine: Engine) -> None:
    open_btc(engine)
    first, second = assign(engine, ["a", "b"])
    mark(engine, first, "-50")
    mark(engine, second, "30")
    record_all(engine, [lost(first, "-60")], now=LATER)
    held = equity(engine)
    assert (held.realised, held.unrealised) == (-60, 30)
    refused = mark(engine, first, "-55", minutes=9)
    assert "has its outcome" in str(refused)
    assert unrealised(engine) == 30
    assert count(engine, "marks") == 2


def test_marked_loss_kills_and_its_close_does_not_again(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    mark(engine, made, "-300")
    assert kills(engine) == []
    mark(engine, made, "-300.01", minutes=2)
    assert kills(engine) == ["daily_loss"]
    killing.release(engine, None, reason="seen", now=LATER, actor="alice")
    record_all(engine, [lost(made, "-300.01")], now=LATER)
    assert len(kills(engine)) == 2
    assert len(assign(engine, ["v"])) == 1


@pytest.mark.parametrize("attempt", range(10))
def test_mark_and_outcome_at_once_leave_nothing_unrealised(engine: Engine, attempt: int) -> None:
    open_btc(engine)
    [made] = assign(engine, [f"u{attempt}"])
    mark(engine, made, "-10")
    together(
        lambda: mark(engine, made, "-20", minutes=2),
        lambda: recording.record(engine, [lost(made, "-15")], now=LATER),
        lambda: mark(engine, made, "-30", minutes=3),
    )
    held = equity(engine)
    assert (held.realised, held.unrealised) == (-15, 0)


def test_marks_of_many_at_once_add_up(engine: Engine) -> None:
    open_btc(engine)
    made = assign(engine, [f"u{i}" for i in range(8)])
    moments = range(1, 6)
    together(
        *[lambda a=a: [mark(engine, a, str(-m), minutes=m) for m in moments] for a in made],
        lambda: [mark(engine, made[0], str(-m), minutes=m) for m in reversed(moments)],
    )
    assert unrealised(engine) == -5 * 8


def test_database_keeps_marks_going_forward(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    mark(engine, made, "-5")
    for statement in (
        "UPDATE marks SET marked_at = marked_at - interval '1 second'",
        "UPDATE marks SET marked_at = marked_at + interval '1 second', worst_pnl = -4",
        "DELETE FROM marks",
    ):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(text(statement))


def test_unknown_assignment_is_refused_alone(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    good = Mark(assignment_id=made.id, unrealised_pnl=Decimal(1), marked_at=NOON)
    bad = Mark(assignment_id=UUID(int=1), unrealised_pnl=Decimal(1), marked_at=NOON)
    answers = marking.mark(engine, [bad, good], now=LATER)
    assert [getattr(answer, "code", "marked") for answer in answers] == ["unknown_name", "marked"]
