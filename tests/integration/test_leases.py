"""A lock that outlasts no process that says nothing: stopped, cut off, or ended by the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from advisory_locks import HELD, JOBS, await_free
from backed_up import backing_up, quiet
from data_nights import app_of, contents, grow, night, run
from ledger import open_btc, scale, wait_until_blocked
from sqlalchemy import Engine, text

from bandit.core.backups import BackupKind
from bandit.core.data_runs import NIGHT
from bandit.core.errors import LedgerUnavailable, LockHeldElsewhere
from bandit.service import backups as service
from bandit.service import data_runs
from bandit.storage import locks
from bandit.storage.engine import connect, transaction
from liveops import backups
from liveops.candle_import import candle_store
from liveops.data_rollback import roll_back
from liveops.wiring import App

ROOT = Path(__file__).resolve().parents[2]
HOLDERS: dict[str, Callable[[Engine], AbstractContextManager[locks.Require]]] = {
    "use case": lambda engine: locks.use_case(engine, 1, doing="scaling btc"),
    "data": lambda engine: data_runs.alone(engine, doing="the data"),
    "backup": lambda engine: service.only_one(engine, doing="backup"),
    "drill": lambda engine: service.only_one(engine, doing="drill", is_drill=True),
}

# A process that holds the lock NAME with the patience of SECONDS until it is told to go on, and
# says whether it still has it then.
HOLDER = """
import sys
from bandit.core.errors import LedgerUnavailable
from bandit.storage import locks
from bandit.storage.engine import connect
from test_leases import HOLDERS
url, name, seconds = sys.argv[1:]
locks.LEASE_SECONDS = int(seconds)
with HOLDERS[name](connect(url)) as require:
    require()
    print("held", flush=True)
    sys.stdin.readline()
    try:
        require()
        print("still", flush=True)
    except LedgerUnavailable as error:
        print(error, flush=True)
"""


def holder(url: str, name: str, *, seconds: int) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "integration")])
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", HOLDER, url, name, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def cut_off(engine: Engine) -> None:
    """End the session that holds a lock, as the server does when it hears nothing of it."""
    with engine.connect() as connection:
        ended = f"SELECT pg_terminate_backend(pid, 60000) {HELD}"  # waits until it is gone
        assert connection.execute(text(ended), JOBS).scalars().all() == [True]


@pytest.fixture
def other(database_url: str) -> Iterator[Engine]:
    """The engine of another process."""
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("name", HOLDERS)
def test_a_stopped_holder_loses_it_and_knows_when_it_goes_on(
    engine: Engine, database_url: str, name: str
) -> None:
    open_btc(engine)
    process = holder(database_url, name, seconds=2)
    try:
        with pytest.raises(LockHeldElsewhere, match="another process is at it now"):
            HOLDERS[name](engine).__enter__()
        process.send_signal(signal.SIGSTOP)
        await_free(engine)
        with HOLDERS[name](engine) as require:
            process.send_signal(signal.SIGCONT)
            said, _ = process.communicate("go on\n", timeout=60)
            assert "was lost: begin the same again" in said
            require()
    finally:
        process.kill()
        process.wait()


def test_a_holder_that_works_for_long_keeps_it(engine: Engine, database_url: str) -> None:
    process = holder(database_url, "data", seconds=2)
    threading.Event().wait(3)
    with pytest.raises(LockHeldElsewhere):
        data_runs.alone(engine, doing="the data").__enter__()
    said, _ = process.communicate("go on\n", timeout=60)
    assert said == "still\n"
    with data_runs.alone(engine, doing="the data"):
        pass


@pytest.mark.parametrize("name", HOLDERS)
def test_given_up_it_is_anothers_at_once(engine: Engine, other: Engine, name: str) -> None:
    for each in (engine, other) * 10:
        with HOLDERS[name](each) as require:
            require()


def test_a_night_that_lost_its_lock_decides_nothing(engine: Engine) -> None:
    record = open_btc(engine)
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as connection:
            locks.gate_exclusive(connection, record.id)
            deciding = pool.submit(scale, engine)
            wait_until_blocked(engine, deciding)
            cut_off(engine)
        with pytest.raises(LedgerUnavailable, match="scaling btc was lost"):
            deciding.result(timeout=60)
    assert not scale(engine).already_done


def test_a_backup_that_lost_its_lock_leaves_none_and_removes_none(
    engine: Engine, tmp_path: Path
) -> None:
    app, _ = backing_up(engine, tmp_path)

    def say(line: str) -> None:
        if line.startswith("reading the ledger"):
            cut_off(engine)

    with pytest.raises(LedgerUnavailable, match="backup of the state was lost"):
        backups.take(app, BackupKind.STATE, say=say)
    assert list((tmp_path / "backups").iterdir()) == []
    assert backups.take(app, BackupKind.STATE, say=quiet) is not None


class CuttingClock:
    """A clock that stands, and cuts its process off when it is asked."""

    def __init__(self, app: App) -> None:
        self._now, self._engine = app.clock.now(), app.engine
        self._asked = 0

    def now(self) -> datetime:
        self._asked += 1
        if self._asked == 1:
            cut_off(self._engine)
        return self._now


@pytest.fixture
def market(engine: Engine, tmp_path: Path) -> App:
    """A service whose data pipeline reads files of two series."""
    grow(tmp_path / "files", days=20)
    return app_of(engine, tmp_path)


def test_a_night_of_data_that_lost_its_lock_loads_nothing(market: App) -> None:
    store = candle_store(market.settings)
    with pytest.raises(LedgerUnavailable, match="the data of 2024-01-21 was lost"):
        run(replace(market, clock=CuttingClock(market)), 0)
    assert data_runs.of_date(market.engine, night(0)) == []
    assert contents(store) == {}
    assert run(market, 0).done == NIGHT


def test_a_rollback_that_lost_its_lock_takes_nothing_back(market: App) -> None:
    run(market, 0)
    store = candle_store(market.settings)
    before = contents(store)
    how = {"reason": "drill", "actor": "test"}
    with pytest.raises(LedgerUnavailable, match="the rollback to before 2024-01-21 was lost"):
        roll_back(replace(market, clock=CuttingClock(market)), night(0), **how)
    assert contents(store) == before
    assert data_runs.paused(market.engine) is not None
    roll_back(market, night(0), **how)
    assert contents(store) == {}
    assert data_runs.paused(market.engine) is None
