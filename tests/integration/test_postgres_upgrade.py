"""An older server becomes the newest with every row, or stays as it was, whatever interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ledger
import psycopg
import pytest
from embedded_owner import ENVIRONMENT, ROOT, ask, copy_of
from postgres_server import roomy_shared_memory

from bandit.service.ledger import ledger_digest
from bandit.storage import migrate
from bandit.storage.engine import connect
from liveops.cli import app, exit_code
from liveops.embedded_postgres import EmbeddedPostgres, ServerFailed, ServerInUse
from liveops.postgres_home import VERIFIED, Major
from liveops.postgres_upgrade import (
    UnpackagedMajor,
    UpgradeFailed,
    UpgradeReport,
    upgrade_server,
)

# What an upgrade says before each step, and which version a start then finds after a kill.
STEPS: dict[str, Major] = {
    "dumping": 16,
    "restoring": 16,
    "the same": 16,
    "keeping": 16,
    "putting": 18,
    "removing": 18,
}

# A process that upgrades DATA_DIR and is killed when it says that STEP comes next.
KILLED = """
import os, signal, sys
from pathlib import Path
from liveops.postgres_upgrade import upgrade_server
data_dir, step = sys.argv[1:]
def say(line):
    if line.startswith(step):
        os.kill(os.getpid(), signal.SIGKILL)
upgrade_server(Path(data_dir), say=say)
"""


def server_of(data_dir: Path, major: Major = 18) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir=data_dir, major=major, durable=False)


def run_sql(server: EmbeddedPostgres, *statements: str, database: str = "liveops") -> None:
    with psycopg.connect(server.conninfo(database), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def ignore(line: str) -> None:
    pass


def digest_at(data_dir: Path, major: Major = 18) -> str:
    with server_of(data_dir, major) as server:
        return digest_of(server)


def digest_of(server: EmbeddedPostgres) -> str:
    engine = connect(server.url("liveops"))
    digest = ledger_digest(engine)
    engine.dispose()
    return digest


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


@contextmanager
def passable_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=roomy_shared_memory()) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def folder() -> Iterator[Path]:
    with passable_folder() as found:
        yield found


@pytest.fixture(scope="module")
def stopped_16() -> Iterator[tuple[Path, str]]:
    """A stopped server of version 16 with a ledger that has outcomes, and the ledger's digest."""
    with passable_folder() as found:
        with server_of(found / "postgres", 16) as server:
            server.create_database("liveops")
            migrate.upgrade(server.url("liveops"))
            engine = connect(server.url("liveops"))
            ledger.open_btc(engine)
            ledger.feed(engine, "prod", ["0.01", "-0.02"])
            engine.dispose()
            digest = digest_of(server)
        yield found / "postgres", digest


@pytest.fixture
def old(stopped_16: tuple[Path, str], folder: Path) -> Path:
    """A copy of its data directory of this test's own."""
    return copy_of(stopped_16[0], folder / "postgres")


@pytest.fixture
def digest(stopped_16: tuple[Path, str]) -> str:
    return stopped_16[1]


# --- what an upgrade keeps ---------------------------------------------------------------------


def test_the_ledger_is_the_same_on_18_and_goes_on(old: Path, digest: str) -> None:
    report = upgrade_server(old, say=ignore)
    assert report == UpgradeReport(before=16, after=18, kept=(old / "cluster-16",))
    with server_of(old) as server:
        assert str(ask(server, "SHOW server_version")).startswith("18.")
        assert ask(server, "SHOW data_checksums") == "on"
        assert digest_of(server) == digest
        for change in ("UPDATE outcomes SET pnl = 0", "DELETE FROM policies"):
            with pytest.raises(psycopg.errors.RestrictViolation, match="is append-only"):
                run_sql(server, change)
        engine = connect(server.url("liveops"))
        ledger.feed(engine, "prod", ["0.03"], prefix="later")
        engine.dispose()
        assert ask(server, "SELECT max(trades) FROM bandit_arms", "liveops") == 3


def test_nothing_is_left_but_the_old_files_which_still_work(old: Path, digest: str) -> None:
    before = {path.name for path in old.iterdir()}
    upgrade_server(old, say=ignore)
    assert programs_below(old) == []
    assert {path.name for path in old.iterdir()} == before | {"cluster-16"}
    (old / "cluster").rename(old / "cluster-18")
    (old / "cluster-16").rename(old / "cluster")
    assert digest_at(old, 16) == digest


def test_roles_rights_statistics_and_every_database_come_along(old: Path) -> None:
    with server_of(old, 16) as server:
        run_sql(
            server,
            "CREATE ROLE reader LOGIN PASSWORD 'secret'",
            'CREATE DATABASE "My notes/1" OWNER reader',
            "GRANT SELECT ON outcomes TO reader",
            "ANALYZE outcomes",
        )
    upgrade_server(old, say=ignore)
    with server_of(old) as server:
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'My notes/1'"
        assert ask(server, owner) == "reader"
        right = "SELECT has_table_privilege('reader', 'outcomes', '{}')"
        assert ask(server, right.format("SELECT"), "liveops") is True
        assert ask(server, right.format("INSERT"), "liveops") is False
        known = "SELECT reltuples FROM pg_class WHERE relname = 'outcomes'"
        assert ask(server, known, "liveops") == 2


def test_nobody_can_write_to_the_old_server_while_it_is_read(old: Path) -> None:
    said: list[str] = []

    def intrude(line: str) -> None:
        said.append(line)
        with pytest.raises(ServerInUse):
            server_of(old, 16).start()
        with pytest.raises(ServerFailed, match="cannot create the database late: connection"):
            server_of(old).create_database("late")

    upgrade_server(old, say=intrude)
    assert [line.startswith(step) for line, step in zip(said, STEPS, strict=True)] == [True] * 6


