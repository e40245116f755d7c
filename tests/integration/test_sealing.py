"""One gap-free chain, however many seal, whoever commits late, and whatever is killed."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from audit_log import anchoring_app, append, note, order, seal_and_anchor, seen, told
from ledger import NOON, open_btc, wait_until_blocked
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.audit_chain import anchor_of
from bandit.core.errors import InvalidInput, LedgerUnavailable
from bandit.service import auditing
from bandit.storage import locks
from bandit.storage.engine import connect, transaction
from liveops.anchors import anchor_file
from liveops.background import Turn
from liveops.sealer import Sealer, sealing

ROOT = Path(__file__).resolve().parents[2]
SEALERS = APPENDERS = 4
ROWS_EACH = 60


def test_nothing_to_seal_makes_no_chain(engine: Engine) -> None:
    assert auditing.seal(engine, now=NOON) is None
    report = auditing.verify(engine, [])
    assert (report.rows, report.waiting, report.head, report.findings) == (0, 0, None, ())


def test_sealing_again_changes_nothing(engine: Engine) -> None:
    open_btc(engine)
    head = auditing.seal(engine, now=NOON)
    assert head is not None
    assert auditing.seal(engine, now=NOON + timedelta(hours=1)) == head
    assert auditing.unsealed_rows(engine) == 0
    assert seen(engine, [anchor_of(head)]) == []


def test_more_rows_than_one_transaction_seals_are_sealed_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "SEALS_MAX", 3)
    note(engine, *range(7))
    heads = [seal_and_anchor(engine).sequence for _ in range(4)]
    assert heads == [3, 6, 7, 7]
    assert order(engine) == [(n, n) for n in range(1, 8)]


def test_time_without_an_offset_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="now: must carry a UTC offset"):
        auditing.seal(engine, now=datetime(2026, 3, 1))  # noqa: DTZ001 - what is refused


def test_row_that_is_committed_late_is_sealed_late(engine: Engine) -> None:
    with engine.connect() as late:
        append(late, 1)
        note(engine, 2)
        before = seal_and_anchor(engine)
        assert order(engine) == [(1, 2)]
        late.commit()
    # Committed and not sealed yet: it waits, and is no finding.
    report = auditing.verify(engine, [before])
    assert (told(report), report.rows, report.waiting) == ([], 2, 1)
    after = seal_and_anchor(engine)
    assert order(engine) == [(1, 2), (2, 1)]
    assert seen(engine, [before, after]) == []


def test_many_sealers_and_writers_make_one_chain(engine: Engine, database_url: str) -> None:
    stop, barrier = threading.Event(), threading.Barrier(SEALERS + APPENDERS)

    def keep_sealing() -> int:
        own = connect(database_url, pool_size=1)
        barrier.wait(timeout=30)
        sealed = 0
        while not stop.is_set():
            sealed += auditing.seal(own, now=NOON) is not None
        own.dispose()
        return sealed

    def write(first: int) -> None:
        own = connect(database_url, pool_size=1)
        barrier.wait(timeout=30)
        for number in range(first, first + ROWS_EACH):
            with own.connect() as connection:
                append(connection, number)
                if number % 5:
                    connection.commit()
        own.dispose()

    with ThreadPoolExecutor(SEALERS + APPENDERS) as pool:
        sealers = [pool.submit(keep_sealing) for _ in range(SEALERS)]
        try:
            for writer in [pool.submit(write, n * ROWS_EACH) for n in range(APPENDERS)]:
                writer.result(timeout=120)
        finally:
            stop.set()
        assert all(sealer.result(timeout=60) for sealer in sealers)
    anchor = seal_and_anchor(engine)
    committed = APPENDERS * ROWS_EACH * 4 // 5
    assert [sequence for sequence, _ in order(engine)] == list(range(1, committed + 1))
    assert len({row for _, row in order(engine)}) == committed
    report = auditing.verify(engine, [anchor])
    assert (told(report), report.rows, report.waiting) == ([], committed, 0)
    # Several goes, else nothing raced; the chain has one time for each.
    with engine.connect() as connection:
        writes = text("SELECT count(DISTINCT xmin::text) FROM audit_seals")
        assert connection.execute(writes).scalar_one() > SEALERS


def test_sealer_waits_for_another_one_and_writers_do_not(engine: Engine) -> None:
    note(engine, 1)
    with ThreadPoolExecutor(1) as pool, transaction(engine) as connection:
        locks.audit_chain(connection)
        future = pool.submit(auditing.seal, engine, now=NOON)
        wait_until_blocked(engine, future)
        note(engine, 2)
        connection.rollback()
        head = future.result(timeout=60)
    assert head is not None
    assert head.sequence == 2


# What the database itself refuses


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ("SELECT sequence + 2, 3, row_hash, chain_hash, sealed_at", "seal 4 has no seal before it"),
        ("SELECT sequence + 1, 3, row_hash, chain_hash, sealed_at", "does not follow from the one"),
        ("SELECT sequence, 3, row_hash, chain_hash, sealed_at", "does not follow|audit_seals_pkey"),
        ("SELECT 0, 3, row_hash, chain_hash, sealed_at", "does not follow|sequence_check"),
        ("SELECT 1, 3, row_hash, chain_hash, sealed_at", "does not follow|audit_seals_pkey"),
    ],
)
def test_seal_that_does_not_follow_is_refused(engine: Engine, forged: str, message: str) -> None:
    note(engine, 1, 2)
    seal_and_anchor(engine)
    note(engine, 3)
    statement = f"INSERT INTO audit_seals {forged} FROM audit_seals WHERE sequence = 2"
    with pytest.raises(IntegrityError, match=message), engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM audit_unsealed", "audit row 1 waits until it is sealed"),
        ("UPDATE audit_unsealed SET audit_id = audit_id", "audit_unsealed is append-only: UPDATE"),
        ("TRUNCATE audit_unsealed", "audit_unsealed is append-only: TRUNCATE"),
        ("INSERT INTO ledger_identity SELECT gen_random_uuid()", "one_ledger"),
    ],
)
def test_waiting_rows_and_the_ledgers_id_stay(engine: Engine, statement: str, message: str) -> None:
    note(engine, 1)
    with pytest.raises(IntegrityError, match=message), engine.begin() as connection:
        connection.execute(text(statement))


# Killed in the middle

SEALED_AND_KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from bandit.service import auditing
from bandit.storage.engine import connect
auditing.seal(connect(sys.argv[1]), now=datetime(2026, 3, 1, 12, tzinfo=UTC))
os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_WHILE_SEALING = """
import os, signal, sys
from datetime import UTC, datetime
from bandit.core.audit_chain import sealed
from bandit.storage import audit, locks
from bandit.storage.engine import connect, transaction
with transaction(connect(sys.argv[1])) as connection:
    locks.audit_chain(connection)
    rows = audit.unsealed(connection, rows_max=100)
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    audit.append_seals(connection, list(sealed(rows, after=None, now=now)))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(program: str, url: str) -> None:
    ended = subprocess.run([sys.executable, "-c", program, url], cwd=ROOT, timeout=120)
    assert ended.returncode == -9


