"""Whatever came in whichever way, counting it all again gives what is stored; forgery shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from ledger import CHALLENGER, NOON, open_btc, set_budget
from shadow_history import on_paper, tell
from sqlalchemy import Engine, text

from bandit.core.model import Assignment, PolicyName, UnitId
from bandit.core.outcomes import Outcome, declined, trade
from bandit.service import rebuilding, recording, revising
from bandit.service.assigning import Router
from bandit.service.recording import Recorded
from bandit.service.routing_table import Opportunity

COUNT = 700
LATER = NOON + timedelta(days=30)


def drawn(rng: np.random.Generator, assignment: Assignment) -> Outcome:
    if rng.random() < 0.1:
        return declined(assignment.id)
    earned = Decimal(int(rng.integers(-(10**10), 10**10))).scaleb(-12)
    return trade(
        assignment.id,
        pnl=(earned * 10_000).quantize(Decimal("1e-8")),
        return_ratio=earned,
        opened_at=NOON + timedelta(seconds=int(rng.choice([0, 3600]))),
        closed_at=NOON + timedelta(hours=2, minutes=15 * int(rng.integers(COUNT))),
        fees=Decimal(int(rng.integers(0, 10**9))).scaleb(-8) if rng.random() < 0.5 else None,
    )


def stream(engine: Engine, rng: np.random.Generator) -> None:
    """Outcomes in random order, batches and repetition, corrections between; then some paper."""
    units = [
        Opportunity(unit_id=UnitId(f"u-{i:04}"), instrument=f"X{i % 3}USD") for i in range(COUNT)
    ]
    made = Router(engine).assign("btc", units, now=NOON)
    outcomes = [drawn(rng, assignment) for assignment in made]
    order = rng.permutation(COUNT)
    start, told = 0, list[Assignment]()
    while start < COUNT:
        stop = start + int(rng.integers(1, 120))
        chosen = [int(i) for i in order[start:stop]]
        told += [made[i] for i in chosen]
        again = [int(i) for i in rng.choice(order[:stop], size=len(chosen) // 5)]
        answers = recording.record(engine, [outcomes[i] for i in [*chosen, *again]], now=LATER)
        assert all(isinstance(answer, Recorded) for answer in answers)
        for i in rng.integers(len(told), size=int(rng.integers(0, 8))):
            corrected = drawn(rng, told[int(i)])
            revising.revise(engine, corrected, reason="drill", now=LATER, actor="test")
        start = stop
    paper = [
        on_paper(assignment, policy, f"{Decimal(int(steps)).scaleb(-12):f}")
        for assignment in made[:100]
        for policy, steps in zip(
            ("prod", CHALLENGER), rng.integers(-(10**10), 10**10, size=2), strict=True
        )
    ]
    tell(engine, paper, now=LATER)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_stream_is_stored_as_it_is_counted_again(engine: Engine, seed: int) -> None:
    open_btc(engine, equity_fraction=0.3)
    set_budget(engine, "10000000")
    stream(engine, np.random.default_rng(seed))
    found = rebuilding.compare(engine, now=LATER)
    assert (found.arms, found.mismatches) == (2, ())
    with engine.connect() as connection:
        counts = "SELECT (SELECT count(*) FROM outcome_revisions), (SELECT count(*) FROM {})"
        corrections, kept = connection.execute(text(counts.format("equity_checkpoints"))).one()
    assert corrections > 20
    assert kept >= 2


# The keys of each table, with the column as which a forged one shows, or a row too many and one
# too few.
KEYS = {
    "arm_statistics": {},
    "arm_days": {"day": "day", "instrument": "day"},
    "equity_checkpoints": {"closed_at": "closed_at", "unit_id": "unit_id"},
    "paper_days": {"day": "rows"},
}
# What a forger writes in a column that is not a key, by its type.
FORGED = {
    "bigint": "coalesce({0}, 0) + 1",
    "numeric": "{0} + 0.00000001",
    "double precision": "coalesce({0}, 0) + 0.5",
    "text": "'forged'",
    "timestamp with time zone": "coalesce({0}, '2026-03-01Z') - interval '1 second'",
    "date": "{0} - 1000",  # its key: the day before may be taken
}
COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = :table AND column_name <> 'arm_id'
"""


