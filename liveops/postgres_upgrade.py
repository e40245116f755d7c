"""From an older packaged major version of PostgreSQL to the newest, without losing a row.

The old cluster stays in its place, stopped and unchanged, until the new one holds the same rows and
is on disk. Only then do renames exchange them: a kill at any moment leaves the one or the other,
and the next run begins anew or, between the renames, finishes. Beside `cluster/` there are

- `upgrade/dumps`, and `upgrade/to`, the home of the new cluster while it is filled;
- `upgrade/from`, a second home of the old cluster, with a socket that no other process looks for:
  what somebody wrote after the dump would be lost;
- `cluster.verified`, the new cluster between the first rename and the last;
- `cluster-16`, the old cluster, kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bandit.core.errors import BanditError
from liveops import postgres_home as home
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.postgres_home import SUPERUSER, Major
from liveops.postgres_programs import NEWEST, ProgramFailed, run_program
from snapshots.durable_files import sync_directory

_DISK_FACTOR = 3  # the dumps, the new files, and the log of writing them

_DATABASES = """
SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname
"""
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""


class UnpackagedMajor(BanditError):
    """The cluster was made by a PostgreSQL whose programs do not come with the product.

    >>> print(UnpackagedMajor(cluster=Path("var/postgres/cluster"), found="17"))
    var/postgres/cluster was made by PostgreSQL 17, packaged are 16 and 18: export it with the \
programs of 17 and import into an empty directory
    """

    code = "unpackaged_major"

    def __init__(self, *, cluster: Path, found: str) -> None:
        packaged = " and ".join(str(major) for major in home.PACKAGED)
        super().__init__(
            f"{cluster} was made by PostgreSQL {found}, packaged are {packaged}: export it with "
            f"the programs of {found} and import into an empty directory"
        )
        self.cluster = cluster
        self.found = found


class UpgradeFailed(BanditError):
    """The server stays what it was, and so do its rows; the message says why."""

    code = "upgrade_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeReport:
    """What the cluster was and is, None where there is none, and the old ones that are kept."""

    before: Major | None
    after: Major | None
    kept: tuple[Path, ...]


def upgrade_server(data_dir: Path, *, say: Callable[[str], None]) -> UpgradeReport:
    """Bring the cluster in `data_dir` to the newest packaged PostgreSQL; again changes nothing.

    `say` gets a line before each step. Raises `ServerInUse` while a process owns the directory,
    `UnpackagedMajor` and `UpgradeFailed`; each leaves the cluster as it was.

    >>> upgrade_server(Path("nowhere"), say=print)
    UpgradeReport(before=None, after=None, kept=())
    """
    data_dir = data_dir.absolute()
    try:
        before = _major_of(data_dir / "cluster")
        left_overs = (data_dir / "upgrade").exists() or (data_dir / home.VERIFIED).exists()
        if left_overs or (before is not None and before != NEWEST):
            before = _upgrade_owned(data_dir, say)
        after = _major_of(data_dir / "cluster")
    except OSError as error:
        raise UpgradeFailed(f"upgrading {data_dir} stopped: {error}; run it again") from error
    kept = (_kept(data_dir, major) for major in home.PACKAGED)
    return UpgradeReport(before=before, after=after, kept=tuple(p for p in kept if p.exists()))


def refuse_small_disk(cluster: Path, *, cluster_bytes: int, free_bytes: int) -> None:
    """Raise `UpgradeFailed` where a second cluster and the dumps between them may not fit.

    >>> refuse_small_disk(Path("cluster"), cluster_bytes=10**9, free_bytes=3 * 10**9)
    >>> refuse_small_disk(Path("cluster"), cluster_bytes=10**9, free_bytes=3 * 10**9 - 1)
    Traceback (most recent call last):
    ...
    liveops.postgres_upgrade.UpgradeFailed: cluster has 1000 MB, its disk 2999 MB free, and an \
upgrade needs 3000 MB beside it; free some
    """
    needed_bytes = _DISK_FACTOR * cluster_bytes
    if free_bytes < needed_bytes:
        raise UpgradeFailed(
            f"{cluster} has {cluster_bytes // 10**6} MB, its disk {free_bytes // 10**6} MB free, "
            f"and an upgrade needs {needed_bytes // 10**6} MB beside it; free some"
        )


def require_same_rows(old: Mapping[str, int], new: Mapping[str, int]) -> None:
    """Raise `UpgradeFailed` unless both clusters have the same tables with as many rows.

    >>> require_same_rows({"liveops.public.arms": 2}, {"liveops.public.arms": 1})
    Traceback (most recent call last):
    ...
    liveops.postgres_upgrade.UpgradeFailed: the new server differs: liveops.public.arms had 2 \
