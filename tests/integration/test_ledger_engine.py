"""What the database's errors mean to the product, and what a session promises."""

from __future__ import annotations

import gc
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from ledger import CHALLENGER, NOON, feed, open_btc
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError, InternalError, ProgrammingError

from bandit.core.errors import InvalidAllocation, InvalidInput, LedgerUnavailable
from bandit.core.model import UnitId
from bandit.core.outcomes import declined
from bandit.service import ledger, recording
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import SessionLost, connect, snapshot, streamed, taking_long, transaction


@pytest.fixture
def single(database_url: str) -> Iterator[Engine]:
    """An engine with one connection, for which nobody waits long."""
    engine = create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    yield engine
    engine.dispose()


OPPORTUNITY = Opportunity(unit_id=UnitId("u"), instrument="BTCUSD")


def idle_until_ended(engine: Engine, connection: Connection) -> None:
    """Say nothing inside the transaction until the server has ended its session."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    alive = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    pause = threading.Event()
    with engine.connect() as other:
        for _ in range(1200):
            if other.execute(alive, {"pid": pid}).scalar_one() == 0:
                return
            other.rollback()  # the statistics of a transaction are those of its first look
            pause.wait(0.05)
    raise AssertionError("the session outlives every limit")


def run_in(engine: Engine, *statements: str) -> list[object]:
    """Run the statements in one transaction; return the first value of each."""
    with transaction(engine) as connection:
        return [connection.execute(text(statement)).scalar_one() for statement in statements]


def test_broken_limit_is_an_invalid_allocation_by_its_name(engine: Engine) -> None:
    with pytest.raises(InvalidAllocation, match="limit step_up: too fast") as refused:
        run_in(engine, "SELECT require_limit(false, 'step_up', 'too fast')")
    assert refused.value.limit == "step_up"


def test_other_broken_promise_is_a_fault_of_ours_and_stays_what_it_is(engine: Engine) -> None:
    with pytest.raises(IntegrityError, match="not-null"):
        run_in(engine, "INSERT INTO policies (name) VALUES ('a') RETURNING id")


def test_value_that_no_column_can_hold_is_invalid_input(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="must be something the ledger can hold"):
        run_in(engine, "SELECT CAST('99999999999' AS integer)")


def test_statement_that_runs_too_long_is_unavailability(engine: Engine) -> None:
    assert run_in(engine, "SHOW statement_timeout") == ["30s"]
    brief = "SELECT set_config('statement_timeout', '10ms', true)"
    with pytest.raises(LedgerUnavailable, match="statement timeout"):
        run_in(engine, brief, "SELECT pg_sleep(5)")


def test_server_that_says_nothing_any_more_is_unavailability(database_url: str) -> None:
    other = connect(database_url, pool_size=1, statement_seconds=1)
    pid = 0
    try:
        with pytest.raises(LedgerUnavailable, match="did not answer"), transaction(other) as own:  # noqa: PT012
            pid = own.execute(text("SELECT pg_backend_pid()")).scalar_one()
            os.kill(pid, signal.SIGSTOP)  # it cannot even time its statement out
            own.execute(text("SELECT 1"))
    finally:
        os.kill(pid, signal.SIGCONT)
    # Its session was given up with it: what it still had to say is nobody's answer.
    assert run_in(other, "SELECT 2") == [2]
    other.dispose()


def test_more_callers_than_connections_is_unavailability(single: Engine) -> None:
    with transaction(single), pytest.raises(LedgerUnavailable, match="every connection"):
        run_in(single, "SELECT 1")


def test_lost_session_is_unavailability_once_and_replaced_after(database_url: str) -> None:
    other = connect(database_url, pool_size=1)
    with pytest.raises(LedgerUnavailable, match="terminating connection"):
        run_in(other, "SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1")
    assert run_in(other, "SELECT 1") == [1]
    other.dispose()


def test_stream_whose_session_is_lost_leaves_no_cursor_behind(
    database_url: str, engine: Engine
) -> None:
    other = connect(database_url, pool_size=1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(LedgerUnavailable), transaction(other) as connection:  # noqa: PT012
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            assert run_in(engine, f"SELECT pg_terminate_backend({pid}, 5000)") == [True]
            next(streamed(connection, "SELECT 1 AS one"))
        gc.collect()
    assert [str(warning.message) for warning in told] == []
    other.dispose()


def test_fault_of_ours_within_a_session_stays_what_it_is(engine: Engine) -> None:
    with pytest.raises(InternalError, match="aborted"), transaction(engine) as connection:  # noqa: PT012
        with pytest.raises(ProgrammingError):
            connection.execute(text("SELECT nothing"))
        connection.execute(text("SELECT 1"))


def test_failed_transaction_leaves_nothing(engine: Engine) -> None:
    open_btc(engine)
    before = ledger.ledger_digest(engine)
    with pytest.raises(InvalidInput):
        run_in(
            engine,
            "UPDATE experiments SET epoch = epoch + 1 RETURNING epoch",
            "SELECT CAST('x' AS integer)",
        )
    assert ledger.ledger_digest(engine) == before


def test_snapshot_reads_one_moment_and_leaves_the_connection_as_it_was(
    database_url: str, engine: Engine
) -> None:
    open_btc(engine)
    other = connect(database_url, pool_size=1)
    with snapshot(other) as connection:
        epoch = text("SELECT epoch FROM experiments")
        assert connection.execute(epoch).scalar_one() == 1
        with engine.begin() as writer:
            writer.execute(text("UPDATE experiments SET epoch = 2"))
        assert connection.execute(epoch).scalar_one() == 1
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on"
    with transaction(other) as connection:
        shown = [
            connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("transaction_isolation", "transaction_read_only", "timezone")
        ]
    assert shown == ["read committed", "off", "UTC"]
    other.dispose()


def test_digest_covers_what_the_domain_remembers(engine: Engine) -> None:
    seen = [ledger.ledger_digest(engine)]
    open_btc(engine)
    seen.append(ledger.ledger_digest(engine))
    feed(engine, CHALLENGER, ["0.001"])
    seen.append(ledger.ledger_digest(engine))
    assert len(set(seen)) == 3
    # Reading changes nothing, and neither does a note in the audit log.
    assert not ledger.was_noted(engine, action="drill", subject="btc")
    ledger.note(engine, now=NOON, actor="test", action="drill", subject="btc", details={"n": 1})
    assert ledger.was_noted(engine, action="drill", subject="btc")
    assert not ledger.was_noted(engine, action="drill", subject="eth")
    assert ledger.ledger_digest(engine) == seen[-1]


def test_canonical_tables_are_read_whole_and_without_surrogate_ids(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, ["0.001", "-0.002"])
    found: dict[str, tuple[list[str], list[tuple[object, ...]]]] = {}

    def keep(table: str, columns: list[str], rows: Iterator[tuple[object, ...]]) -> None:
        found[table] = (columns, list(rows))

    ledger.read_tables(engine, keep)
    assert tuple(found) == ledger.TABLES
    columns, rows = found["outcomes"]
    assert not {"id", "arm_id", "recorded_at", "body_hash"} & set(columns)
    earned = {row[columns.index("return_ratio")] for row in rows}
    assert earned == {Decimal("0.001"), Decimal("-0.002")}
    assert len(found["assignments"][1]) >= 2
    assert [row[0] for row in found["policies"][1]] == ["prod", CHALLENGER]


def test_newest_close_is_that_of_any_arm(engine: Engine) -> None:
    open_btc(engine)
    assert ledger.newest_close(engine) is None
    feed(engine, CHALLENGER, ["0.001"] * 2, prefix="c")
    feed(engine, "prod", ["0.001"] * 3, prefix="p")
    assert ledger.newest_close(engine) == NOON + timedelta(minutes=3)


def test_long_history_is_read_to_its_end_and_nothing_else_waits_longer(database_url: str) -> None:
    engine = connect(database_url, pool_size=1, statement_seconds=1)
    nap = text("SELECT pg_sleep(2)")
    with snapshot(engine) as connection, taking_long(connection):
        connection.execute(nap)
    # The same connection, and the usual patience again.
    with pytest.raises(LedgerUnavailable), snapshot(engine) as connection:
        connection.execute(nap)
    engine.dispose()


@pytest.fixture
def own(engine: Engine, database_url: str) -> Iterator[Engine]:
    """One connection beside those that look on."""
    open_btc(engine)
    own = connect(database_url, pool_size=1)
    yield own
    own.dispose()


def test_work_that_stalled_in_a_transaction_is_done_anew(engine: Engine, own: Engine) -> None:
    router, stalls = Router(own), iter([True, True, False])
    router.table("btc")

    def stall(connection: Connection) -> None:
        if next(stalls):
            idle_until_ended(engine, connection)

    event.listen(own, "commit", stall)
    [made] = router.assign("btc", [OPPORTUNITY], now=NOON)
    assert list(stalls) == []
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT id FROM assignments")).scalars()
        assert list(stored) == [made.id]


def test_work_that_stalls_every_time_is_unavailability(engine: Engine, own: Engine) -> None:
    router = Router(own)
    router.table("btc")
    event.listen(own, "commit", partial(idle_until_ended, engine))
    with pytest.raises(LedgerUnavailable, match="idle-in-transaction"):
        router.assign("btc", [OPPORTUNITY], now=NOON)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM assignments")).scalar_one() == 0


def ended(engine: Engine, connection: Connection) -> None:
    """End the session of `connection`, as a halt does of a batch that keeps it waiting."""
    pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]  # it has one
    assert run_in(engine, f"SELECT pg_terminate_backend({pid}, 5000)") == [True]


def test_a_batch_whose_session_is_ended_is_done_anew(engine: Engine, own: Engine) -> None:
    router, ends = Router(own), iter([True, True, False, True, False])
    router.table("btc")

    def end(connection: Connection) -> None:
        if next(ends):
            ended(engine, connection)

    event.listen(own, "commit", end)
    [made] = router.assign("btc", [OPPORTUNITY], now=NOON)
    assert router.claim(made.id, now=NOON) == NOON
    assert list(ends) == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM assignments")).scalars().all() == [made.id]
        assert connection.execute(text("SELECT count(*) FROM claims")).scalar_one() == 1


def test_outcomes_whose_session_is_ended_are_their_caller_s_to_judge(
    engine: Engine, own: Engine
) -> None:
    [made] = Router(engine).assign("btc", [OPPORTUNITY], now=NOON)
    event.listen(own, "commit", partial(ended, engine))
    with pytest.raises(SessionLost):
        recording.record(own, [declined(made.id)], now=NOON)
    assert run_in(engine, "SELECT count(*) FROM outcomes") == [0]


def test_a_history_nobody_has_analysed_is_not_read_row_by_row(engine: Engine) -> None:
    def nested_loops() -> str:
        with snapshot(engine) as connection, taking_long(connection):
            return str(connection.execute(text("SHOW enable_nestloop")).scalar_one())

    open_btc(engine)
    feed(engine, "prod", ["0.001", "-0.001"])
    assert nested_loops() == "off"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE outcomes"))
        assert nested_loops() == "off"
        connection.execute(text("ANALYZE assignments"))
    assert nested_loops() == "on"
    with snapshot(engine) as connection:
        assert connection.execute(text("SHOW enable_nestloop")).scalar_one() == "on"