def test_seals_of_a_process_killed_before_it_anchored_are_anchored_by_the_next(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    note(engine, 1, 2)
    killed(SEALED_AND_KILLED, database_url)
    app = anchoring_app(engine, tmp_path)
    file = anchor_file(app)
    assert seen(engine, file.read()) == [("unanchored", None, 2)]
    with sealing(app):
        pass
    report = auditing.verify(engine, file.read())
    assert report.findings == ()
    assert report.anchored is not None
    assert report.anchored.sequence == 2


def test_process_killed_while_sealing_leaves_neither_seals_nor_its_lock(
    engine: Engine, database_url: str
) -> None:
    note(engine, 1, 2)
    killed(KILLED_WHILE_SEALING, database_url)
    anchor = seal_and_anchor(engine)
    assert anchor.sequence == 2
    assert seen(engine, [anchor]) == []


def test_stopped_process_loses_its_lock(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_SEALING_SECONDS_MAX", 1)
    note(engine, 1)
    held = text(
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE d.datname = current_database() AND l.locktype = 'advisory'"
    )
    pause = threading.Event()

    def stop_in_the_middle() -> None:
        # As under SIGSTOP, this one says nothing more for a while.
        with transaction(engine) as connection:
            locks.audit_chain(connection)
            with engine.connect() as other:
                for _ in range(600):
                    if other.execute(held).scalar_one() == 0:
                        break
                    pause.wait(0.05)
            assert seal_and_anchor(engine).sequence == 1
            connection.execute(text("SELECT 1"))

    with pytest.raises(LedgerUnavailable, match="idle-in-transaction"):
        stop_in_the_middle()


# The sealer of a service


@pytest.fixture
def sealer_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="liveops.background"):
        yield caplog


def test_service_seals_and_anchors_to_its_last_row(engine: Engine, tmp_path: Path) -> None:
    app = anchoring_app(engine, tmp_path / "other disk")
    with sealing(app):
        open_btc(engine)
    report = auditing.verify(engine, anchor_file(app).read())
    assert (told(report), report.waiting) == ([], 0)
    assert report.head is not None
    assert report.anchored == anchor_of(report.head)
    assert "sealer" not in {thread.name for thread in threading.enumerate()}


def test_each_second_is_sealed_while_the_service_runs(engine: Engine, tmp_path: Path) -> None:
    app = anchoring_app(engine, tmp_path)
    pause = threading.Event()
    with sealing(app):
        for number in (1, 2):
            note(engine, number)
            for _ in range(600):
                if auditing.unsealed_rows(engine) == 0:
                    break
                pause.wait(0.05)
            assert auditing.unsealed_rows(engine) == 0
    assert order(engine) == [(1, 1), (2, 2)]


def test_a_head_is_anchored_once_by_each_and_by_several_together(
    engine: Engine, tmp_path: Path
) -> None:
    first, second = (Sealer(anchoring_app(engine, tmp_path)) for _ in range(2))
    note(engine, 1)
    for sealer in (first, first, second):
        sealer.seal()
    note(engine, 2)
    for sealer in (second, first, second):
        sealer.seal()
    anchors = list(anchor_file(anchoring_app(engine, tmp_path)).read())
    assert [anchor and anchor.sequence for anchor in anchors] == [1, 2]


def test_ledger_that_is_away_ends_no_service_and_is_told_once(
    tmp_path: Path, sealer_log: pytest.LogCaptureFixture
) -> None:
    app = anchoring_app(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing"), tmp_path)
    with sealing(app):
        pass
    assert [record.levelname for record in sealer_log.records] == ["WARNING"]
    assert "the ledger did not answer" in sealer_log.text


def test_disk_that_refuses_an_anchor_is_tried_again(
    engine: Engine, tmp_path: Path, sealer_log: pytest.LogCaptureFixture
) -> None:
    disk = tmp_path / "disk"
    disk.write_text("not a directory yet")
    app = anchoring_app(engine, disk)
    sealer, turn = Sealer(app), Turn("not sealed")

    def attempt(_: Turn) -> None:
        sealer.seal()

    note(engine, 1)
    for _ in range(3):
        turn.make(attempt)
    disk.unlink()
    turn.make(attempt)
    assert [record.levelname for record in sealer_log.records] == ["WARNING", "INFO"]
    assert seen(engine, list(anchor_file(app).read())) == []


def test_chain_that_cannot_go_on_ends_no_service_either(
    engine: Engine, tmp_path: Path, sealer_log: pytest.LogCaptureFixture
) -> None:
    note(engine, 1)
    seal_and_anchor(engine)
    with engine.begin() as connection:
        # Somebody puts a sealed row among the waiting ones again.
        connection.execute(text("INSERT INTO audit_unsealed VALUES (1)"))
    sealer, turn = Sealer(anchoring_app(engine, tmp_path)), Turn("not sealed")

    def attempt(_: Turn) -> None:
        sealer.seal()

    turn.make(attempt)
    turn.make(attempt)
    assert [record.levelname for record in sealer_log.records] == ["ERROR"]
    assert order(engine) == [(1, 1)]


def test_verification_beside_a_running_sealer_sees_one_moment(
    engine: Engine, tmp_path: Path
) -> None:
    app = anchoring_app(engine, tmp_path)
    sealer = Sealer(app)
    note(engine, 1)
    sealer.seal()
    reading = anchor_file(app).read()
    note(engine, 2)
    sealer.seal()
    report = auditing.verify(engine, reading)
    assert report.findings == ()
    assert report.head is not None
    assert (report.head.sequence, report.anchored and report.anchored.sequence) == (2, 1)


def test_each_ledger_has_an_anchor_file_of_its_own(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    own = anchor_file(anchoring_app(engine, tmp_path)).path
    assert own.parent == tmp_path
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE ledger_identity SET id = gen_random_uuid()"))
    other = anchor_file(anchoring_app(engine, tmp_path)).path
    assert other != own
