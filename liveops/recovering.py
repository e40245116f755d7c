"""Bring the embedded server back as it was at any moment since a copy of its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bandit.core.backups import BackupKind, RestoreRefused
from bandit.core.errors import UnknownName
from bandit.service import auditing
from bandit.service import backups as service
from bandit.service.backups import State, Tightened
from bandit.storage import migrate
from config.settings import Settings
from liveops import backups, restoring
from liveops import postgres_home as home
from liveops.backups import Say
from liveops.base_backups import CLUSTER, PASSWORD, archive_of
from liveops.embedded_postgres import EmbeddedPostgres, ServerFailed
from liveops.ledger_server import DEMO_DATABASE, PRODUCTION_DATABASE, backup_dir, state_home
from liveops.postgres_archive import first_needed, holes, log_of, recovery_settings
from snapshots import backup_files
from snapshots.backup_files import LATEST, Backup
from snapshots.durable_files import sync_directory

_SIGNAL: Final = "recovery.signal"
_NOTHING: Final[State] = {"accounts": [], "arms": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What came back: from which copy, up to which moment (None: all that was archived)."""

    backup: Backup
    at: datetime | None
    known_from: str | None
    tightened: Tightened

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "done": True,
            "backup": self.backup.name,
            "at": None if self.at is None else self.at.isoformat(),
            "known_from": self.known_from,
            "stopped": list(self.tightened.done),
            "left": list(self.tightened.left),
        }


def copy_before(root: Path, at: datetime | None) -> Backup:
    """Return the newest copy that was whole by a moment; raises `UnknownName`."""
    for name in backup_files.names(root, BackupKind.BASE):
        backup = backup_files.opened(root, name)
        if at is None or datetime.fromisoformat(backup.metadata["whole_at"]) <= at:
            return backup
    raise UnknownName(kind=f"base backup of before in {root}", name=LATEST)


def recover(
    settings: Settings,
    *,
    at: datetime | None,
    now: Callable[[], datetime],
    actor: str,
    say: Say,
) -> Recovered:
    """Bring the embedded server back as of `at`, or of the archived log's end where it is None.

    In a home of its own, which takes the place of the lost one when every account is killed: killed
    before that, it is as if nothing was done. Raises `RestoreRefused` where there is a server,
    `UnknownName` where no copy is old enough, `BackupDamaged` and `ServerFailed`.
    """
    place = state_home(settings) / "postgres"
    if place.exists():
        raise RestoreRefused(f"{place} is there: move it away, nothing is restored over a server")
    root = backup_dir(settings, demo=False)
    archived = archive_of(settings, demo=False)
    backup = copy_before(root, at)
    say(f"reading {backup.name}")
    backups.check(backup)
    archive = _whole_log(archived, backup.path / CLUSTER)
    work = place.with_name("postgres.restoring")
    _fresh(work, backup)
    say("going through the log")
    told = None if at is None else at.astimezone(UTC).isoformat()
    # It archives at once which names its log takes: the next restore must take others.
    recovery = recovery_settings(archive, at=told)
    server = EmbeddedPostgres(data_dir=work, archive_dir=archived, recovery=recovery)
    try:
        with server:
            found = _stopped(server, backup, root=root, now=now, actor=actor, say=say)
    except ServerFailed as error:
        raise restoring.RestoreFailed(f"the log does not lead to that moment: {error}") from error
    say(f"putting it into its place, {place}")
    home.remove_socket_directory(work)
    work.rename(place)
    sync_directory(place.parent)
    known, tightened = found
    return Recovered(backup=backup, at=at, known_from=known, tightened=tightened)


def _whole_log(archived: Path, copied: Path) -> Path:
    """Return where the log of copied files is; raises `RestoreRefused` where it is not whole."""
    archive = log_of(archived, copied)
    if not archive.is_dir():
        raise RestoreRefused(f"{archive} is not there: the log of that server's files")
    missing = holes((path.name for path in archive.iterdir()), first=first_needed(copied))
    if missing:
        raise RestoreRefused(f"{archive} lacks what comes after {missing[0]}")
    return archive


def _fresh(work: Path, backup: Backup) -> None:
    """Make a home with the copied files, cleared of what a killed run left there."""
    if work.exists():
        os.close(home.lock_for_server(work))
        home.remove_socket_directory(work)
        home.cleared(work)
    home.make_home(work)
    shutil.copytree(backup.path / CLUSTER, work / CLUSTER)
    (work / CLUSTER).chmod(0o700)
    (work / CLUSTER / _SIGNAL).touch()
    home.write_private(work / PASSWORD, (backup.path / PASSWORD).read_text(encoding="utf-8"))


def _stopped(
    server: EmbeddedPostgres,
    backup: Backup,
    *,
    root: Path,
    now: Callable[[], datetime],
    actor: str,
    say: Say,
) -> tuple[str | None, Tightened]:
    """Stop everything in each of our ledgers there, and what is known to have been stopped."""
    say("stopping what is known to be stopped")
    known, found = None, Tightened(done=(), left=())
    for database in (DEMO_DATABASE, PRODUCTION_DATABASE):
        server.create_database(database)
        url = server.url(database)
        if migrate.current(url) is None:
            continue
        migrate.upgrade(url)
        with restoring.engine_of(url) as engine:
            newest = backups.newest_state(root, ledger=str(auditing.ledger_id(engine)))
            state = _NOTHING if newest is None else backups.state_of(newest)
            why, moment = restoring.reason_of(backup), now()
            found = service.tighten(engine, state, reason=why, now=moment, actor=actor)
            service.forget_bots(engine, reason=why, now=moment, actor=actor)
            known = None if newest is None else newest.name
    return known, found
