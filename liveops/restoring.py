"""Bring a ledger back from a backup, and let nothing trade on it before a person has looked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from bandit import __version__
from bandit.core.backups import BackupDamaged, BackupKind, RestoreRefused
from bandit.core.errors import BanditError
from bandit.service import auditing, ledger
from bandit.service import backups as service
from bandit.service.backups import Tightened
from bandit.storage import migrate, roles
from bandit.storage.backups import FINISHED, ending_script, is_empty, server_major
from bandit.storage.engine import connect, snapshot, transaction
from liveops import backups
from liveops.backups import ARCHIVE, Say
from liveops.postgres_programs import ProgramFailed, fill_database, programs_for
from snapshots.backup_files import Backup

_STATEMENT_SECONDS: Final = 1800
_COMPARED: Final = "restore_compared"
_NOTHING: Final = Tightened(done=(), left=())


class RestoreFailed(BanditError):
    """The restore did not come to its end; the message says how far it came."""

    code = "restore_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did: from which backup, how many rows, and what it stopped.

    `known_from` is the backup that told what must be stopped; `digest` that of the ledger before
    anything was stopped, None where another release took the backup. `schema` is before and after.
    """

    backup: Backup
    rows: int
    schema: tuple[str, str]
    digest: str | None
    known_from: str | None
    tightened: Tightened
    bots: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "done": True,
            "backup": self.backup.name,
            "taken_at": self.backup.taken_at.isoformat(),
            "rows": self.rows,
            "schema": {"backup": self.schema[0], "now": self.schema[1]},
            "digest": self.digest,
            "known_from": self.known_from,
            "stopped": list(self.tightened.done),
            "left": list(self.tightened.left),
            "bots_forgotten": list(self.bots),
        }


def restore(
    backup: Backup,
    url: str,
    *,
    root: Path,
    now: Callable[[], datetime],
    actor: str,
    say: Say,
) -> Restored:
    """Fill the empty database at `url` with the ledger of a backup, and stop everything in it.

    Every file is read first. The tables, their row counts, and the kill of every account become
    visible in one commit, or not at all; one that was killed behind that goes on when it is run
    again. `root` has the backups of which the newest says what else must be stopped. Raises
    `RestoreRefused` for a database that holds anything, `BackupDamaged`, `RestoreFailed` and
    `NewerServer`.
    """
    if backup.kind is not BackupKind.DATABASE:
        raise RestoreRefused(f"{backup.name} holds no ledger: name a backup of the database")
    say(f"reading {backup.name}")
    backups.check(backup)
    _refuse_newer_schema(backup)
    owner = roles.as_owner(url)
    with engine_of(owner) as engine:
        begun = service.unfinished_restore(engine)
        if begun is None:
            _fill(engine, backup, owner, now=now(), actor=actor, say=say)
        elif begun != backup.name:
            raise RestoreRefused(
                f"the restore of {begun} into this database was cut off: go on with that one"
            )
    return _finish(backup, owner, root=root, now=now, actor=actor, say=say)


def halt_as_known(
    engine: Engine, backup: Backup, *, now: datetime, actor: str, say: Say
) -> Tightened:
    """Kill every account of a ledger and stop each arm that a backup knows as stopped."""
    say(f"reading {backup.name}")
    backups.check(backup)
    _require_same_ledger(engine, backup)
    say("stopping what it knows as stopped")
    return service.tighten(
        engine, backups.state_of(backup), reason=reason_of(backup), now=now, actor=actor
    )


def reason_of(backup: Backup) -> str:
    """Return why accounts are killed after a restore."""
    return f"restored from {backup.name}: check positions and balance, then release"


