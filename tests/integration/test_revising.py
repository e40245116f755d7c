"""A correction stands beside what it corrects, and every number follows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from ledger import (
    CHALLENGER,
    NOON,
    assign,
    assign_to,
    closed,
    count,
    feed,
    open_btc,
    record_all,
    together,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.errors import Conflict, InvalidInput, UnknownName
from bandit.core.model import PolicyName
from bandit.core.outcomes import Flags, Outcome, declined
from bandit.service import rebuilding, recording, reporting, revising
from bandit.service.ledger import ledger_digest
from bandit.service.revising import Revised
from bandit.storage import experiments, outcomes

LATER = NOON + timedelta(days=1)


def revise(engine: Engine, outcome: Outcome, *, now: datetime = LATER) -> Revised:
    return revising.revise(engine, outcome, reason="statement", now=now, actor="test")


def rows(engine: Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def numbers(engine: Engine, policy: str = "prod") -> dict[str, object]:
    statement = text(
        "SELECT s.* FROM arm_statistics s JOIN arms a ON a.id = s.arm_id"
        " JOIN policies p ON p.id = a.policy_id WHERE p.name = :policy"
    )
    with engine.connect() as connection:
        return dict(connection.execute(statement, {"policy": policy}).mappings().one())


def agrees(engine: Engine) -> bool:
    return rebuilding.compare(engine, now=LATER).mismatches == ()


def test_correction_counts_instead_of_what_was_told(engine: Engine) -> None:
    open_btc(engine)
    win, loss = assign_to(engine, "prod", 2)
    record_all(engine, [closed(win, "0.03", pnl="30"), closed(loss, "-0.01")], now=LATER)
    made = revise(engine, closed(win, "0.02", pnl="19.5"), now=LATER + timedelta(hours=1))
    assert made == Revised(
        assignment_id=win.id,
        revision=1,
        created=True,
        recorded_at=LATER + timedelta(hours=1),
        flags=Flags(unclaimed=True),
    )
    held = numbers(engine)
    assert (held["n_outcomes"], held["n_trades"], held["n_wins"]) == (2, 2, 1)
    assert (held["gross_profit"], held["gross_loss"]) == (Decimal("19.5"), 10)
    assert held["pf_short"] == held["pf_long"] == 2.0
    assert held["return_squares"] == Decimal("0.0005")
    # A tenth of 0.02 up and a tenth of 0.01 down.
    assert held["equity"] == pytest.approx(1.001, rel=1e-12)
    assert agrees(engine)


def test_what_was_told_first_stays_and_still_answers_its_retry(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    first = closed(made, "0.03")
    record_all(engine, [first], now=LATER)
    revise(engine, closed(made, "0.02"))
    assert rows(engine, "SELECT return_ratio FROM outcomes") == [(Decimal("0.03"),)]
    [again] = recording.record(engine, [first], now=LATER)
    assert isinstance(again, recording.Recorded)
    assert not again.created
    [other] = recording.record(engine, [closed(made, "0.02")], now=LATER)
    assert isinstance(other, Conflict)


def test_newest_body_again_is_the_same_answer_and_an_older_one_is_a_new_version(
    engine: Engine,
) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    first, second = closed(made, "0.03"), closed(made, "0.02")
    record_all(engine, [first], now=LATER)
    unchanged = revise(engine, first)
    assert (unchanged.revision, unchanged.created) == (0, False)
    told = revise(engine, second)
    again = revise(engine, second, now=LATER + timedelta(days=1))
    assert again == replace(told, created=False)
    back = revise(engine, first)
    assert (back.revision, back.created) == (2, True)
    assert numbers(engine, made.policy)["return_gain"] == Decimal("0.03")
    assert count(engine, "outcome_revisions") == 2


def test_trade_becomes_no_trade_and_back(engine: Engine) -> None:
    open_btc(engine)
    one, two = assign_to(engine, "prod", 2)
    record_all(engine, [closed(one, "0.03"), closed(two, "0.01", minutes=90)], now=LATER)
    before = numbers(engine)
    revise(engine, declined(two.id))
    held = numbers(engine)
    assert (held["n_outcomes"], held["n_trades"]) == (2, 1)
    assert held["last_closed_at"] == one.decided_at + timedelta(hours=1)
    assert rows(engine, "SELECT sum(n_trades) FROM arm_days") == [(1,)]
    revise(engine, declined(one.id))
    held = numbers(engine)
    assert (held["n_trades"], held["last_closed_at"], held["equity"]) == (0, None, 1.0)
    assert (held["pf_long"], held["window_from"]) == (None, None)
    assert count(engine, "arm_days") == 0
    assert agrees(engine)
    revise(engine, closed(one, "0.03"))
    revise(engine, closed(two, "0.01", minutes=90))
    assert numbers(engine) == before
    assert agrees(engine)


def test_correction_that_moves_a_trade_in_time_refolds_from_the_earlier_place(
    engine: Engine,
) -> None:
    open_btc(engine, equity_fraction=0.5)
    results = ["0.001", "-0.002"] * 150
    made = assign_to(engine, "prod", len(results))
    record_all(
        engine,
        [closed(a, r, minutes=m) for m, (a, r) in enumerate(zip(made, results, strict=True), 1)],
        now=LATER,
    )
    checkpoint = "SELECT xmin::text, equity FROM equity_checkpoints"
    [before] = rows(engine, checkpoint)
    # Minute 280 lies behind the checkpoint at 256, minute 10 before it.
    revise(engine, closed(made[279], "-0.1", minutes=290))
    assert rows(engine, checkpoint) == [before]
    assert agrees(engine)
    revise(engine, closed(made[279], "-0.1", minutes=10))
    [after] = rows(engine, checkpoint)
    assert after[1] == pytest.approx(before[1] - 0.05 + 0.001, abs=0.002)
    assert agrees(engine)
    revise(engine, closed(made[279], "-0.1", minutes=24 * 60))
    assert numbers(engine)["last_unit_id"] == made[279].unit_id
    assert agrees(engine)


def test_views_window_and_report_read_the_newest_version(engine: Engine) -> None:
    open_btc(engine)
    [prod] = assign_to(engine, "prod", 1)
    [mine] = assign_to(engine, CHALLENGER, 1)
    record_all(engine, [closed(prod, "0.03"), closed(mine, "0.01")], now=LATER)
    digest = ledger_digest(engine)
    revise(engine, closed(prod, "-0.02", minutes=70))
    assert ledger_digest(engine) != digest
    seen = rows(engine, 'SELECT "return" FROM trades ORDER BY 1')
    assert seen == [(Decimal("-0.02"),), (Decimal("0.01"),)]
    days = rows(engine, "SELECT pnl FROM performance_metrics ORDER BY 1")
    assert days == [(Decimal(-20),), (Decimal(10),)]
    with engine.connect() as connection:
        arm = experiments.load(connection, "btc").arm_of(PolicyName(CHALLENGER))
        champion = outcomes.champion_over_windows(connection, [arm.id])[arm.id]
    assert (champion.n, champion.gross_loss) == (1, 0.02)
    arms = {arm.arm.place.policy: arm for arm in reporting.report(engine, "btc").arms}
    assert arms["prod"].short.profit_factor.n_losses == 1


def test_unknown_unlawful_or_early_corrections_store_nothing(engine: Engine) -> None:
    open_btc(engine)
    [told, untold] = assign(engine, ["told", "untold"])
    record_all(engine, [closed(told, "0.03")], now=LATER)
    with pytest.raises(UnknownName, match="no outcome of assignment is registered as"):
        revise(engine, closed(untold, "0.02"))
    with pytest.raises(UnknownName, match="no assignment is registered as"):
        revise(engine, declined(told.id.__class__(int=5)))
    with pytest.raises(InvalidInput, match=r"^closed_at: "):
        revise(engine, closed(told, "0.02", minutes=24 * 60 + 6))
    with pytest.raises(InvalidInput, match=r"^opened_at: "):
        revise(engine, replace(closed(told, "0.02"), opened_at=NOON - timedelta(minutes=6)))
    with pytest.raises(InvalidInput, match=r"^reason: "):
        revising.revise(engine, closed(told, "0.02"), reason=" ", now=LATER, actor="test")
    assert count(engine, "outcome_revisions") == 0


def test_every_correction_leaves_an_audit_row(engine: Engine) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    record_all(engine, [closed(made, "0.03")], now=LATER)
    revise(engine, closed(made, "0.02"))
    revise(engine, closed(made, "0.02"))
    found = rows(
        engine,
        "SELECT actor, subject, details ->> 'revision', details ->> 'reason' FROM audit_log "
        "WHERE action = 'revise'",
    )
    assert found == [("test", f"outcome {made.id}", "1", "statement")]


def test_two_corrections_at_once_are_both_stored_in_one_order(engine: Engine) -> None:
    open_btc(engine)
    made = assign_to(engine, "prod", 20)
    record_all(engine, [closed(a, "0.03", minutes=m) for m, a in enumerate(made, 60)], now=LATER)
    for assignment in made:
        bodies = [closed(assignment, "-0.01", minutes=30), closed(assignment, "0.01", minutes=200)]
        answers = together(*(partial(revise, engine, body) for body in bodies))
        assert sorted(answer.revision for answer in answers) == [1, 2]
        newest = max(zip(answers, bodies, strict=True), key=lambda pair: pair[0].revision)[1]
        found = rows(
            engine,
            f"SELECT return_ratio FROM current_outcomes WHERE assignment_id = '{assignment.id}'",
        )
        assert found == [(newest.return_ratio,)]
    assert agrees(engine)
    assert count(engine, "outcome_revisions") == 40


def test_corrections_beside_new_outcomes_of_the_arm_lose_nothing(engine: Engine) -> None:
    open_btc(engine)
    made = assign_to(engine, "prod", 200)
    told = [closed(a, "0.01", minutes=m) for m, a in enumerate(made, 60)]
    record_all(engine, told[:100], now=LATER)

    def correct() -> None:
        for outcome in told[:60]:
            revise(engine, replace(outcome, pnl=Decimal(-1), return_ratio=Decimal("-0.001")))

    def tell() -> None:
        for start in range(100, 200, 5):
            record_all(engine, told[start : start + 5], now=LATER)

    together(correct, tell)
    held = numbers(engine)
    assert (held["n_trades"], held["n_wins"], held["n_losses"]) == (200, 140, 60)
    assert agrees(engine)


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"revision": "revision + 2"}, "revisions follow one another"),
        ({"revision": "revision"}, "revisions follow one another"),
        ({"unit_id": "'other'"}, "keeps the arm, unit and instrument"),
        ({"recorded_at": "recorded_at - interval '1 second'"}, "not recorded before"),
    ],
)
def test_database_refuses_a_version_that_does_not_follow(
    engine: Engine, forged: dict[str, str], message: str
) -> None:
    open_btc(engine)
    [made] = assign(engine, ["u"])
    record_all(engine, [closed(made, "0.03")], now=LATER)
    revise(engine, closed(made, "0.02"))
    columns = [
        row[0]
        for row in rows(
            engine,
            "SELECT attname FROM pg_attribute WHERE attrelid = 'outcome_revisions'::regclass"
            " AND attnum > 0",
        )
    ]
    values = {name: name for name in columns} | {"revision": "revision + 1"} | forged
    statement = (
        f"INSERT INTO outcome_revisions ({', '.join(columns)})"
        f" SELECT {', '.join(values[name] for name in columns)} FROM outcome_revisions"
    )
    with pytest.raises(IntegrityError, match=message), engine.begin() as connection:
        connection.execute(text(statement))


def test_numbers_as_of_a_moment_are_those_that_were_known_then(engine: Engine) -> None:
    open_btc(engine)
    one, two = assign_to(engine, "prod", 2)
    day = [LATER + timedelta(days=n) for n in range(5)]
    known: dict[datetime, dict[str, object]] = {day[0]: numbers(engine)}
    record_all(engine, [closed(one, "0.03")], now=day[1])
    known[day[1]] = numbers(engine)
    record_all(engine, [closed(two, "-0.01", minutes=30)], now=day[2])
    known[day[2]] = numbers(engine)
    revise(engine, closed(one, "-0.02", minutes=20), now=day[3])
    known[day[3]] = numbers(engine)
    revise(engine, declined(one.id), now=day[4])
    known[day[4]] = numbers(engine)
    for moment, expected in known.items():
        then = rebuilding.as_of(engine, "btc", PolicyName("prod"), moment=moment)
        sums, fold = then.statistics.sums, then.statistics.fold
        assert (sums.n_outcomes, sums.n_trades) == (expected["n_outcomes"], expected["n_trades"])
        assert (sums.gross_profit, sums.gross_loss) == (
            expected["gross_profit"],
            expected["gross_loss"],
        )
        assert fold.equity.equity == expected["equity"]
        assert then.windows.long.profit_factor.value == expected["pf_long"]
        assert then.windows.since == expected["window_from"]


MANY_VERSIONS = """
INSERT INTO outcome_revisions
SELECT assignment_id, 1, arm_id, unit_id, instrument, no_trade, pnl, return_ratio, r_multiple, fees,
       slippage, size, worst_excursion, opened_at, closed_at, expired, unclaimed, body_hash,
       recorded_at, 'test', 'drill'
