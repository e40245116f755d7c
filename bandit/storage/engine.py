"""Connections to the ledger, and what its errors mean."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bandit.core.errors import (
    BanditError,
    BudgetSpent,
    Conflict,
    ForeignProtocol,
    InvalidAllocation,
    InvalidInput,
    Killed,
    LedgerUnavailable,
    StaleEpoch,
    Unreconciled,
)

PROTOCOL = 3
"""The decision protocol this code speaks; the ledger refuses decisions under any other."""

SILENT_SECONDS_MORE = 0.5
POOL_SECONDS = 2.0
"""How long a caller waits for a connection that is free before it is told to come again."""

REACHABLE: Mapping[str, Any] = {
    "connect_timeout": 2,
    # A network that swallows everything says nothing: without these a caller would wait for the
    # kernel, which gives up after a quarter of an hour. What we sent has to be acknowledged within
    # three seconds, and a server that only has to be waited for is asked whether it is still there.
    "tcp_user_timeout": 3000,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
"""What libpq is told so that a lost network is known within seconds; sockets of files ignore it."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_ROWS_AT_ONCE = 1000
_LOST_MAX = 3
_LONG_SECONDS = 30 * 60
_LIMIT = re.compile(r"limit (\w+): ([^\n]*)")


def connect(url: str, *, pool_size: int = 10, statement_seconds: int = 30) -> Engine:
    """Return an engine on the ledger at `url`; sessions speak UTC.

    A statement is given up after `statement_seconds`: by the server, or by us where it says nothing
    any more, as one that was stopped, or stands behind a network that swallows answers.
    """
    options = f"-c timezone=UTC -c statement_timeout={statement_seconds}s"
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,
        connect_args={**REACHABLE, "options": session_options(url, options)},
        json_serializer=lambda value: json.dumps(value, sort_keys=True, allow_nan=False),
    )
    patience = statement_seconds + SILENT_SECONDS_MORE

    @event.listens_for(engine, "do_connect")
    def connected(_d: object, _r: object, arguments: Any, parameters: Any) -> _Patient:
        connection = _Patient.connect(*arguments, **parameters)
        connection.patience_seconds = patience
        connection.server_cursor_factory = _Stream
        return connection

    return engine


class _Stream(psycopg.ServerCursor[Any]):
    """A server's cursor, which is gone with its session.

    The pool drops a lost session without a word to its cursors, and they would warn of it.
    """

    @property
    def closed(self) -> bool:
        return super().closed or self.connection.closed


class _Patient(psycopg.Connection[Any]):
    """A connection that waits for its server only so long."""

    patience_seconds: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, timeout or self.patience_seconds)
        except psycopg.OperationalError:
            # Whatever was under way, its end is unknown: nobody may use the session again.
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


# A history that was imported a moment ago has no statistics: the planner expects a row of it, and
# would look through all outcomes once for each decision.
_UNKNOWN_HISTORY = """
SELECT set_config('enable_nestloop', 'off', true) WHERE 2 > (
  SELECT count(DISTINCT tablename) FROM pg_stats
  WHERE schemaname = current_schema() AND tablename IN ('assignments', 'outcomes'))
"""


@contextmanager
def taking_long(connection: Connection) -> Iterator[None]:
    """Let the statements of this transaction read a long history to its end.

    Both who may give up are told: the server, and our side, which waits for it.
    """
    run(connection, f"SET LOCAL statement_timeout = '{_LONG_SECONDS}s'")
    run(connection, _UNKNOWN_HISTORY)
    raw = connection.connection.driver_connection
    assert isinstance(raw, _Patient)
    usual, raw.patience_seconds = raw.patience_seconds, _LONG_SECONDS + SILENT_SECONDS_MORE
    try:
        yield
    finally:
        raw.patience_seconds = usual


def libpq_url(url: str) -> str:
    """Return an SQLAlchemy URL as libpq reads it, for connections that are not the engine's.

    >>> libpq_url("postgresql+psycopg://bot:a+b@/ledger?host=/srv/live+ops")
    'postgresql://bot:a+b@/ledger?host=%2Fsrv%2Flive%20ops'
    """
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    place, mark, query = plain.partition("?")
    # SQLAlchemy writes a blank there as `+`, which libpq takes to be one.
    return f"{place}{mark}{query.replace('+', '%20')}"


def session_options(url: str, more: str) -> str:
    """Return the settings of a session: those that `url` gives, such as its role, and `more`.

    >>> session_options("postgresql://h/d?options=-c%20role%3Dreader", "-c timezone=UTC")
    '-c role=reader -c timezone=UTC'
    """
    return f"{make_url(url).query.get('options', '')} {more}".strip()


class SessionLost(LedgerUnavailable):
    """A session ended before its work was answered, perhaps behind the commit."""