def _fill(engine: Engine, backup: Backup, url: str, *, now: datetime, actor: str, say: Say) -> None:
    with snapshot(engine) as connection:
        if not is_empty(connection):
            raise RestoreRefused(
                "the database is not empty: restore into a new one, never over a ledger"
            )
        major = server_major(connection)
    theirs = int(backup.metadata["server_major"])
    if major < theirs:
        raise RestoreRefused(f"the backup is of PostgreSQL {theirs}, this server is {major}")
    with transaction(engine) as connection:
        granted = roles.make(connection)
    say("filling the tables")
    ending = ending_script(
        backup.metadata["rows"],
        backup=backup.name,
        reason=reason_of(backup),
        now=now,
        actor=actor,
    )
    try:
        fill_database(
            backup.path / ARCHIVE,
            url,
            major=programs_for(max(major, programs_for(theirs))),
            # Where it may not make the roles, services have the rights of their user.
            options=("--no-owner", *(() if granted else ("--no-privileges",))),
            ending=ending,
        )
    except ProgramFailed as error:
        raise RestoreFailed(f"nothing was restored: {error}") from error


def _finish(
    backup: Backup, url: str, *, root: Path, now: Callable[[], datetime], actor: str, say: Say
) -> Restored:
    """Bring a filled ledger to the schema of this release, compare it, and stop what must be."""
    before = str(backup.metadata["schema"])
    # Of another release the digest may be made of other columns; the rows were counted.
    is_ours = (before, backup.metadata["product_version"]) == (migrate.head(), __version__)
    if before != migrate.head():
        say("bringing its schema to this release")
        migrate.upgrade(url)
    with engine_of(roles.as_application(url) or url) as engine:
        if is_ours:
            say("comparing it with what was backed up")
            _compare(engine, backup, now=now(), actor=actor)
        say("stopping what is known to be stopped")
        known = backups.newest_state(root, ledger=str(backup.metadata["ledger"]))
        tightened = _NOTHING
        if known is not None:
            tightened = service.tighten(
                engine, backups.state_of(known), reason=reason_of(backup), now=now(), actor=actor
            )
        bots = service.forget_bots(engine, reason=reason_of(backup), now=now(), actor=actor)
        ledger.note(
            engine,
            now=now(),
            actor=actor,
            action=FINISHED,
            subject=backup.name,
            details={"known_from": None if known is None else known.name},
        )
    say("done: every account is killed until a person releases it")
    return Restored(
        backup=backup,
        rows=sum(backup.metadata["rows"].values()),
        schema=(before, migrate.head()),
        digest=backup.metadata["digest"] if is_ours else None,
        known_from=None if known is None else known.name,
        tightened=tightened,
        bots=tuple(bots),
    )


def _compare(engine: Engine, backup: Backup, *, now: datetime, actor: str) -> None:
    """Hold the restored ledger against the backup's digest; once, before anything is stopped."""
    if ledger.was_noted(engine, action=_COMPARED, subject=backup.name):
        return
    digest, wanted = ledger.ledger_digest(engine), backup.metadata["digest"]
    if digest != wanted:
        raise RestoreFailed(
            f"the restored ledger has the digest {digest}, {backup.name} says {wanted}: drop it; "
            "every account of it is killed"
        )
    details: dict[str, object] = {"digest": digest}
    ledger.note(
        engine, now=now, actor=actor, action=_COMPARED, subject=backup.name, details=details
    )


def _refuse_newer_schema(backup: Backup) -> None:
    theirs, ours = str(backup.metadata["schema"]), migrate.head()
    if theirs > ours:
        raise RestoreRefused(f"{backup.name} has schema {theirs}, this release knows {ours}")


def _require_same_ledger(engine: Engine, backup: Backup) -> None:
    found = str(auditing.ledger_id(engine))
    if backup.metadata["ledger"] != found:
        raise BackupDamaged(
            f"{backup.name} is of ledger {backup.metadata['ledger']}, this one is {found}"
        )


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    """Yield an engine that lets a long history be read to its end."""
    engine = connect(url, pool_size=2, statement_seconds=_STATEMENT_SECONDS)
    try:
        yield engine
    finally:
        engine.dispose()