FROM (SELECT *, row_number() OVER () AS i FROM outcomes) o WHERE i % 3 = 0
"""


def rows_read(engine: Engine, statement: str, **values: int) -> dict[str, float]:
    """How many rows each table or index of the history gave to a statement, all loops together."""
    with engine.connect() as connection:
        # As with a history that no machine reads whole: never because the table is small.
        connection.execute(text("SET enable_seqscan = off"))
        explain = f"EXPLAIN (ANALYZE, COSTS off, TIMING off, FORMAT json) {statement}"
        found = connection.exec_driver_sql(explain, values).scalar_one()
    return {
        f"{node['Node Type']} {node['Alias']}": (
            node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        )
        * node["Actual Loops"]
        for node in flat(found[0]["Plan"])
        if node.get("Relation Name", "").startswith("outcome")
    }


def flat(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in flat(child))]


def test_windows_are_read_by_index_ranges_however_long_the_history_is(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, "prod", ["0.001", "-0.001"] * 1500)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(MANY_VERSIONS))
        connection.execute(text("VACUUM ANALYZE outcomes, outcome_revisions"))
    read = rows_read(engine, outcomes.NEWEST_TRADES, arm=1, most=150)
    # 150 of a mixture of which a third is corrected: 100 current and 50 corrected of one table, 50
    # of the other, and a look into a primary key for each.
    assert {name.partition(" ")[0] for name in read} == {"Index"}
    assert sum(read.values()) < 150 + 50 + 200 + 100


# Trades of both arms from before any window, in no order of time: far more than a window has.
OLD_TRADES = """
INSERT INTO outcomes (assignment_id, arm_id, unit_id, instrument, no_trade, pnl, return_ratio,
                      r_multiple, fees, slippage, size, worst_excursion, opened_at, closed_at,
                      expired, unclaimed, body_hash, recorded_at, audit_id)
