"""Hear of new epochs: told by the ledger, and asked for, in case nobody was told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from bandit.core.errors import LedgerUnavailable
from bandit.storage.engine import libpq_url, session_options

CHANNEL = "liveops_epoch"
STOP_SECONDS = 0.5
"""How soon a listener that hears nothing looks whether it should stop."""


def epochs(url: str, *, poll_seconds: float, stop: threading.Event) -> Iterator[Mapping[str, int]]:
    """Yield epochs by experiment: all of them at first and every `poll_seconds`, new ones at once.

    A connection of its own: a listener behind a pooler hears nothing. Ends when `stop` is set;
    raises `LedgerUnavailable` when the connection is lost, after which nothing told in between is
    known: call again, and start from the first answer.
    """
    try:
        with psycopg.connect(
            libpq_url(url),
            autocommit=True,
            connect_timeout=5,
            application_name="liveops-listener",
            options=session_options(url, "-c timezone=UTC"),
        ) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            # Listening first: what changes from here on is told, what changed before is read.
            yield _all(connection)
            unheard = 0.0
            while not stop.is_set():
                told = _told(connection)
                unheard = 0.0 if told else unheard + STOP_SECONDS
                if told:
                    yield told
                elif unheard >= poll_seconds:
                    unheard = 0.0
                    yield _all(connection)
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the ledger stopped telling of changes: {error}") from error


def _told(connection: psycopg.Connection[Any]) -> dict[str, int]:
    told = {}
    for notice in connection.notifies(timeout=STOP_SECONDS, stop_after=1):
        experiment, _, epoch = notice.payload.rpartition(" ")
        told[experiment] = int(epoch)
    return told


def _all(connection: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(connection.execute("SELECT name, epoch FROM experiments").fetchall())