@pytest.mark.parametrize("table", KEYS)
def test_forgery_in_any_column_is_named_and_repaired(engine: Engine, table: str) -> None:
    open_btc(engine, equity_fraction=0.3)
    stream(engine, np.random.default_rng(4))
    with engine.connect() as connection:
        columns = dict(map(tuple, connection.execute(text(COLUMNS), {"table": table})))
    assert len(columns) >= 7
    before = rows(engine)
    forget_checks(engine, table)
    others = columns.keys() - KEYS[table].keys()
    for forged, shown in [*(({key}, {as_}) for key, as_ in KEYS[table].items()), (others, others)]:
        forge(engine, table, {name: FORGED[columns[name]].format(name) for name in forged})
        found = rebuilding.compare(engine, now=LATER).mismatches
        assert shown <= {m.column for m in found}, shown - {m.column for m in found}
        assert {(m.experiment, m.policy, m.table) for m in found} == {("btc", "prod", table)}
        assert rebuilding.repair(engine, now=LATER, actor="test").mismatches == found
        assert rows(engine) == before
        assert rebuilding.newest_mismatches(engine) == 0
    with engine.connect() as connection:
        audited = connection.execute(
            text("SELECT DISTINCT actor, subject FROM audit_log WHERE action = 'rebuild'")
        ).all()
    assert audited == [("test", "btc/prod")]


@pytest.mark.parametrize("table", ["arm_days", "equity_checkpoints", "paper_days"])
@pytest.mark.parametrize("change", ["missing", "too many"])
def test_row_too_few_or_too_many_is_named_and_repaired(
    engine: Engine, table: str, change: str
) -> None:
    open_btc(engine, equity_fraction=0.3)
    stream(engine, np.random.default_rng(5))
    before = rows(engine)
    chosen = f"ctid = (SELECT ctid FROM {table} WHERE arm_id = 1 LIMIT 1)"
    with engine.begin() as connection:
        if change == "missing":
            connection.execute(text(f"DELETE FROM {table} WHERE {chosen}"))
        else:
            copied = text(f"INSERT INTO {table} SELECT * FROM copied")
            connection.execute(
                text(f"CREATE TEMPORARY TABLE copied AS SELECT * FROM {table} WHERE {chosen}")
            )
            connection.execute(text(f"UPDATE copied SET {EXTRA[table]}"))
            connection.execute(copied)
    found = rebuilding.repair(engine, now=LATER, actor="test").mismatches
    assert {m.table for m in found} == {table}
    assert rows(engine) == before


EXTRA = {
    "arm_days": "instrument = 'OTHER'",
    "equity_checkpoints": "closed_at = closed_at + interval '60 days'",
    "paper_days": "day = day + 60",
}


def test_counting_as_of_now_gives_what_is_stored(engine: Engine) -> None:
    open_btc(engine, equity_fraction=0.3)
    stream(engine, np.random.default_rng(6))
    for policy in ("prod", CHALLENGER):
        then = rebuilding.as_of(engine, "btc", PolicyName(policy), moment=LATER)
        with engine.connect() as connection:
            held = connection.execute(
                text(
                    "SELECT s.n_outcomes, s.gross_profit, s.equity, s.pf_long FROM arm_statistics s"
                    " JOIN arms a ON a.id = s.arm_id JOIN policies p ON p.id = a.policy_id"
                    " WHERE p.name = :policy"
                ),
                {"policy": policy},
            ).one()
        sums, fold = then.statistics.sums, then.statistics.fold
        assert tuple(held) == (
            sums.n_outcomes,
            sums.gross_profit,
            fold.equity.equity,
            then.windows.long.profit_factor.value,
        )


def forget_checks(engine: Engine, table: str) -> None:
    statement = (
        f"SELECT 'ALTER TABLE {table} DROP CONSTRAINT ' || conname FROM pg_constraint"
        f" WHERE conrelid = '{table}'::regclass AND contype = 'c'"
    )
    with engine.begin() as connection:
        for drop in connection.execute(text(statement)).scalars().all():
            connection.execute(text(drop))


def forge(engine: Engine, table: str, values: Mapping[str, str]) -> None:
    chosen = f"SELECT ctid FROM {table} WHERE arm_id = 1 LIMIT 1"
    changes = ", ".join(f"{column} = {value}" for column, value in values.items())
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET {changes} WHERE ctid = ({chosen})"))


def rows(engine: Engine) -> list[Sequence[str]]:
    with engine.connect() as connection:
        return [
            list(connection.execute(text(f"SELECT t::text FROM {name} t ORDER BY 1")).scalars())
            for name in KEYS
        ]