SELECT md5(a.id::text || i)::uuid, a.id, format('old-%s-%s', a.id, i), o.instrument, o.no_trade,
       o.pnl, o.return_ratio, o.r_multiple, o.fees, o.slippage, o.size, o.worst_excursion,
       o.opened_at - hashed * interval '1 second', o.closed_at - hashed * interval '1 second',
       o.expired, o.unclaimed, o.body_hash, o.recorded_at, o.audit_id
FROM (SELECT DISTINCT ON (arm_id) * FROM outcomes ORDER BY arm_id, closed_at) o
JOIN arms a ON a.id = o.arm_id
CROSS JOIN generate_series(1, 20000) i
CROSS JOIN LATERAL (SELECT 86400 + abs(hashint4(i)) % 10000000 AS hashed) d
"""


def test_a_window_is_compared_without_reading_the_whole_history(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, "prod", ["0.001", "-0.002"] * 20)
    feed(engine, CHALLENGER, ["0.002", "-0.001"] * 20)
    with engine.connect() as connection:
        arm = experiments.load(connection, "btc").arm_of(PolicyName(CHALLENGER))
        before = outcomes.champion_over_windows(connection, [arm.id])
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(OLD_TRADES))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE outcomes, outcome_revisions"))
    with engine.connect() as connection:
        # As where the history is far larger than the memory of the machine.
        connection.execute(text("SET LOCAL effective_cache_size = 1"))
        connection.execute(text("SET LOCAL random_page_cost = 10"))
        already = connection.execute(text(ROWS_OF_OUTCOMES)).one()
        found = outcomes.champion_over_windows(connection, [arm.id])
        read = connection.execute(text(ROWS_OF_OUTCOMES)).one()
    assert found == before
    assert before[arm.id].n > 0
    assert read.in_order - already.in_order == 0
    assert 0 < read.by_index - already.by_index < 200


ROWS_OF_OUTCOMES = """
SELECT seq_tup_read AS in_order, idx_tup_fetch AS by_index FROM pg_stat_xact_user_tables
WHERE relname = 'outcomes'
"""
