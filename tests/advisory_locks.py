"""Who holds the locks of long jobs, as the server sees it."""

from __future__ import annotations

from sqlalchemy import Engine, text
from waiting import until

from bandit.storage.locks import LockClass

HELD = """
FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = ANY(:classes)
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
JOBS = {"classes": [LockClass.USE_CASE, LockClass.DATA, LockClass.BACKUP]}


def await_free(engine: Engine) -> None:
    """Return once nobody holds any of them; the server takes a moment to see that one is gone."""

    def is_free() -> bool:
        with engine.connect() as connection:
            return not connection.execute(text(f"SELECT count(*) {HELD}"), JOBS).scalar_one()

    until(is_free)
