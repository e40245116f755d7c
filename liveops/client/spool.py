"""What was reported and not acknowledged, on disk before the bot goes on: the SDK's only SQL."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final

from liveops.client.contact import Contact
from liveops.client.delivery import Fate, Row, Verdict
from liveops.client.errors import InvalidInput, Problem, SpoolError, SpoolFull, SpoolUnusable
from liveops.client.protocol import fallback_body
from liveops.client.stored import contact_of, fallback_of, refusal_of, row_of
from liveops.client.values import AssignmentId, Fallback, Kind, Refusal

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x4C53504C
"""Marks the file as a spool, for whoever opens it by its bytes: LSPL."""

BUSY_SECONDS = 5.0
"""How long another process of the bot may keep the file to itself."""

_TABLES: Final = (
    "CREATE TABLE owner (url TEXT NOT NULL, experiment TEXT NOT NULL)",
    """CREATE TABLE spool (
        id INTEGER PRIMARY KEY AUTOINCREMENT, turn INTEGER NOT NULL DEFAULT 0,
        kind TEXT NOT NULL CHECK (kind IN ('fallback', 'outcome', 'mark', 'paper')),
        unit_id TEXT REFERENCES fallbacks, body TEXT NOT NULL)""",
    "CREATE INDEX spool_order ON spool (turn, id)",
    """CREATE TABLE refused (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL, problem TEXT NOT NULL,
        refused_at TEXT NOT NULL)""",
    """CREATE TABLE fallbacks (
        unit_id TEXT PRIMARY KEY NOT NULL, instrument TEXT NOT NULL, policy TEXT NOT NULL,
        policy_sha TEXT NOT NULL, size_multiplier REAL NOT NULL, confidence_bump REAL NOT NULL,
        decided_at TEXT NOT NULL, expires_at TEXT NOT NULL, reason TEXT NOT NULL,
        assignment_id TEXT, problem TEXT)""",
    "CREATE TABLE contact (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL)",
)


class Spool:
    """One file of one experiment and service, shared by the processes of a bot.

    Every method is one transaction, and safe to call from any thread.
    """

    def __init__(self, path: Path, *, url: str, experiment: str, rows_max: int) -> None:
        """Open the file, or make it; raises `SpoolUnusable` for a file that is something else."""
        self._path = path
        self._rows_max = rows_max
        self._lock = threading.Lock()
        self._lease: int | None = None
        with _told(path):
            _make_private(path)
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
            )
            try:
                self._set_up(url=url, experiment=experiment)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self.release_lease()
            self._connection.close()

    def add(self, kind: Kind, body: str, *, unit_id: str | None, now: datetime) -> Refusal | None:
        """Append a report; `unit_id` names the fallback decision it belongs to, if to one.

        Where the service has refused that decision already, the report is kept with the refused
        ones and returned. Raises `SpoolFull` and stores nothing when there is no room.
        """
        with self._transaction() as cursor:
            fallback = None if unit_id is None else self._fallback(cursor, unit_id)
            if unit_id is not None and fallback is None:
                rule = "must be a decision of this spool"
                raise InvalidInput(field="assignment", rule=rule, found=f"fallback:{unit_id}")
            row = self._append(cursor, kind, body, unit_id=unit_id)
            if fallback is None or fallback.problem is None:
                return None
            return self._refuse(cursor, row, kind, body, fallback.problem, now=now)

    def add_fallback(self, fallback: Fallback, contact: Contact) -> Fallback:
        """Write down a decision taken alone, its report and the silence it was taken in, at once.

        Returns the decision that stands: an earlier one of the same unit, if there is one.
        """
        with self._transaction() as cursor:
            standing = self._fallback(cursor, fallback.unit_id)
            if standing is not None:
                return standing
            values = asdict(fallback) | {
                "decided_at": fallback.decided_at.isoformat(),
                "expires_at": fallback.expires_at.isoformat(),
            }
            columns = ", ".join(values)
            marks = ", ".join(f":{name}" for name in values)
            cursor.execute(f"INSERT INTO fallbacks ({columns}) VALUES ({marks})", values)  # noqa: S608 - our own field names
            body = fallback_body(fallback)
            self._append(cursor, Kind.FALLBACK, body, unit_id=fallback.unit_id)
            self._write_contact(cursor, contact)
            return fallback

    def fallback(self, unit_id: str) -> Fallback | None:
        """Return what the client decided alone for a unit, if it did."""
        with self._reading() as cursor:
            return self._fallback(cursor, unit_id)

    def report_of(self, unit_id: str) -> Row | None:
        """Return the report of a fallback decision while it waits to be acknowledged."""
        with self._reading() as cursor:
            found = cursor.execute(
                "SELECT id, kind, unit_id, body, turn FROM spool"
                " WHERE kind = 'fallback' AND unit_id = ?",
                (unit_id,),
            ).fetchone()
            return None if found is None else row_of(*found)

    def head(self, limit: int, *, skipping: Sequence[Kind] = ()) -> list[Row]:
        """Return what is next in line; a report of a decision the service does not know waits."""
        with self._reading() as cursor:
            found = cursor.execute(
                "SELECT s.id, s.kind, s.unit_id, s.body, s.turn, f.assignment_id"
                " FROM spool s LEFT JOIN fallbacks f USING (unit_id)"
                " WHERE (s.kind = 'fallback' OR s.unit_id IS NULL OR f.assignment_id IS NOT NULL)"
                " AND s.kind NOT IN (SELECT value FROM json_each(?))"
                " ORDER BY s.turn, s.id LIMIT ?",
                (json.dumps(list(skipping)), limit),
            ).fetchall()
        return [row_of(*values) for values in found]

    def settle(
        self, rows: Sequence[Row], verdicts: Sequence[Verdict], *, now: datetime
    ) -> list[Refusal]:
        """Do what was judged, all of it or nothing, and return what was refused."""
        refused: list[Refusal] = []
        with self._transaction() as cursor:
            for row, verdict in zip(rows, verdicts, strict=True):
                if verdict.fate is Fate.PUT_OFF:
                    cursor.execute("UPDATE spool SET turn = turn + 1 WHERE id = ?", (row.id,))
                elif verdict.fate is Fate.ACKNOWLEDGED:
                    cursor.execute("DELETE FROM spool WHERE id = ?", (row.id,))
                    self._resolve(cursor, row, assignment=verdict.assignment_id)
                elif verdict.fate is Fate.REFUSED:
                    assert verdict.problem is not None
                    refused += self._refuse_with_dependents(cursor, row, verdict.problem, now=now)
        return refused

    def pending(self) -> int:
        """Return how many rows wait to be acknowledged."""
        with self._reading() as cursor:
            return _count(cursor)

    def refused(self) -> list[Refusal]:
        """Return what the service will never take, oldest first."""
        with self._reading() as cursor:
            found = cursor.execute(
                "SELECT id, kind, body, problem, refused_at FROM refused ORDER BY id"
            ).fetchall()
        return [refusal_of(*values) for values in found]

    def forget(self, refusal: int) -> None:
        """Drop a refused row, by its id."""
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM refused WHERE id = ?", (refusal,))

    def contact(self) -> Contact:
        """Return what the processes of the bot last knew of the service."""
        with self._reading() as cursor:
            return self._contact(cursor)

    def update_contact(self, change: Callable[[Contact], Contact]) -> Contact:
        """Change what is known of the service, from what is stored now, and return it."""
        with self._transaction() as cursor:
            contact = change(self._contact(cursor))
            self._write_contact(cursor, contact)
            return contact

    def take_lease(self) -> bool:
        """Say whether this client may send now: one at a time, and no longer than it lives.

        The kernel frees the lock of a killed process at once; no clock is asked.
        """
        import fcntl  # not on Windows, where a program may still read our types

        if self._lease is not None:
            return True
        lease = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lease)
            return False
        self._lease = lease
        return True

    def release_lease(self) -> None:
        """Let another process of the bot send."""
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None

    def _set_up(self, *, url: str, experiment: str) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction() as cursor:
            (version,) = cursor.execute("PRAGMA user_version").fetchone()
            (application,) = cursor.execute("PRAGMA application_id").fetchone()
            (tables,) = cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version == 0 and tables == 0:
                for statement in _TABLES:
                    cursor.execute(statement)
                cursor.execute("INSERT INTO owner VALUES (?, ?)", (url, experiment))
                cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                cursor.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                return
            if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
                raise SpoolUnusable(
                    f"{self._path}: expected a spool of version {SCHEMA_VERSION}, found version"
                    f" {version} of application {application:#x}"
                )
            if cursor.execute("SELECT url, experiment FROM owner").fetchone() != (url, experiment):
                raise SpoolUnusable(f"{self._path}: belongs to another experiment or service")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, _told(self._path):
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, _told(self._path):
            yield self._connection.cursor()

    def _append(self, cursor: sqlite3.Cursor, kind: Kind, body: str, *, unit_id: str | None) -> int:
        if _count(cursor) >= self._rows_max:
            raise SpoolFull(f"{self._path}: {self._rows_max} rows wait for the service already")
        cursor.execute(
            "INSERT INTO spool (kind, unit_id, body) VALUES (?, ?, ?)", (kind, unit_id, body)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _fallback(self, cursor: sqlite3.Cursor, unit_id: str) -> Fallback | None:
        found = cursor.execute(
            "SELECT unit_id, instrument, policy, policy_sha, size_multiplier, confidence_bump,"
            " decided_at, expires_at, reason, assignment_id, problem"
            " FROM fallbacks WHERE unit_id = ?",
            (unit_id,),
        ).fetchone()
        return None if found is None else fallback_of(*found)

    def _resolve(
        self, cursor: sqlite3.Cursor, row: Row, *, assignment: AssignmentId | None
    ) -> None:
        if assignment is not None:
            cursor.execute(
                "UPDATE fallbacks SET assignment_id = ? WHERE unit_id = ?",
                (assignment, row.unit_id),
            )

    def _refuse_with_dependents(
        self, cursor: sqlite3.Cursor, row: Row, problem: Problem, *, now: datetime
    ) -> list[Refusal]:
        waiting: list[tuple[int, str, str]] = [(row.id, row.kind, row.body)]
        if row.kind is Kind.FALLBACK:
            cursor.execute(
                "UPDATE fallbacks SET problem = ? WHERE unit_id = ?",
                (json.dumps(asdict(problem)), row.unit_id),
            )
            waiting = cursor.execute(
                "SELECT id, kind, body FROM spool WHERE unit_id = ? ORDER BY id", (row.unit_id,)
            ).fetchall()
        refused = [
            self._refuse(cursor, number, Kind(kind), body, problem, now=now)
            for number, kind, body in waiting
        ]
        return [refusal for refusal in refused if refusal is not None]

    def _refuse(
        self,
        cursor: sqlite3.Cursor,
        row: int,
        kind: Kind,
        body: str,
        problem: Problem,
        *,
        now: datetime,
    ) -> Refusal | None:
        cursor.execute("DELETE FROM spool WHERE id = ?", (row,))
        if cursor.rowcount == 0:  # another call settled it meanwhile
            return None
        text = json.dumps(asdict(problem))
        cursor.execute(
            "INSERT INTO refused VALUES (?, ?, ?, ?, ?)", (row, kind, body, text, now.isoformat())
        )
        return Refusal(id=row, kind=kind, body=body, problem=problem, refused_at=now)

    def _contact(self, cursor: sqlite3.Cursor) -> Contact:
        found = cursor.execute("SELECT body FROM contact").fetchone()
        return Contact() if found is None else contact_of(json.loads(found[0]))

    def _write_contact(self, cursor: sqlite3.Cursor, contact: Contact) -> None:
        body = json.dumps(asdict(contact), default=datetime.isoformat)
        cursor.execute("INSERT OR REPLACE INTO contact VALUES (1, ?)", (body,))


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Before SQLite opens it, so that its own files beside this one get the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise SpoolUnusable(f"{path}: cannot be opened for writing: {error.strerror}") from error


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _spool_error(path, error) from error


def _spool_error(path: Path, error: sqlite3.Error) -> SpoolError:
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL:
        return SpoolFull(f"{path}: the disk is full")
    return SpoolUnusable(f"{path}: {error}")


def _count(cursor: sqlite3.Cursor) -> int:
    (count,) = cursor.execute("SELECT count(*) FROM spool").fetchone()
    return int(count)
