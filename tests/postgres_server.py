"""The PostgreSQL of a test session: one server, shared by all its workers, gone with the last one.

Whoever needs it first starts a keeper, which owns the server. Every user holds a shared lock on
`users.lock`; the keeper waits for the exclusive one, which it gets when the last user has left,
killed or not. The server runs without fsync, in shared memory where there is enough of it.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psycopg

from bandit.storage.migrate import upgrade
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.postgres_home import Major

ROOT = Path(__file__).resolve().parents[1]
MIGRATED = "migrated"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a place for a private folder, not a file name
_SHARED_MEMORY_BYTES_MIN = 2**30


class PostgresServer:
    """Makes databases for tests on the server of the session."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._numbers = itertools.count()

    @contextmanager
    def database(self, *, template: str = MIGRATED) -> Iterator[str]:
        """Yield the URL of a new copy of `template` (`template0` is empty); drop it afterwards."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        url = self._server.url("postgres").replace("postgresql+psycopg:", "postgresql:")
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
            try:
                yield self._server.url(name)
            finally:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def session_server(folder: Path, *, major: Major = 18) -> Iterator[PostgresServer]:
    """Use the server of the session whose folder this is; start it where there is none."""
    keeper = None
    try:
        with (folder / "users.lock").open("a") as users:
            with (folder / "start.lock").open("a") as start:
                fcntl.flock(start, fcntl.LOCK_EX)
                fcntl.flock(users, fcntl.LOCK_SH)  # waits for a keeper that is clearing up
                if not (folder / "data_dir").exists():
                    keeper = _start_keeper(folder, major)
            data_dir = Path((folder / "data_dir").read_text())
            yield PostgresServer(EmbeddedPostgres(data_dir=data_dir, durable=False))
    finally:
        if keeper is not None:
            keeper.communicate()  # until the other users have left and the server is gone


def _start_keeper(folder: Path, major: Major) -> subprocess.Popen[bytes]:
    with (folder / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres_server", str(folder), str(major)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert keeper.stdout is not None
    if not keeper.stdout.readline():
        keeper.communicate()
        raise RuntimeError(f"no server for the tests:\n{(folder / 'keeper.log').read_text()}")
    return keeper


def _keep(folder: Path, major: Major) -> None:
    place = tempfile.mkdtemp(prefix="liveops-tests-", dir=roomy_shared_memory())
    Path(place).chmod(0o711)  # root's server may have to run as nobody
    try:
        data_dir = Path(place, "postgres")
        with EmbeddedPostgres(data_dir=data_dir, durable=False, major=major) as server:
            server.create_database(MIGRATED)
            upgrade(server.url(MIGRATED))
            (folder / "data_dir").write_text(str(server.data_dir))
            print("ready", flush=True)
            with (folder / "users.lock").open("a") as users:
                fcntl.flock(users, fcntl.LOCK_EX)
                (folder / "data_dir").unlink()
                server.stop()
    finally:
        shutil.rmtree(place)


def roomy_shared_memory() -> Path | None:
    """Where files cost no disk, or None for the usual temporary folder."""
    if not os.access(_SHARED_MEMORY, os.W_OK):
        return None
    roomy = shutil.disk_usage(_SHARED_MEMORY).free >= _SHARED_MEMORY_BYTES_MIN
    return _SHARED_MEMORY if roomy else None


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), cast(Major, int(sys.argv[2])))
