"""Where an embedded server can live, and what it refuses in plain words."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from embedded_owner import (
    ask,
    await_ready,
    copy_of,
    kill,
    owner,
    postmaster_pid,
    server_at,
)

from bandit.core.errors import InvalidInput
from liveops import postgres_home
from liveops.embedded_postgres import EmbeddedPostgres, ServerFailed, ServerInUse

IS_ROOT = os.geteuid() == 0


# --- where it lives ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with spaces", "a,b", "ünï%20'\"&?", "long" * 40])
def test_any_path_will_do(open_folder: Path, stopped_postgres: Path, name: str) -> None:
    data_dir = copy_of(stopped_postgres, open_folder / name)
    with server_at(data_dir) as server:
        assert ask(server, "SELECT 1") == 1
        socket_dir = postgres_home.socket_directory(data_dir)
        assert socket_dir.stat().st_mode & 0o777 == 0o700
    assert not socket_dir.exists()


def test_first_start_works_below_a_long_path_with_spaces(open_folder: Path) -> None:
    with server_at(open_folder / "long and wide" / ("x" * 120)) as server:
        assert ask(server, "SELECT 1") == 1


def test_the_short_socket_folder_of_a_killed_owner_is_removed_by_the_next_start(
    open_folder: Path, stopped_postgres: Path
) -> None:
    data_dir = copy_of(stopped_postgres, open_folder / ("x" * 120))
    process = owner(data_dir)
    await_ready(process)
    left = postgres_home.socket_directory(data_dir)
    kill(process)
    assert left.exists()
    with server_at(data_dir):
        assert not left.exists()


def test_the_socket_goes_where_it_is_told(postgres_dir: Path, open_folder: Path) -> None:
    socket_dir = open_folder / "elsewhere"
    server = EmbeddedPostgres(data_dir=postgres_dir, durable=False, socket_dir=socket_dir)
    server.start()
    assert (socket_dir / ".s.PGSQL.5432").is_socket()
    os.kill(postmaster_pid(postgres_dir), signal.SIGKILL)
    server.stop()
    lock = socket_dir / ".s.PGSQL.5432.lock"
    lock.write_text(f"{os.getpid()}\n" + lock.read_text().partition("\n")[2])
    with server:
        assert ask(server, "SELECT 1") == 1


def test_a_socket_path_too_long_for_the_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="socket_dir: must have no comma, and at most 107 bytes"):
        EmbeddedPostgres(data_dir=tmp_path, socket_dir=Path("/" + "x" * 93))


# --- what prevents a start ---------------------------------------------------------------------


@pytest.mark.parametrize("file", ["postgresql.conf", "postgresql.auto.conf"])
def test_a_durable_server_refuses_fsync_off(postgres_dir: Path, file: str) -> None:
    with (postgres_dir / "cluster" / file).open("a") as configuration:
        configuration.write("\nfsync = off\n")
    with pytest.raises(ServerFailed, match=r"configured with fsync = off, which loses"):
        EmbeddedPostgres(data_dir=postgres_dir).start()
    with server_at(postgres_dir) as server:
        assert ask(server, "SHOW fsync") == "off"


def test_a_broken_configuration_is_named(postgres_dir: Path) -> None:
    (postgres_dir / "cluster" / "postgresql.conf").write_text("no such line\n")
    with pytest.raises(ServerFailed, match=r"(?s)configuration of .* is broken: .*syntax error"):
        EmbeddedPostgres(data_dir=postgres_dir).start()


def test_a_failed_start_shows_the_end_of_the_servers_log(postgres_dir: Path) -> None:
    with (postgres_dir / "cluster" / "postgresql.conf").open("a") as configuration:
        configuration.write("\nshared_preload_libraries = 'missing'\n")
    with pytest.raises(ServerFailed, match=r'(?s)exit 1\):.*could not access file "missing"'):
        server_at(postgres_dir).start()


def test_a_directory_that_is_no_cluster_is_refused(postgres_dir: Path) -> None:
    (postgres_dir / "cluster" / "PG_VERSION").unlink()
    with pytest.raises(ServerFailed, match="is no PostgreSQL data directory"):
        server_at(postgres_dir).start()


def test_a_lost_password_file_is_named(postgres_dir: Path) -> None:
    (postgres_dir / "pgpass").unlink()
    with pytest.raises(ServerFailed, match="cannot read the server's password"):
        server_at(postgres_dir).url("postgres")


def test_a_data_directory_that_cannot_be_made_is_refused(open_folder: Path) -> None:
    (open_folder / "file").write_text("")
    with pytest.raises(ServerFailed, match=r"cannot start in .*file/postgres: .*Not a directory"):
        server_at(open_folder / "file" / "postgres").start()


def test_a_database_cannot_be_created_while_the_server_is_down(postgres_dir: Path) -> None:
    with pytest.raises(ServerFailed, match="cannot create the database liveops: connection"):
        server_at(postgres_dir).create_database("liveops")


def test_a_failed_initdb_says_why(open_folder: Path) -> None:
    (open_folder / "pgpass").write_text("")
    with pytest.raises(ServerFailed, match=r"(?s)initdb failed in .*password"):
        server_at(open_folder).start()
    assert not (open_folder / "cluster").exists()


def test_200_mb_of_free_space_are_enough_and_less_is_not(tmp_path: Path) -> None:
    postgres_home.refuse_full_disk(tmp_path, free_bytes=200_000_000)
    with pytest.raises(ServerFailed, match="has 12 MB free, PostgreSQL needs 200 MB"):
        postgres_home.refuse_full_disk(tmp_path, free_bytes=12_999_999)


def test_a_full_disk_does_not_hide_the_server_that_runs_on_it(
    postgres_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server_at(postgres_dir):
        monkeypatch.setattr(postgres_home, "_FREE_BYTES_MIN", 10**18)
        with pytest.raises(ServerInUse):  # so that a command beside it may use it
            server_at(postgres_dir).start()
    server = server_at(postgres_dir)
    for _ in range(2):  # and who was refused is not taken for the owner afterwards
        with pytest.raises(ServerFailed, match="PostgreSQL needs 1000000000000 MB"):
            server.start()
    monkeypatch.undo()
    with server:
        assert ask(server, "SELECT 1") == 1


def test_an_owner_who_cannot_sign_the_lock_leaves_it(postgres_dir: Path) -> None:
    (postgres_dir / "owner.lock").unlink()
    (postgres_dir / "owner.lock").symlink_to("/dev/full")
    server = server_at(postgres_dir)
    for _ in range(2):
        with pytest.raises(ServerFailed, match="PostgreSQL cannot start in"):
            server.start()


def test_a_start_outside_the_main_thread_is_refused(postgres_dir: Path) -> None:
    raised: list[Exception] = []

    def start() -> None:
        try:
            server_at(postgres_dir).start()
        except ServerFailed as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "from the main thread" in str(raised[0])


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user needs no other one")
def test_root_without_a_way_to_run_it_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("PATH", "/nowhere")  # where there is no unshare
    with pytest.raises(ServerFailed, match=r"no user to run PostgreSQL as.*user nobody can enter"):
        server_at(tmp_path / "postgres").start()