# --- killed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_loses_nothing_for_the_next_start_and_the_next_run(
    old: Path, digest: str, step: str
) -> None:
    killed = subprocess.run(
        [sys.executable, "-B", "-c", KILLED, str(old), step],
        cwd=ROOT,
        env=ENVIRONMENT,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    with server_of(old, STEPS[step]) as server:
        assert digest_of(server) == digest
        run_sql(server, "CREATE TABLE late AS SELECT 7 AS number")
    report = upgrade_server(old, say=ignore)
    assert (report.after, report.kept) == (18, (old / "cluster-16",))
    assert {"upgrade", VERIFIED}.isdisjoint(path.name for path in old.iterdir())
    with server_of(old) as server:
        assert digest_of(server) == digest
        assert ask(server, "SELECT number FROM late", "liveops") == 7


def test_a_run_after_a_kill_between_the_renames_finishes(old: Path) -> None:
    (old / "cluster").rename(old / "cluster-16")
    with server_of(old):
        pass  # a new cluster, which stands for the verified one
    (old / "cluster").rename(old / VERIFIED)
    said: list[str] = []
    kept = (old / "cluster-16",)
    assert upgrade_server(old, say=said.append) == UpgradeReport(before=18, after=18, kept=kept)
    assert said == ["put the new files into their place, where an earlier upgrade was cut off"]
    assert (old / "cluster" / "PG_VERSION").read_text() == "18\n"


# --- refused -----------------------------------------------------------------------------------


SPOILERS: dict[str, tuple[str, str]] = {
    "a check that needs another table, which the import does not have yet": (
        """
        CREATE TABLE allowed (n int);
        CREATE FUNCTION is_allowed(int) RETURNS boolean LANGUAGE plpgsql
          AS $$ BEGIN RETURN NOT EXISTS (SELECT FROM allowed a WHERE a.n = $1); END $$;
        CREATE TABLE asked (n int CHECK (is_allowed(n)));
        INSERT INTO asked VALUES (1);
        """,
        r"pg_restore failed, the old server stays in its place:\n(?s:.*)allowed",
    ),
    "a view that writes a row when the import fills it": (
        """
        CREATE TABLE filled (n int);
        CREATE FUNCTION fill() RETURNS int LANGUAGE sql
          AS $$ INSERT INTO public.filled VALUES (1) RETURNING n $$;
        CREATE MATERIALIZED VIEW filling AS SELECT fill();
        """,
        r"liveops\.public\.filled had 1 rows and would have 2; the old one stays",
    ),
}


@pytest.mark.parametrize("why", SPOILERS)
def test_an_upgrade_that_cannot_be_faithful_changes_nothing(
    old: Path, digest: str, why: str
) -> None:
    script, message = SPOILERS[why]
    with server_of(old, 16) as server:
        run_sql(server, script)
    before = sorted(path.name for path in old.iterdir())
    with pytest.raises(UpgradeFailed, match=message):
        upgrade_server(old, say=ignore)
    assert programs_below(old) == []
    assert sorted(path.name for path in old.iterdir()) == before
    assert digest_at(old, 16) == digest


def test_a_running_server_is_left_alone(old: Path) -> None:
    with server_of(old, 16) as server:
        with pytest.raises(ServerInUse):
            upgrade_server(old, say=ignore)
        assert ask(server, "SELECT 1") == 1


def test_old_files_that_are_still_kept_are_not_overwritten(old: Path) -> None:
    (old / "cluster-16").mkdir()
    with pytest.raises(UpgradeFailed, match="cluster-16 is left from an earlier upgrade; move it"):
        upgrade_server(old, say=ignore)
    assert (old / "cluster" / "PG_VERSION").read_text() == "16\n"


@pytest.mark.parametrize("found", ["15", "17", "19"])
def test_a_version_that_is_not_packaged_is_refused(old: Path, found: str) -> None:
    (old / "cluster" / "PG_VERSION").write_text(f"{found}\n")
    with pytest.raises(UnpackagedMajor, match=f"by PostgreSQL {found}, packaged are 16 and 18"):
        upgrade_server(old, say=ignore)


# --- the command -------------------------------------------------------------------------------


def test_the_command_says_what_it_does_and_again_that_there_is_nothing_to_do(
    old: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LIVEOPS_DATABASE_URL", raising=False)
    monkeypatch.setenv("LIVEOPS_HOME", str(old.parent))
    kept = f"the old files are in {old}/cluster-16; delete them when all is well\n"
    assert exit_code(app, ["db", "upgrade-server"]) == 0
    first = capsys.readouterr()
    assert first.out == f"the server is PostgreSQL 18, was 16\n{kept}"
    assert first.err.splitlines()[:2] == [
        "dumping liveops from PostgreSQL 16",
        "restoring liveops into PostgreSQL 18",
    ]
    with server_of(old):
        assert exit_code(app, ["db", "upgrade-server"]) == 0
    assert capsys.readouterr() == (f"nothing to do: the server is PostgreSQL 18\n{kept}", "")


def test_before_the_first_start_there_is_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LIVEOPS_DATABASE_URL", raising=False)
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    assert exit_code(app, ["db", "upgrade-server"]) == 0
    assert capsys.readouterr().out == "nothing to do: no server was started here yet\n"
    assert list(tmp_path.iterdir()) == []


def test_a_server_of_ones_own_is_not_ours_to_upgrade(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", "postgresql://me:secret@db/liveops")
    assert exit_code(app, ["db", "upgrade-server"]) == 2
    said = capsys.readouterr()
    assert "a server of your own is upgraded with its own tools" in said.err
    assert "secret" not in said.err + said.out
