"""What a backup and a drill of restoring one are, and how old the newest may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from bandit.core.errors import BanditError, InvalidInput

_NAME: Final = re.compile(r"(state|database|base)_backup_(\d{8}_\d{6})")


class BackupKind(StrEnum):
    """What a backup holds: what must stay stopped, the ledger, or the server's own files."""

    STATE = "state"
    DATABASE = "database"
    BASE = "base"


class BackupDamaged(BanditError):
    """A backup is not what was written: nothing of it is used."""

    code = "backup_damaged"


class RestoreRefused(BanditError):
    """Nothing was restored; the message says what stands against it."""

    code = "restore_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRule:
    """How old the newest backup of a kind, and the newest drill, may be.

    >>> BackupRule().of(BackupKind.DATABASE)
    datetime.timedelta(days=1, seconds=7200)
    """

    state: timedelta = timedelta(minutes=75)
    database: timedelta = timedelta(hours=26)
    drill: timedelta = timedelta(days=8)

    def of(self, kind: BackupKind) -> timedelta:
        """Return the limit of a kind; a copy of the server's files counts as its database."""
        return self.state if kind is BackupKind.STATE else self.database


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRecord:
    """A backup that was taken: everything committed before `taken_at` is in it."""

    kind: BackupKind
    name: str
    taken_at: datetime
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unarchived:
    """A file of the server's log that it cannot archive; everything behind it waits as well.

    `archived_at` is when one was archived last, None where none ever was.
    """

    file: str
    failed_at: datetime
    archived_at: datetime | None

    def __str__(self) -> str:
        """Say it to a person."""
        since = "ever" if self.archived_at is None else f"since {self.archived_at.isoformat()}"
        return f"the server has archived nothing of its log {since}, {self.file} fails"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreDrill:
    """A drill: a backup was restored aside and compared; a `failure` says what did not agree.

    `rpo_seconds` is how old the newest moment was that could be restored, `rto_seconds` how long it
    took until a service on the restored ledger was ready; None where it never was.
    """

    began_at: datetime
    backup: str
    rows: int
    rpo_seconds: float
    rto_seconds: float | None
    failure: str | None

    @property
    def passed(self) -> bool:
        """Whether the restored ledger was the one that was backed up."""
        return self.failure is None

    def to_json(self) -> dict[str, object]:
        """Return the drill as commands print it."""
        return {
            "done": self.passed,
            "backup": self.backup,
            "began_at": self.began_at.isoformat(),
            "rows": self.rows,
            "rpo_seconds": self.rpo_seconds,
            "rto_seconds": self.rto_seconds,
            "failure": self.failure,
        }


def backup_name(kind: BackupKind, taken_at: datetime) -> str:
    """Return the name of a backup: its kind and its second in UTC.

    >>> backup_name(BackupKind.STATE, datetime(2026, 3, 1, 12, 5, tzinfo=UTC))
    'state_backup_20260301_120500'
    """
    return f"{kind.value}_backup_{taken_at.astimezone(UTC):%Y%m%d_%H%M%S}"


def kind_and_second(name: str) -> tuple[BackupKind, datetime]:
    """Return what a backup's name says; raises `InvalidInput` for any other name.

    >>> kind_and_second("database_backup_20260301_120500")[0].value
    'database'
    """
    found = _NAME.fullmatch(name)
    rule = "must be KIND_backup_YYYYMMDD_HHMMSS, or latest"
    if found is None:
        raise InvalidInput(field="backup", rule=rule, found=name)
    try:
        at = datetime.strptime(found[2], "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidInput(field="backup", rule=rule, found=name) from None
    return BackupKind(found[1]), at
