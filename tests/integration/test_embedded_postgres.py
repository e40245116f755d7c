"""The embedded server keeps what it was given, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from embedded_owner import (
    ask,
    await_ready,
    gone,
    is_running,
    kill,
    owner,
    postmaster_pid,
    python_of,
    server_at,
)

from bandit.core.errors import InvalidInput
from liveops import postgres_home
from liveops.embedded_postgres import EmbeddedPostgres, RunAs, ServerFailed, ServerInUse
from liveops.postgres_launch import can_run, choose_run_as, is_open_to_us, launch_command

IS_ROOT = os.geteuid() == 0
NAMELESS_UID = 54321


def works(run_as: RunAs, folder: Path) -> bool:
    postgres = postgres_home.packaged_binaries(18) / "postgres"
    return is_open_to_us(run_as) and can_run(run_as, postgres, data_dir=folder)


def test_first_start_makes_a_durable_checksummed_server_off_the_network(open_folder: Path) -> None:
    settings = {
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "timezone": "UTC",
        "server_encoding": "UTF8",
        "max_connections": "100",
        "shared_buffers": "64MB",
    }
    with EmbeddedPostgres(data_dir=open_folder / "postgres") as server:
        assert {name: ask(server, f"SHOW {name}") for name in settings} == settings


def test_a_restart_keeps_the_rows(postgres_dir: Path) -> None:
    with server_at(postgres_dir) as server:
        ask(server, "CREATE TABLE kept AS SELECT 7 AS number")
    with server_at(postgres_dir) as server:
        assert ask(server, "SELECT number FROM kept") == 7
    assert "shut down" in (postgres_dir / "server.log.1").read_text()


def test_starting_a_running_server_changes_nothing(postgres_dir: Path) -> None:
    with server_at(postgres_dir) as server:
        before = postmaster_pid(postgres_dir)
        server.start()
        assert postmaster_pid(postgres_dir) == before


def test_nobody_else_on_the_machine_gets_in(postgres_dir: Path) -> None:
    with server_at(postgres_dir) as server:
        assert (postgres_dir / "socket").stat().st_mode & 0o777 == 0o700
        assert (postgres_dir / "pgpass").stat().st_mode & 0o777 == 0o600
        assert (postgres_dir / "server.log").stat().st_mode & 0o777 == 0o600
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.conninfo("postgres"), password="guess")  # noqa: S106
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(server.conninfo("postgres"), passfile="/nowhere")


def test_the_callers_own_postgres_variables_change_nothing(
    postgres_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGPORT", "PGPASSWORD", "PGDATA", "PGUSER", "PGDATABASE", "LC_ALL"):
        monkeypatch.setenv(name, "1234")
    with server_at(postgres_dir) as server:
        server.create_database("mine")
        assert ask(server, "SELECT current_user", "mine") == "liveops"


def test_a_database_is_created_once_and_asked_for_twice(postgres_dir: Path) -> None:
    with server_at(postgres_dir) as server:
        server.create_database("liveops_demo")
        ask(server, "CREATE TABLE kept ()", "liveops_demo")
        server.create_database("liveops_demo")
        assert ask(server, "SELECT to_regclass('kept')::text", "liveops_demo") == "kept"


@pytest.mark.parametrize("name", ["", "1a", "Upper", "a-b", "a b", 'a"; DROP', "x" * 64])
def test_a_database_name_that_needs_quoting_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="database: must be lower-case letters"):
        server_at(tmp_path).url(name)


def test_another_process_may_use_the_running_server(postgres_dir: Path) -> None:
    with server_at(postgres_dir):
        psql = postgres_home.packaged_binaries(18) / "psql"
        asked = subprocess.run(
            [psql, server_at(postgres_dir).conninfo("postgres"), "-Atc", "SELECT 6 * 7"],
            env={},
            capture_output=True,
            text=True,
            check=True,
        )
    assert asked.stdout == "42\n"


def test_major_16_can_be_chosen_and_18_refuses_its_data(open_folder: Path) -> None:
    with EmbeddedPostgres(data_dir=open_folder, durable=False, major=16) as server:
        assert str(ask(server, "SHOW server_version")).startswith("16.")
    with pytest.raises(
        ServerFailed, match=r"made by PostgreSQL 16, the binaries are 18.*version 16"
    ):
        server_at(open_folder).start()
    with EmbeddedPostgres(data_dir=open_folder, durable=False, major=16) as server:
        assert ask(server, "SELECT 1") == 1


# --- however it ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run_as", "uid"),
    [
        ("nobody_copied", 0),
        ("own_user", pwd.getpwnam("daemon").pw_uid),
        ("-", NAMELESS_UID),
        ("namespace", 0),
        ("nobody", 0),
    ],
)
@pytest.mark.skipif(not IS_ROOT, reason="only root can become the other users")
def test_kill_9_of_the_owner_stops_the_server(open_folder: Path, run_as: str, uid: int) -> None:
    data_dir = open_folder / "postgres"
    os.chown(open_folder, uid, uid)
    needed = {"-": RunAs.NAMESPACE, "namespace": RunAs.NAMESPACE, "nobody": RunAs.NOBODY}
    if run_as in needed and not works(needed[run_as], open_folder):
        pytest.skip(f"a server cannot run here as {needed[run_as]}")
    process = owner(
        data_dir, run_as=run_as, uid=uid, python=python_of(uid) if uid else sys.executable
    )
    await_ready(process)
    pid = postmaster_pid(data_dir)
    expected = pwd.getpwnam("nobody").pw_uid if run_as.startswith("nobody") else uid
    assert Path(f"/proc/{pid}").stat().st_uid == expected
    kill(process)
    assert gone(pid)
    assert not (data_dir / "cluster" / "postmaster.pid").exists()  # it had the time to be orderly


@pytest.mark.skipif(not IS_ROOT, reason="only root can become nobody")
def test_nobody_cannot_run_what_lies_below_a_private_folder(open_folder: Path) -> None:
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    program = Path(shutil.copy("/bin/true", private))
    assert not can_run(RunAs.NOBODY, program, data_dir=open_folder)
    assert not can_run(RunAs.NOBODY, Path("/bin/true"), data_dir=private)
    assert can_run(RunAs.NOBODY, Path("/bin/true"), data_dir=open_folder)


@pytest.mark.skipif(not IS_ROOT, reason="only root can change users")
def test_a_cluster_follows_its_owner_from_one_user_to_another(open_folder: Path) -> None:
    if not works(RunAs.NAMESPACE, open_folder):
        pytest.skip("a server cannot run here in a user namespace")
    for run_as in (RunAs.NOBODY_COPIED, RunAs.NAMESPACE, RunAs.NOBODY_COPIED):
        server = EmbeddedPostgres(data_dir=open_folder / "pg", durable=False, run_as=run_as)
        with server:
            assert ask(server, "SELECT 1") == 1


def test_kill_9_of_an_owner_like_this_process_stops_the_server(postgres_dir: Path) -> None:
    process = owner(postgres_dir)
    await_ready(process)
    pid = postmaster_pid(postgres_dir)
    kill(process)
    assert gone(pid)


def test_the_next_owner_waits_for_the_server_of_a_killed_one(postgres_dir: Path) -> None:
    process = owner(postgres_dir)
    await_ready(process)
    before = postmaster_pid(postgres_dir)
    kill(process)
    with server_at(postgres_dir) as server:
        assert not is_running(before)
        assert ask(server, "SELECT 1") == 1


def test_an_owner_that_forgets_to_stop_stops_at_its_exit(postgres_dir: Path) -> None:
    process = owner(postgres_dir, ending="leave")
    assert process.communicate()[0] == "ready\n"
    assert process.returncode == 0
    assert not (postgres_dir / "cluster" / "postmaster.pid").exists()


def test_ctrl_c_at_the_owner_stops_the_server_in_order(postgres_dir: Path) -> None:
    process = owner(postgres_dir)
    await_ready(process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert not (postgres_dir / "cluster" / "postmaster.pid").exists()


def test_an_acknowledged_row_survives_kill_9_of_the_server(open_folder: Path) -> None:
    server = EmbeddedPostgres(data_dir=open_folder / "postgres")
    server.start()
    with psycopg.connect(server.conninfo("postgres")) as busy:
        busy.execute("CREATE TABLE kept AS SELECT 7 AS number")
        busy.commit()
        killed = postmaster_pid(server.data_dir)
        os.kill(killed, signal.SIGKILL)
        assert gone(killed)
        server.start()
    assert ask(server, "SELECT number FROM kept") == 7
    server.stop()


def test_a_server_that_does_not_react_is_stopped_by_force(postgres_dir: Path) -> None:
    server = server_at(postgres_dir)
    server.start()
    pid = postmaster_pid(postgres_dir)
    os.kill(pid, signal.SIGSTOP)
    server.stop(patience_seconds=0.2)
    assert not is_running(pid)
    with server_at(postgres_dir) as server:
        assert ask(server, "SELECT 1") == 1


def test_stopping_twice_or_before_a_start_does_nothing(postgres_dir: Path) -> None:
    server = server_at(postgres_dir)
    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_a_start_killed_during_initdb_leaves_no_half_cluster(open_folder: Path) -> None:
    data_dir = open_folder / "postgres"
    process = owner(data_dir)
    while not (data_dir / "cluster.new" / "base").exists():
        assert process.poll() is None
        threading.Event().wait(0.01)
    kill(process)
    assert not (data_dir / "cluster").exists()
    with server_at(data_dir) as server:
        assert ask(server, "SELECT 1") == 1
    assert not (data_dir / "cluster.new").exists()
    assert not (data_dir / "password.new").exists()


# --- what a former server left -----------------------------------------------------------------


def zombie() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


@pytest.mark.parametrize("whose", ["nobody's", "a zombie's", "another program's", "unreadable"])
def test_a_pid_file_left_by_a_killed_server_does_not_prevent_a_start(
    postgres_dir: Path, whose: str
) -> None:
    server = server_at(postgres_dir)
    server.start()
    os.kill(postmaster_pid(postgres_dir), signal.SIGKILL)
    server.stop()
    pid_file = postgres_dir / "cluster" / "postmaster.pid"
    rest = pid_file.read_text().partition("\n")[2]
    dead, living = zombie(), subprocess.Popen(["sleep", "600"])
    if whose == "nobody's":
        dead.wait()
    first = {"another program's": str(living.pid), "unreadable": ""}.get(whose, str(dead.pid))
    pid_file.write_text(f"{first}\n{rest}" if first else "")
    with server:
        assert ask(server, "SELECT 1") == 1
    assert living.poll() is None
    living.kill()
    living.wait()
    dead.wait()


def test_a_server_started_by_hand_is_left_alone(postgres_dir: Path, open_folder: Path) -> None:
    postgres = postgres_home.packaged_binaries(18) / "postgres"
    run_as = choose_run_as(works=lambda way: works(way, open_folder))
    if run_as is None:
        pytest.skip("the packaged server cannot run here where it lies")
    cluster = str(postgres_dir / "cluster")
    by_hand = subprocess.Popen(
        launch_command(run_as, postgres, "-D", cluster, "-k", cluster, "-h", ""),
        stderr=subprocess.DEVNULL,
    )
    pid_file = postgres_dir / "cluster" / "postmaster.pid"
    while not (pid_file.exists() and "ready" in pid_file.read_text()):
        assert by_hand.poll() is None
    with pytest.raises(ServerInUse) as refused:
        server_at(postgres_dir).start()
    assert refused.value.pid == by_hand.pid
    assert by_hand.poll() is None
    by_hand.send_signal(signal.SIGINT)
    assert by_hand.wait() == 0


def test_a_second_owner_is_refused_and_the_first_one_goes_on(postgres_dir: Path) -> None:
    with server_at(postgres_dir) as first:
        with pytest.raises(ServerInUse) as refused:
            server_at(postgres_dir).start()
        assert str(refused.value) == (
            f"{postgres_dir} is in use by process {os.getpid()}; "
            "stop that process, or choose another directory"
        )
        assert ask(first, "SELECT 1") == 1
