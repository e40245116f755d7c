"""Outcomes are stored once, one by one or together, and the statistics with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from ledger import (
    CHALLENGER,
    NOON,
    assign,
    assign_to,
    change,
    closed,
    count,
    feed,
    open_btc,
    record_all,
    together,
)
from sqlalchemy import Engine, text

from bandit.core.errors import BanditError, Conflict, InvalidInput, UnknownName
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import UnitId
from bandit.core.outcomes import Flags, Outcome, declined, trade
from bandit.service import ledger, recording, reporting
from bandit.service.assigning import Router
from bandit.service.recording import BATCH_MAX, Recorded
from bandit.service.routing_table import Opportunity

LATER = NOON + timedelta(days=1)


def record(engine: Engine, *batch: Outcome, now: datetime = LATER) -> list[Recorded | BanditError]:
    return recording.record(engine, batch, now=now)


def statistics(engine: Engine) -> dict[str, tuple[int, int, int]]:
    """Outcomes, trades and expired outcomes of each arm that has some."""
    statement = text(
        "SELECT p.name, s.n_outcomes, s.n_trades, s.n_expired FROM arm_statistics s"
        " JOIN arms a ON a.id = s.arm_id JOIN policies p ON p.id = a.policy_id"
        " WHERE s.n_outcomes > 0"
    )
    with engine.connect() as connection:
        return {row[0]: tuple(row[1:]) for row in connection.execute(statement)}


def test_outcome_is_created_once_and_the_same_body_is_the_same_answer(engine: Engine) -> None:
    open_btc(engine)
    [assignment] = assign(engine, ["u"])
    [first] = record(engine, closed(assignment, "0.001", pnl="12.340"))
    assert first == Recorded(
        assignment_id=assignment.id,
        created=True,
        recorded_at=LATER,
        flags=Flags(unclaimed=True),
    )
    same = closed(assignment, "0.001", pnl="12.34")
    [again] = record(engine, same, now=LATER + timedelta(days=1))
    assert again == replace(first, created=False)
    assert statistics(engine) == {assignment.policy: (1, 1, 0)}


def test_another_body_conflicts_and_the_first_stands(engine: Engine) -> None:
    open_btc(engine)
    [assignment] = assign(engine, ["u"])
    record(engine, closed(assignment, "0.001"))
    before = ledger.ledger_digest(engine)
    for other in (closed(assignment, "0.002"), declined(assignment.id)):
        [answer] = record(engine, other)
        assert isinstance(answer, Conflict)
    assert ledger.ledger_digest(engine) == before


def test_declined_decision_is_an_outcome_but_no_trade(engine: Engine) -> None:
    open_btc(engine)
    [assignment] = assign(engine, ["u"])
    [answer] = record(engine, declined(assignment.id))
    assert isinstance(answer, Recorded)
    assert statistics(engine) == {assignment.policy: (1, 0, 0)}
    statement = text("SELECT pf_long, pf_long_state, window_from FROM arm_statistics")
    with engine.connect() as connection:
        assert set(connection.execute(statement)) == {(None, "no_trades", None)}
        assert connection.execute(text("SELECT count(*) FROM trades")).scalar_one() == 0


def test_position_opened_too_late_is_money_and_flagged(engine: Engine) -> None:
    open_btc(engine)
    punctual, late = assign(engine, ["punctual", "late"])
    answers = record(
        engine,
        replace(closed(punctual, "0.001"), opened_at=punctual.expires_at),
        replace(closed(late, "0.001"), opened_at=late.expires_at + timedelta(microseconds=1)),
    )
    assert [a.flags.expired for a in answers if isinstance(a, Recorded)] == [False, True]
    assert sum(expired for _, _, expired in statistics(engine).values()) == 1
    assert sum(trades for _, trades, _ in statistics(engine).values()) == 2


def test_outcome_of_a_halted_or_retired_arm_is_accepted(engine: Engine) -> None:
    open_btc(engine)
    first, second = assign_to(engine, CHALLENGER, 2)
    change(engine, ArmVerb.HALT)
    [answer] = record(engine, closed(first, "0.001"))
    assert isinstance(answer, Recorded)
    change(engine, ArmVerb.RETIRE)
    [answer] = record(engine, closed(second, "0.001"))
    assert isinstance(answer, Recorded)
    assert statistics(engine) == {CHALLENGER: (2, 2, 0)}


def test_bad_outcomes_take_nothing_of_the_batch_with_them(engine: Engine) -> None:
    open_btc(engine)
    good, settled, future, early = assign(engine, ["good", "settled", "future", "early"])
    record(engine, closed(settled, "0.001"))
    stranger = UUID(int=1)
    answers = record(
        engine,
        declined(stranger),
        closed(settled, "0.002"),
        closed(future, "0.001", minutes=24 * 60 + 6),
        replace(closed(early, "0.001"), opened_at=NOON - timedelta(minutes=6)),
        closed(good, "0.001"),
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [UnknownName, Conflict, InvalidInput, InvalidInput, Recorded]
    assert [a.field for a in answers if isinstance(a, InvalidInput)] == ["closed_at", "opened_at"]
    assert str(stranger) in str(answers[0])
    assert count(engine, "outcomes") == 2
    assert sum(trades for _, trades, _ in statistics(engine).values()) == 2


def test_batch_of_nothing_but_bad_outcomes_stores_nothing(engine: Engine) -> None:
    open_btc(engine)
    answers = record(engine, declined(UUID(int=1)), declined(UUID(int=1)))
    assert [type(answer) for answer in answers] == [UnknownName, UnknownName]
    assert statistics(engine) == {}


def test_outcome_twice_in_one_batch_is_created_by_the_first(engine: Engine) -> None:
    open_btc(engine)
    one, two = assign(engine, ["one", "two"])
    impossible = closed(two, "0.001", minutes=24 * 60 + 6)
    answers = record(
        engine,
        closed(one, "0.001"),
        closed(one, "0.001"),
        closed(one, "0.002"),
        # Refused, so it is not the first of its assignment.
        impossible,
        closed(two, "0.001"),
        closed(two, "0.001"),
    )
    created = [a.created if isinstance(a, Recorded) else type(a) for a in answers]
    assert created == [True, False, Conflict, InvalidInput, True, False]
    assert sum(trades for _, trades, _ in statistics(engine).values()) == 2


def test_amounts_at_the_border_of_their_domain_do_not_break_the_sums(engine: Engine) -> None:
    open_btc(engine)
    largest = "9999999999999999.99999999"
    made = assign_to(engine, CHALLENGER, 3)
    answers = record(engine, *(closed(a, "999.999999999999", pnl=largest) for a in made))
    assert all(isinstance(answer, Recorded) for answer in answers)
    with engine.connect() as connection:
        total = connection.execute(text("SELECT max(gross_profit) FROM arm_statistics"))
        assert total.scalar_one() == 3 * Decimal(largest)


@pytest.mark.parametrize("size", [0, BATCH_MAX + 1])
def test_batch_of_an_unlawful_size_is_refused(engine: Engine, size: int) -> None:
    with pytest.raises(InvalidInput, match=f"must be 1 to {BATCH_MAX} outcomes, found {size}"):
        record(engine, *[declined(UUID(int=1))] * size)


def test_naive_now_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match=r"^now: "):
        record(engine, declined(UUID(int=1)), now=NOON.replace(tzinfo=None))


def test_every_batch_enters_the_audit_log_with_the_digest_of_its_bodies(engine: Engine) -> None:
    open_btc(engine)
    made = assign(engine, [f"u-{i}" for i in range(5)])
    record(engine, *(closed(a, "0.001") for a in made[:3]))
    # Nothing new in it: no row.
    record(engine, *(closed(a, "0.001") for a in made[:3]))
    record(engine, *(closed(a, "0.001") for a in made[2:]), declined(UUID(int=1)))
    with engine.connect() as connection:
        batches = connection.execute(
            text(
                "SELECT id, actor, subject, details ->> 'rows', details ->> 'sha256' "
                "FROM audit_log WHERE action = 'outcomes' ORDER BY id"
            )
        ).all()
        assert [tuple(batch)[1:4] for batch in batches] == [
            ("recorder", "btc", "3"),
            ("recorder", "btc", "2"),
        ]
        for batch in batches:
            hashes = connection.execute(
                text("SELECT body_hash FROM outcomes WHERE audit_id = :id ORDER BY assignment_id"),
                {"id": batch[0]},
            ).scalars()
            assert hashlib.sha256(b"".join(map(bytes, hashes))).hexdigest() == batch[4]


# Races


def race(engine: Engine, bodies: Sequence[Outcome]) -> list[Recorded | BanditError]:
    """Record each body by a thread of its own, all at one moment."""
    return [answer[0] for answer in together(*(lambda o=o: record(engine, o) for o in bodies))]


def test_of_two_writers_of_one_assignment_exactly_one_creates(engine: Engine) -> None:
    open_btc(engine)
    for assignment in assign(engine, [f"u-{i}" for i in range(20)]):
        answers = race(engine, [closed(assignment, "0.001")] * 2)
        assert sorted(a.created for a in answers) == [False, True]
        assert answers[0].recorded_at == answers[1].recorded_at
    assert sum(trades for _, trades, _ in statistics(engine).values()) == 20


def test_of_two_bodies_at_once_one_wins_and_the_other_conflicts(engine: Engine) -> None:
    open_btc(engine)
    for assignment in assign(engine, [f"u-{i}" for i in range(20)]):
        answers = race(engine, [closed(assignment, result) for result in ("0.001", "0.002")])
        assert sorted(type(a).__name__ for a in answers) == ["Conflict", "Recorded"]
    assert sum(trades for _, trades, _ in statistics(engine).values()) == 20


def rows(engine: Engine, table: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT t::text FROM {table} t ORDER BY 1")).scalars())


def test_trade_of_an_unclaimed_decision_counts_and_is_flagged(engine: Engine) -> None:
    open_btc(engine)
    claimed, unasked, idle = assign(engine, ["claimed", "unasked", "idle"])
    Router(engine).claim(claimed.id, now=NOON)
    offered = Opportunity(unit_id=UnitId("alone"), instrument="BTCUSD", fallback_at=NOON)
    [alone] = Router(engine).assign("btc", [offered], now=NOON)
    batch = [closed(a, "0.001") for a in (claimed, unasked, alone)] + [declined(idle.id)]
    answers = [recording.record(engine, [outcome], now=LATER)[0] for outcome in batch]
    flags = [answer.flags.unclaimed for answer in answers if isinstance(answer, Recorded)]
    # Whoever could ask nobody, or opened nothing, had nothing to ask.
    assert flags == [False, True, False, False]
    found = reporting.report(engine, "btc").to_json()["arms"]
    assert sum(arm["unclaimed"] for arm in found) == 1
    [again] = recording.record(engine, [closed(unasked, "0.001")], now=LATER)
    assert again == replace(answers[1], created=False)


def test_overlapping_batches_at_once_end_like_one_after_the_other(engine: Engine) -> None:
    open_btc(engine)
    made = assign(engine, [f"u-{i:03}" for i in range(300)])
    outcomes = [
        closed(a, f"0.00{i % 7}" if i % 3 else f"-0.00{i % 5}", minutes=1 + (i * 37) % 300, pnl="0")
        for i, a in enumerate(made)
    ]
    # Four writers, each with two thirds of everything, in opposite orders and small batches.
    parts = [outcomes[:200], outcomes[100:], outcomes[::-1][:200], outcomes[::-1][100:]]

    def write(part: Sequence[Outcome]) -> int:
        answers = [a for i in range(0, len(part), 17) for a in record(engine, *part[i : i + 17])]
        return sum(a.created for a in answers)

    created = together(*(lambda p=part: write(p) for part in parts))
    assert sum(created) == 300
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE parallel AS SELECT * FROM arm_statistics"))
        connection.execute(text("CREATE TABLE kept AS SELECT * FROM equity_checkpoints"))
        connection.execute(text("CREATE TABLE days AS SELECT * FROM arm_days"))
    assert len(rows(engine, "kept")) == 1
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM outcomes"))
        connection.execute(text("DELETE FROM equity_checkpoints"))
        connection.execute(text("DELETE FROM arm_days"))
        connection.execute(text(FRESH))
    record_all(engine, outcomes, now=LATER)
    assert rows(engine, "arm_statistics") == rows(engine, "parallel")
    assert rows(engine, "equity_checkpoints") == rows(engine, "kept")
    assert rows(engine, "arm_days") == rows(engine, "days")


FRESH = """
UPDATE arm_statistics SET n_outcomes = 0, n_trades = 0, n_wins = 0, n_losses = 0,
  n_unclaimed = 0, gross_profit = 0,
  gross_loss = 0, return_gain = 0, return_loss = 0, return_squares = 0, equity = 1, equity_peak = 1,
  drawdown_max = 0, losing_streak = 0, losing_streak_max = 0, winning_streak = 0,
  winning_streak_max = 0, last_closed_at = NULL, last_unit_id = NULL
