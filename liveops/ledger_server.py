"""Where the ledger lives: a configured server, or an embedded one shared by our own processes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

import liveops
from bandit.core.errors import InvalidInput, LedgerUnavailable
from bandit.storage import migrate
from config.settings import Settings
from liveops import postgres_home
from liveops.embedded_postgres import EmbeddedPostgres, ServerFailed, ServerInUse

PRODUCTION_DATABASE = "liveops"
DEMO_DATABASE = "liveops_demo"
log = logging.getLogger(__name__)
_ATTEMPTS, _PAUSE_SECONDS = 150, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server while it is ours to use; `revive` starts an embedded one of ours that died."""

    url: str
    revive: Callable[[], None]


def state_home(settings: Settings) -> Path:
    """Return the directory that holds all state.

    A relative one is meant from the checkout, wherever a command is started: cron starts it
    elsewhere.
    """
    return _from_checkout(settings.home)


def anchor_dir(settings: Settings) -> Path:
    """Return the directory that holds the anchors of the audit log's chain."""
    chosen = settings.audit.anchor_dir
    return state_home(settings) if chosen is None else _from_checkout(chosen)


def archive_dir(settings: Settings) -> Path:
    """Return the directory that holds what has left ledgers."""
    chosen = settings.ageing.archive_dir
    return state_home(settings) / "archives" if chosen is None else _from_checkout(chosen)


def snapshot_dir(settings: Settings, *, demo: bool) -> Path:
    """Return the directory that holds snapshots, and those a bucket has not taken yet.

    The demo has one of its own beside it.
    """
    chosen = settings.snapshots.local_dir
    path = state_home(settings) / "snapshots" if chosen is None else _from_checkout(chosen)
    return path.with_name(f"{path.name}.demo") if demo else path


def tuning_dir(settings: Settings, *, demo: bool) -> Path:
    """Return the directory of what sweeps made; the demo has one of its own beside it.

    The study of a day has the same name in both ledgers.
    """
    path = state_home(settings) / "tuning"
    return path.with_name(f"{path.name}.demo") if demo else path


def data_archive_dir(settings: Settings) -> Path | None:
    """Return the directory that holds what the data pipeline extracted; None for the usual one."""
    chosen = settings.data.archive_dir
    return None if chosen is None else _from_checkout(chosen)


def backup_dir(settings: Settings, *, demo: bool) -> Path:
    """Return the directory of the backups; the demo has one of its own beside it."""
    chosen = settings.backup.directory
    path = state_home(settings) / "backups" if chosen is None else _from_checkout(chosen)
    return path.with_name(f"{path.name}.demo") if demo else path


def wal_archive_dir(settings: Settings) -> Path | None:
    """Return the directory that the embedded server's log is copied to; None for none."""
    chosen = settings.backup.wal_archive_dir
    return None if chosen is None else _from_checkout(chosen)


def status_file(settings: Settings, *, demo: bool) -> Path:
    """Return the file that says how the service is; the demo has one of its own beside it."""
    # An absolute one stays what it is.
    path = state_home(settings) / settings.operations.status_file_path.expanduser()
    return path.with_name(f"{path.name}.demo") if demo else path


def checkout() -> Path:
    """Return the checkout that this code lies in; the working directory where it is installed."""
    found = Path(liveops.__file__).resolve().parents[1]
    return found if (found / "pyproject.toml").is_file() else Path.cwd()


def _from_checkout(path: Path) -> Path:
    path = path.expanduser()
    return path if path.is_absolute() else checkout() / path


@contextmanager
def ledger_server(settings: Settings, *, demo: bool, create: bool) -> Iterator[Server]:
    """Yield the ledger's server: the configured one, or an embedded one while this lasts.

    An embedded server that another process of ours runs is used, not started twice, and stays until
    its last user has ended. The demo has a database of its own, so that its data never routes real
    money. Raises `LedgerUnavailable` where there is no ledger yet and `create` is not asked for.
    """
    database = DEMO_DATABASE if demo else PRODUCTION_DATABASE
    if settings.database.url is not None:
        yield Server(url=_configured(settings.database.url, demo=demo), revive=lambda: None)
        return
    data_dir = state_home(settings) / "postgres"
    if not create and not data_dir.exists():
        message = f"there is no ledger in {data_dir.parent}: start `make run` or `liveops serve`"
        raise LedgerUnavailable(f"{message}, or set LIVEOPS_HOME")
    server = EmbeddedPostgres(data_dir=data_dir, archive_dir=wal_archive_dir(settings))
    for _ in range(_ATTEMPTS):
        try:
            server.start()
        except ServerInUse as in_use:
            refused = in_use
        else:
            with _owned(server, database) as owned:
                yield owned
            return
        with postgres_home.used(data_dir):
            if _answers(server, database):
                yield Server(url=server.url(database), revive=lambda: None)
                return
        # Its owner is just starting it, or stopping it.
        threading.Event().wait(_PAUSE_SECONDS)
    raise refused


@contextmanager
def _owned(server: EmbeddedPostgres, database: str) -> Iterator[Server]:
    try:
        server.create_database(database)
        yield Server(url=server.url(database), revive=server.start)
    finally:
        try:
            postgres_home.await_last_user(server.data_dir, say=log.warning)
        finally:
            server.stop()


def _answers(server: EmbeddedPostgres, database: str) -> bool:
    try:
        server.create_database(database)
    except (ServerFailed, OSError):
        return False
    return True


def _configured(address: str, *, demo: bool) -> str:
    url = make_url(address).set(drivername="postgresql+psycopg")
    if url.database == DEMO_DATABASE and not demo:
        rule = "must not be the demo's database without --demo"
        raise InvalidInput(field="database.url", rule=rule, found=DEMO_DATABASE)
    if demo:
        _create_database(url)
        url = url.set(database=DEMO_DATABASE)
    return url.render_as_string(hide_password=False)


def _create_database(server: URL) -> None:
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    name = sql.Identifier(DEMO_DATABASE)
    try:
        with psycopg.connect(plain, autocommit=True) as connection:
            exists = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(exists, [DEMO_DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    except psycopg.errors.DuplicateDatabase:
        return
    except psycopg.errors.InsufficientPrivilege as error:
        message = f"the demo needs a database {DEMO_DATABASE}: create it, or grant CREATEDB"
        raise LedgerUnavailable(message) from error
    except psycopg.OperationalError as error:
        raise LedgerUnavailable(f"the ledger did not answer: {error}") from error


def drop_demo(settings: Settings) -> None:
    """Drop the demo's database, and nothing else.

    Raises `LedgerUnavailable` while a process is connected to it, and for a database of that name
    that is not a ledger of ours.
    """
    with ledger_server(settings, demo=True, create=False) as server:
        if migrate.current(server.url) is None:
            raise LedgerUnavailable(f"the database {DEMO_DATABASE} holds no ledger: left as it is")
        admin = make_url(server.url).set(drivername="postgresql", database="postgres")
        drop = sql.SQL("DROP DATABASE {}").format(sql.Identifier(DEMO_DATABASE))
        try:
            with psycopg.connect(
                admin.render_as_string(hide_password=False), autocommit=True
            ) as connection:
                connection.execute(drop)
        except psycopg.errors.ObjectInUse as error:
            message = "the demo is running: stop `make run` or `liveops serve --demo` first"
            raise LedgerUnavailable(message) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise LedgerUnavailable(f"not allowed to drop {DEMO_DATABASE}: {error}") from error