rows and would have 1; the old one stays in its place
    """
    for table in sorted(old.keys() | new.keys()):
        had, has = old.get(table, "no"), new.get(table, "no")
        if had != has:
            raise UpgradeFailed(
                f"the new server differs: {table} had {had} rows and would have {has}; the old "
                f"one stays in its place"
            )


def _major_of(cluster: Path) -> Major | None:
    if not cluster.exists():
        return None
    found = home.text_of(cluster / "PG_VERSION").strip()
    for major in home.PACKAGED:
        if found == str(major):
            return major
    if not found:
        home.check_major(cluster, wanted=NEWEST)
    raise UnpackagedMajor(cluster=cluster, found=found)


def _kept(data_dir: Path, major: Major) -> Path:
    return data_dir / f"cluster-{major}"


def _upgrade_owned(data_dir: Path, say: Callable[[str], None]) -> Major | None:
    """Upgrade as the owner, so that no other process starts the old server in between."""
    owner_lock = home.lock_as_owner(data_dir)
    try:
        if home.finish_upgrade(data_dir):
            say("put the new files into their place, where an earlier upgrade was cut off")
        _clear(data_dir)
        before = _major_of(data_dir / "cluster")
        if before is not None and before != NEWEST:
            _upgrade(data_dir, before, say)
    finally:
        os.close(owner_lock)
    return before


def _upgrade(data_dir: Path, before: Major, say: Callable[[str], None]) -> None:
    cluster, kept = data_dir / "cluster", _kept(data_dir, before)
    if kept.exists():
        raise UpgradeFailed(f"{kept} is left from an earlier upgrade; move it away or delete it")
    cluster_bytes = sum(path.lstat().st_size for path in cluster.rglob("*"))
    free_bytes = shutil.disk_usage(data_dir).free
    refuse_small_disk(cluster, cluster_bytes=cluster_bytes, free_bytes=free_bytes)
    home.read_password(data_dir)  # lost, it would be made anew and open nothing
    try:
        _make_homes(data_dir)
        old = _dump(data_dir / "upgrade", before, say)
        new = _restore(data_dir / "upgrade", say)
        require_same_rows(old, new)
        say(f"the same in both: {len(old)} tables, {sum(old.values())} rows")
        _exchange(data_dir, kept, say)
        say("removing the dumps")
    except ProgramFailed as error:
        message = f"{error.what}, the old server stays in its place:\n{error.words}"
        raise UpgradeFailed(message) from error
    except psycopg.Error as error:
        raise UpgradeFailed(f"{error}; the old server stays in its place") from error
    finally:
        _clear(data_dir)


def _make_homes(data_dir: Path) -> None:
    work = data_dir / "upgrade"
    for place in (work, work / "from", work / "to"):
        home.make_home(place)
        if place is not work:
            (place / "pgpass").symlink_to(data_dir / "pgpass")
    (work / "from" / "server.lock").symlink_to(data_dir / "server.lock")
    (work / "from" / "cluster").symlink_to(data_dir / "cluster")
    (work / "dumps").mkdir(mode=0o700)


def _dump(work: Path, major: Major, say: Callable[[str], None]) -> dict[str, int]:
    """Export the roles and every database of the old cluster; return the rows of each table."""
    with EmbeddedPostgres(data_dir=work / "from", major=major) as server:
        roles = work / "dumps" / "roles.sql"
        run_program(
            "pg_dumpall", "--roles-only", f"--file={roles}", "-d", server.conninfo("postgres")
        )
        # The new cluster's superuser is there already; what the script alters about it may stay.
        script = roles.read_bytes().replace(f"\nCREATE ROLE {SUPERUSER};\n".encode(), b"\n")
        roles.write_bytes(script)
        for name in _databases(server):
            say(f"dumping {name} from PostgreSQL {major}")
            address = make_conninfo(server.conninfo("postgres"), dbname=name)
            target = f"--file={_archive(work, name)}"
            run_program("pg_dump", "--format=custom", "--statistics", target, "-d", address)
        return _rows(server)


def _restore(work: Path, say: Callable[[str], None]) -> dict[str, int]:
    """Make the new cluster and import everything; return the rows of each table."""
    with EmbeddedPostgres(data_dir=work / "to", major=NEWEST) as server:
        to_server = ("-d", server.conninfo("postgres"))
        roles = f"--file={work / 'dumps' / 'roles.sql'}"
        run_program("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", roles, *to_server)
        for archive in sorted((work / "dumps").glob("*.dump")):
            say(f"restoring {unquote(archive.stem)} into PostgreSQL {NEWEST}")
            run_program("pg_restore", "--create", "--exit-on-error", *to_server, str(archive))
        return _rows(server)


def _exchange(data_dir: Path, kept: Path, say: Callable[[str], None]) -> None:
    (data_dir / "upgrade" / "to" / "cluster").rename(data_dir / home.VERIFIED)
    sync_directory(data_dir)
    say(f"keeping the old files as {kept}")
    (data_dir / "cluster").rename(kept)
    sync_directory(data_dir)
    say(f"putting the new files into their place, {data_dir / 'cluster'}")
    home.finish_upgrade(data_dir)


def _clear(data_dir: Path) -> None:
    """Remove what an upgrade leaves, once the last process of its servers is gone."""
    work = data_dir / "upgrade"
    for place in (work / "from", work / "to"):
        if place.exists():
            os.close(home.lock_for_server(place))
            home.remove_socket_directory(place)
    outdated = data_dir / home.VERIFIED
    if outdated.exists() and (data_dir / "cluster").exists():
        home.make_home(work)
        outdated.rename(work / "outdated")  # first: a half-removed one must not bear that name
    home.cleared(work)


def _archive(work: Path, database: str) -> Path:
    return work / "dumps" / f"{quote(database, safe='')}.dump"


def _databases(server: EmbeddedPostgres) -> list[str]:
    with closing(_connect(server, "postgres")) as connection:
        return [name for (name,) in connection.execute(_DATABASES)]


def _rows(server: EmbeddedPostgres) -> dict[str, int]:
    counts: dict[str, int] = {}
    for database in _databases(server):
        with closing(_connect(server, database)) as connection:
            for schema, table in connection.execute(_TABLES).fetchall():
                name = sql.Identifier(schema, table)
                counted = connection.execute(sql.SQL("SELECT count(*) FROM ONLY {}").format(name))
                counts[f"{database}.{schema}.{table}"] = counted.fetchall()[0][0]
    return counts


def _connect(server: EmbeddedPostgres, database: str) -> psycopg.Connection:
    password = home.read_password(server.data_dir)
    conninfo = make_conninfo(server.conninfo("postgres"), dbname=database, password=password)
    return psycopg.connect(conninfo, autocommit=True)
