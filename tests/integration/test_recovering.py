"""The embedded server comes back as it was at a moment, by a copy of its files and its log."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from backed_up import live, quiet
from embedded_owner import ROOT
from ledger import CHALLENGER, assign, change
from server_log import archived, segments, settings_of
from sqlalchemy import text

from bandit.core.backups import BackupDamaged, BackupKind, RestoreRefused
from bandit.core.errors import Killed, UnknownName
from bandit.core.lifecycle import ArmVerb
from bandit.service import experiments, killing
from config.settings import Settings
from liveops import backups
from liveops.base_backups import check_copy
from liveops.clock import SystemClock
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.postgres_archive import first_needed
from liveops.postgres_programs import ProgramFailed
from liveops.recovering import Recovered, recover
from liveops.restoring import RestoreFailed
from liveops.wiring import running_app
from snapshots import backup_files

# A process that brings the server of HOME back, and is killed when it says that STEP comes next.
KILLED = """
import os, signal, sys
from config.settings import Settings
from liveops.base_backups import check_copy
from liveops.clock import SystemClock
from liveops.postgres_archive import first_needed
from liveops.postgres_programs import ProgramFailed
from liveops.recovering import recover
home, wal, step = sys.argv[1:]
def say(line):
    if line.startswith(step):
        os.kill(os.getpid(), signal.SIGKILL)
settings = Settings.model_validate({"home": home, "backup": {"wal_archive_dir": wal}})
recover(settings, at=None, now=SystemClock().now, actor="test", say=say)
"""


@dataclass(frozen=True)
class Lost:
    """A home whose server is gone: what is left, and a moment that its log goes through."""

    settings: Settings
    at: datetime

    @property
    def place(self) -> Path:
        return Path(self.settings.home) / "postgres"

    def back(self, at: datetime | None) -> Recovered:
        how: dict[str, Any] = {"now": SystemClock().now, "actor": "test", "say": quiet}
        return recover(self.settings, at=at, **how)

    def units(self) -> set[str]:
        """The units of the ledger that came back, of which nothing may be decided."""
        with running_app(self.settings, demo=False, create=False, upgrade=False) as app:
            with pytest.raises(Killed):
                assign(app.engine, ["next"])
            assert all(account.is_killed for account in killing.states(app.engine))
            held = experiments.load(app.engine, "btc")
            assert {a.place.policy: a.place.status for a in held.arms}[CHALLENGER] == "halted"
            with app.engine.connect() as connection:
                found = connection.execute(text("SELECT unit_id FROM assignments")).scalars()
                return {unit for unit in found if unit.startswith("around")}


@pytest.fixture(scope="module")
def lost_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, datetime]:
    """Live, copy the server, go on before and after a moment, stop an arm, and lose the server."""
    folder = tmp_path_factory.mktemp("home")
    settings = settings_of(folder)
    with running_app(settings, demo=False, create=True, upgrade=True) as app:
        live(app.engine)
        assert backups.take(app, BackupKind.BASE, say=quiet) is not None
        assign(app.engine, ["around-before"])
        server = EmbeddedPostgres(data_dir=folder / "var" / "postgres")
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
            at = moment(admin)
            archived(admin)
            assign(app.engine, ["around-after"])
            archived(admin)
            change(app.engine, ArmVerb.HALT)
            assert backups.take(app, BackupKind.STATE, say=quiet) is not None
            archived(admin)
    (folder / "var" / "postgres").rename(folder / "var" / "postgres.lost")
    return folder, at


def moment(admin: psycopg.Connection) -> datetime:
    """A moment of the server's clock between what was committed and what will be."""
    row = admin.execute("SELECT clock_timestamp() FROM pg_sleep(0.01)").fetchone()
    assert row is not None
    admin.execute("SELECT pg_sleep(0.01)")
    found: datetime = row[0]
    return found.astimezone(UTC)


@pytest.fixture
def lost(lost_home: tuple[Path, datetime], tmp_path: Path) -> Lost:
    """What is left of it, in a home of this test's own."""
    folder, at = lost_home
    for part in ("var/backups", "wal"):
        shutil.copytree(folder / part, tmp_path / part)
    return Lost(settings=settings_of(tmp_path), at=at)


def test_the_server_comes_back_as_it_was_at_a_moment_and_stopped(lost: Lost) -> None:
    found = lost.back(lost.at)
    assert found.known_from is not None
    assert found.known_from.startswith("state_backup_")
    assert lost.units() == {"around-before"}
    assert {path.name for path in lost.place.parent.iterdir()} == {"backups", "postgres"}
    with pytest.raises(RestoreRefused, match="is there"):
        lost.back(lost.at)


def test_without_a_moment_it_comes_back_to_the_end_of_the_log(lost: Lost) -> None:
    lost.back(None)
    assert lost.units() == {"around-before", "around-after"}