class Idled(SessionLost):
    """The server ended a session that said nothing inside its transaction, and rolled it back."""


def again_where(
    lost: type[SessionLost],
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Do a transaction anew that lost its session, three times at most.

    `Idled` for any: a stall of our process cost it the session, and nothing of it was stored.
    `SessionLost` for what may be done twice as if once: a halt ends the sessions that keep it
    waiting, and a commit may have gone before. Where the server is away, the next try says so.
    """

    def tried_again(work: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(work)
        def tried(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            for _ in range(_LOST_MAX):
                with suppress(lost):
                    return work(*args, **kwargs)
            return work(*args, **kwargs)

        return tried

    return tried_again


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Open one READ COMMITTED transaction; the database's refusals become the product's errors.

    Raises `InvalidAllocation` for a broken limit and `LedgerUnavailable` for a lost server.
    """
    with translated(), engine.begin() as connection:
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Open one REPEATABLE READ transaction, in which every read sees the same moment."""
    with translated(), engine.connect() as raw:
        connection = raw.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        with connection.begin():
            yield connection


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database's errors into the product's."""
    try:
        yield
    except IntegrityError as error:
        limit = _LIMIT.search(str(error.orig))
        if limit is None:
            raise
        message = f"limit {limit[1]}: {limit[2]}"
        raise InvalidAllocation(message, limit=limit[1]) from error
    except DataError as error:
        rule = "must be something the ledger can hold"
        raise InvalidInput(field="value", rule=rule, found=_first_line(error)) from error
    except (OperationalError, InterfaceError) as error:
        kind = SessionLost if error.connection_invalidated else LedgerUnavailable
        raise kind(f"the ledger did not answer: {_first_line(error)}") from error
    except InternalError as error:
        # So the server ends a session that idles in a transaction; other ones are our own faults.
        if not error.connection_invalidated:
            raise
        raise Idled(f"the ledger did not answer: {_first_line(error)}") from error
    except DBAPIError as error:
        refusal = refusal_of(error.orig)
        if refusal is None:
            raise
        raise refusal from error
    except PoolTimeout as error:
        raise LedgerUnavailable("every connection to the ledger is in use") from error


_REFUSALS: Mapping[str, type[BanditError]] = {
    "LB001": StaleEpoch,
    "LB002": Killed,
    "LB003": ForeignProtocol,
    "LB005": Unreconciled,
    "LB040": Conflict,
}
_NO_ROOM = "LB004"


def refusal_of(error: BaseException | None) -> BanditError | None:
    """Return what a refusal of the decision protocol means; None for any other error."""
    if not isinstance(error, psycopg.Error):
        return None
    message = error.diag.message_primary or str(error)
    if error.sqlstate == _NO_ROOM:
        return BudgetSpent(message, room=int(error.diag.message_detail or 0))
    refusal = _REFUSALS.get(error.sqlstate or "")
    return None if refusal is None else refusal(message)


def _first_line(error: DBAPIError) -> str:
    return next(iter(str(error.orig).strip().splitlines()), "connection lost")


def uuids(ids: Iterable[UUID]) -> str:
    """Return ids as PostgreSQL reads an array of them: one text, where a list costs ten times that.

    >>> uuids([UUID(int=1), UUID(int=2)])
    '{00000000000000000000000000000001,00000000000000000000000000000002}'
    """
    return f"{{{','.join([key.hex for key in ids])}}}"


def rows(connection: Connection, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Run one statement and return its rows by column name."""
    result = connection.execute(text(statement), values)
    columns = tuple(result.keys())
    return [dict(zip(columns, row, strict=True)) for row in result.all()]


def streamed(connection: Connection, statement: str, **values: Any) -> Generator[dict[str, Any]]:
    """Run one statement and yield its rows by column name, a few at a time."""
    options = {"yield_per": _ROWS_AT_ONCE}
    # Closed also where the reader stops early: a cursor must not outlive its transaction.
    with connection.execute(text(statement), values, execution_options=options) as result:
        columns = tuple(result.keys())
        for row in result:
            yield dict(zip(columns, row, strict=True))


def one(connection: Connection, statement: str, **values: Any) -> dict[str, Any] | None:
    """Run one statement and return its only row, or None."""
    found = connection.execute(text(statement), values).mappings().one_or_none()
    return None if found is None else dict(found)


def run(connection: Connection, statement: str, **values: Any) -> None:
    """Run one statement for its effect."""
    connection.execute(text(statement), values)


def require_protocol(connection: Connection) -> None:
    """Raise `ForeignProtocol` unless the ledger decides by the protocol that this code speaks."""
    run(connection, "SELECT require_protocol(:spoken)", spoken=PROTOCOL)


def database_now(connection: Connection) -> datetime:
    """Return the database's clock, to compare ours with."""
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found
