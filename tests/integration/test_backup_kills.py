"""kill -9 at every step of a backup, a restore and a drill: nothing half, and again is enough."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from advisory_locks import await_free
from backed_up import TAKEN, backing_up, live, quiet, restored, taken, trade_on
from embedded_owner import ROOT
from ledger import CHALLENGER, assign, change
from sqlalchemy import Engine

from bandit.core.backups import BackupKind
from bandit.core.errors import Killed
from bandit.core.lifecycle import ArmVerb
from bandit.service import backups as service
from bandit.service import experiments, killing
from bandit.storage import migrate
from bandit.storage.engine import connect
from liveops import backups
from liveops.wiring import App
from snapshots import backup_files

DAY = date(2026, 3, 5)

# A process that does WHAT to the ledger at URL, and is killed when it says that STEP comes next.
# The step `archive` is no word of ours: all tables are filled, and nothing is committed.
KILLED = """
import os, signal, sys
from datetime import date
from pathlib import Path
sys.path[:0] = ["tests"]
from backed_up import backing_up, restored
from bandit.core.backups import BackupKind
from bandit.storage.engine import connect
from liveops import backups, postgres_programs, restore_drill
what, step, url, home, into = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def say(line):
    if line.startswith(step):
        die()
if step == "archive":
    written = postgres_programs._write_archive
    postgres_programs._write_archive = lambda *a, **k: (written(*a, **k), die())
app, _ = backing_up(connect(url), Path(home))
if what == "take":
    backups.take(app, BackupKind.DATABASE, since=date(2026, 3, 5), say=say)
elif what == "drill":
    restore_drill.exercise(app, actor="test", say=say)
else:
    root = backups.backup_dir(app.settings, demo=False)
    restored(backups.found(root, "latest", kinds=(BackupKind.DATABASE,)), into, say=say)
"""


def kill(what: str, step: str, url: str, home: Path, into: str = "") -> None:
    command = [sys.executable, "-B", "-c", KILLED, what, step, url, str(home), into]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    engine = connect(url)
    await_free(engine)
    engine.dispose()


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    live(engine)
    return backing_up(engine, tmp_path)[0]


@pytest.fixture
def restored_engine(empty_url: str) -> Iterator[Engine]:
    engine = connect(empty_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    "step", ["reading the", "dumping", "counting", "putting", "reading it", "removing"]
)
def test_a_taker_that_is_killed_leaves_a_whole_backup_or_none(
    app: App, database_url: str, tmp_path: Path, step: str
) -> None:
    root = backups.backup_dir(app.settings, demo=False)
    kill("take", step, database_url, tmp_path)
    is_there = step in ("reading it", "removing")
    assert len(backup_files.names(root)) == is_there
    for name in backup_files.names(root):
        backups.check(backup_files.opened(root, name))
    made = backups.take(app, BackupKind.DATABASE, since=DAY, say=quiet)
    assert (made is None) is is_there
    # The same end state as after one run that was let through.
    [name] = [path.name for path in root.iterdir()]
    backups.check(backup_files.opened(root, name))
    assert service.known(app.engine).newest[BackupKind.DATABASE].name == name


@pytest.mark.parametrize("step", ["reading", "filling", "archive", "comparing", "stopping", "done"])
def test_a_restore_that_is_killed_leaves_nothing_that_trades_and_goes_on(
    app: App,
    engine: Engine,
    database_url: str,
    empty_url: str,
    restored_engine: Engine,
    tmp_path: Path,
    step: str,
) -> None:
    made = taken(app)
    trade_on(engine)
    change(engine, ArmVerb.HALT)
    app.clock.advance_to(TAKEN.replace(hour=13))  # type: ignore[attr-defined]
    taken(app, BackupKind.STATE)
    kill("restore", step, database_url, tmp_path, empty_url)
    if step in ("reading", "filling", "archive"):
        assert migrate.current(empty_url) is None
    else:
        with pytest.raises(Killed):
            assign(restored_engine, ["next"])
    if step != "done":
        restored(made, empty_url)
    assert killing.states(restored_engine)[0].is_killed
    held = experiments.load(restored_engine, "btc")
    assert {arm.place.policy: arm.place.status for arm in held.arms}[CHALLENGER] == "halted"
    assert service.unfinished_restore(restored_engine) is None


@pytest.mark.parametrize("step", ["filling", "stopping", "starting", "counting"])
def test_a_drill_that_is_killed_leaves_no_server_and_the_next_one_passes(
    app: App, database_url: str, tmp_path: Path, step: str
) -> None:
    from liveops.restore_drill import exercise

    taken(app)
    kill("drill", step, database_url, tmp_path)
    assert service.known(app.engine).drill is None
    drill = exercise(app, actor="test", say=quiet)
    assert drill.failure is None
    assert drill.rto_seconds is not None
    assert not (tmp_path / "restore_drill").exists()
    assert programs_below(tmp_path) == []


def programs_below(folder: Path) -> list[str]:
    """What still runs with a path below the folder in its command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            found.append(command.decode())
    return found
