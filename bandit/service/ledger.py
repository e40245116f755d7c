"""Read the ledger as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from bandit.storage import audit, digest, statistics
from bandit.storage.engine import snapshot, transaction

TABLES = tuple(digest.TABLES)


def ledger_digest(engine: Engine) -> str:
    """Return one hash of everything the domain remembers, in hexadecimal."""
    with snapshot(engine) as connection:
        return digest.ledger_digest(connection)


def read_tables(
    engine: Engine,
    write: Callable[[str, list[str], Iterator[tuple[object, ...]]], None],
) -> None:
    """Hand every canonical table to `write`: name, columns, rows; all as of one moment."""
    with snapshot(engine) as connection:
        for table in TABLES:
            columns, rows = digest.columns_and_rows(connection, table)
            write(table, columns, rows)


def note(
    engine: Engine,
    *,
    now: datetime,
    actor: str,
    action: str,
    subject: str,
    details: dict[str, object],
) -> None:
    """Append one row to the audit log."""
    with transaction(engine) as connection:
        audit.append(
            connection, now=now, actor=actor, action=action, subject=subject, details=details
        )


def was_noted(engine: Engine, *, action: str, subject: str) -> bool:
    """Say whether the audit log has a row of this action on this subject."""
    with snapshot(engine) as connection:
        return audit.has(connection, action=action, subject=subject)


def noted(engine: Engine, *, action: str, subject: str) -> Mapping[str, Any] | None:
    """Return what was noted of this action on this subject last; None where nothing was."""
    with snapshot(engine) as connection:
        return audit.newest_details(connection, action=action, subject=subject)


def newest_close(engine: Engine) -> datetime | None:
    """Return when the newest trade closed; None when there is none."""
    with snapshot(engine) as connection:
        return statistics.newest_close(connection)
