"""An embedded server that archives its log, and what has left for there."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg

from config.settings import Settings


def settings_of(folder: Path) -> Settings:
    """A home in a folder, and the archive of its log beside it."""
    told = {"home": f"{folder}/var", "backup": {"wal_archive_dir": f"{folder}/wal"}}
    return Settings.model_validate(told)


def segments(folder: Path) -> list[Path]:
    """The files of the log that lie in a folder, the oldest first."""
    return sorted(path for path in folder.iterdir() if len(path.name) == 24)


def switched(admin: psycopg.Connection) -> str:
    """Begin a new file of the log; the name of the one that is to be archived now."""
    row = admin.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    return str(row[0])


def archived(admin: psycopg.Connection) -> None:
    """Return once all that was committed has left for the archive."""
    name = switched(admin)
    _await(admin, "SELECT last_archived_wal >= %s FROM pg_stat_archiver", name)


def failed(admin: psycopg.Connection, name: str) -> None:
    """Return once the server could not archive a file."""
    _await(admin, "SELECT last_failed_wal = %s FROM pg_stat_archiver", name)


def _await(admin: psycopg.Connection, question: str, name: str) -> None:
    for _ in range(3000):
        if admin.execute(question, [name]).fetchone() == (True,):
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"{name}: {question}")