"""


# Late trades


def checkpoints(engine: Engine) -> dict[int, tuple[str, float]]:
    """The writing transaction and the equity of each checkpoint, by its number of trades."""
    statement = text("SELECT n_trades, xmin::text, equity FROM equity_checkpoints")
    with engine.connect() as connection:
        return {row[0]: (row[1], row[2]) for row in connection.execute(statement)}


def late_trade(engine: Engine, after_minutes: float) -> Outcome:
    [assignment] = assign_to(engine, "prod", 1, prefix=f"late-{after_minutes}")
    moment = NOON + timedelta(minutes=after_minutes)
    return trade(
        assignment.id,
        pnl=Decimal(-1),
        return_ratio=Decimal("-0.5"),
        opened_at=moment,
        closed_at=moment,
    )


def fold(engine: Engine) -> tuple[float, float, int]:
    statement = text(
        "SELECT equity, drawdown_max, losing_streak_max FROM arm_statistics ORDER BY n_trades DESC"
    )
    with engine.connect() as connection:
        row = connection.execute(statement).first()
    assert row is not None
    return tuple(row)


def test_late_trade_refolds_only_from_its_place_onward(engine: Engine) -> None:
    open_btc(engine, equity_fraction=0.5)
    feed(engine, "prod", ["0.001"] * 600)
    before = checkpoints(engine)
    assert sorted(before) == [256, 512]
    assert fold(engine)[0] == pytest.approx(1.3, rel=1e-12)

    record_all(engine, [late_trade(engine, 300.5)], now=LATER)
    after = checkpoints(engine)
    assert after[256] == before[256]
    # 511 winners of 0.0005 and the late loser of 0.25.
    assert after[512][1] == pytest.approx(1 + 511 * 0.0005 - 0.25, rel=1e-12)
    equity, drawdown, streak = fold(engine)
    assert equity == pytest.approx(1.05, rel=1e-12)
    assert drawdown == pytest.approx(100 * 0.25 / 1.15, rel=1e-12)
    assert streak == 1

    # Proof that nothing before the checkpoint is read again: a forged one is believed.
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE equity_checkpoints SET equity = 3, equity_peak = 3 WHERE n_trades = 256")
        )
    record_all(engine, [late_trade(engine, 301.5)], now=LATER)
    assert fold(engine)[0] == pytest.approx(3 + 344 * 0.0005 - 2 * 0.25, rel=1e-12)


def test_trade_before_every_checkpoint_folds_the_whole_history_again(engine: Engine) -> None:
    open_btc(engine, equity_fraction=0.5)
    feed(engine, "prod", ["0.001"] * 300)
    assert sorted(checkpoints(engine)) == [256]
    record_all(engine, [late_trade(engine, 0.5)], now=LATER)
    assert checkpoints(engine)[256][1] == pytest.approx(1 + 255 * 0.0005 - 0.25, rel=1e-12)
    assert fold(engine)[1] == pytest.approx(25.0, rel=1e-12)


def test_late_trade_older_than_the_window_leaves_the_window_alone(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, "prod", ["0.001", "-0.001"] * 100)
    statement = text(
        "SELECT pf_long, dd_long_percent, window_from, n_trades FROM arm_statistics"
        " ORDER BY n_trades DESC LIMIT 1"
    )
    with engine.connect() as connection:
        before = connection.execute(statement).one()
    record_all(engine, [late_trade(engine, 10.5)], now=LATER)
    with engine.connect() as connection:
        after = connection.execute(statement).one()
    assert tuple(after) == (*before[:3], 201)
    assert before.window_from == NOON + timedelta(minutes=51)