def test_restores_of_one_copy_leave_each_a_log_of_its_own(lost: Lost) -> None:
    lost.back(lost.at)
    lives_on(lost)
    lost.place.rename(lost.place.with_name("postgres.again"))
    lost.back(lost.at)
    lives_on(lost)
    timelines = {path.name[:8] for path in archive(lost)}
    assert timelines == {"00000001", "00000002", "00000003"}
    lost.place.rename(lost.place.with_name("postgres.more"))
    lost.back(None)
    assert lost.units() == {"around-before", "around-after"}


def lives_on(lost: Lost) -> None:
    """Serve what came back, and archive what it writes."""
    with running_app(lost.settings, demo=False, create=False, upgrade=False):
        server = EmbeddedPostgres(data_dir=lost.place)
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
            archived(admin)


def test_a_moment_that_the_log_does_not_reach_is_refused(lost: Lost) -> None:
    with pytest.raises(RestoreFailed, match="does not lead to that moment"):
        lost.back(lost.at + timedelta(days=1))
    assert not lost.place.exists()
    with pytest.raises(UnknownName):
        lost.back(lost.at - timedelta(days=1))


def test_a_log_with_a_hole_never_passes_for_a_whole_one(lost: Lost) -> None:
    log = archive(lost)
    log[len(log) // 2].unlink()
    with pytest.raises(
        RestoreRefused, match=f"lacks what comes after {log[len(log) // 2 - 1].name}"
    ):
        lost.back(None)
    assert not lost.place.exists()


def test_a_log_that_is_elsewhere_is_refused(lost: Lost) -> None:
    [log] = Path(str(lost.settings.backup.wal_archive_dir)).iterdir()
    log.rename(log.with_name("elsewhere"))
    with pytest.raises(RestoreRefused, match=f"{log.name} is not there"):
        lost.back(None)
    assert not lost.place.exists()


def archive(lost: Lost) -> list[Path]:
    [log] = Path(str(lost.settings.backup.wal_archive_dir)).iterdir()
    return segments(log)


def test_what_no_copy_needs_of_the_log_is_removed(lost: Lost) -> None:
    root = lost.place.parent / "backups"
    copied = root / backup_files.names(root, BackupKind.BASE)[0] / "cluster"
    assert archive(lost)[0].name == first_needed(copied) != "000000010000000000000001"


def test_a_log_that_ends_too_early_is_refused(lost: Lost) -> None:
    # All but what the copy itself brings: the moment lies behind it.
    for path in archive(lost):
        path.unlink()
    with pytest.raises(RestoreFailed):
        lost.back(lost.at)
    assert not lost.place.exists()


@pytest.mark.parametrize("name", ["cluster/base/1/1259", "cluster/PG_VERSION", "pgpass"])
def test_a_damaged_copy_is_refused(lost: Lost, name: str) -> None:
    root = lost.place.parent / "backups"
    path = root / backup_files.names(root, BackupKind.BASE)[0] / name
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(BackupDamaged):
        lost.back(lost.at)
    assert not lost.place.exists()


@pytest.mark.parametrize("step", ["reading", "going", "stopping", "putting"])
def test_a_recovery_that_is_killed_is_as_if_nothing_was_done(lost: Lost, step: str) -> None:
    home, wal = lost.settings.home, lost.settings.backup.wal_archive_dir
    command = [sys.executable, "-B", "-c", KILLED, str(home), str(wal), step]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not lost.place.exists()
    lost.back(lost.at)
    assert lost.units() == {"around-before"}


def test_the_servers_own_manifest_is_held_against_its_files(lost: Lost) -> None:
    root = lost.place.parent / "backups"
    copied = root / backup_files.names(root, BackupKind.BASE)[0] / "cluster"
    check_copy(copied)
    manifest = copied / "backup_manifest"
    whole = manifest.read_text()
    for spoil, said in (
        (lambda: manifest.write_text(whole.replace('"Size": 3', '"Size": 4')), "not what it wrote"),
        (lambda: (copied / "PG_VERSION").write_text("19\n"), "other bytes of PG_VERSION"),
        (lambda: (copied / "PG_VERSION").unlink(), "copied PG_VERSION with 3 bytes"),
    ):
        manifest.write_text(whole)
        spoil()
        with pytest.raises(BackupDamaged, match=said):
            check_copy(copied)


def test_a_copy_without_its_part_of_the_log_is_refused(lost: Lost) -> None:
    root = lost.place.parent / "backups"
    copied = root / backup_files.names(root, BackupKind.BASE)[0] / "cluster"
    for path in (copied / "pg_wal").glob("0*"):
        path.unlink()
    with pytest.raises(ProgramFailed, match="pg_waldump"):
        check_copy(copied)


def test_a_server_of_ones_own_is_left_to_its_own_tools(lost: Lost) -> None:
    told = {**lost.settings.model_dump(), "database": {"url": "postgresql://nobody@nowhere/x"}}
    with pytest.raises(RestoreRefused, match="its own tools"):
        Lost(settings=Settings.model_validate(told), at=lost.at).back(None)
