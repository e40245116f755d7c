"""Take backups: of what must stay stopped, and of the whole ledger."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from bandit import __version__
from bandit.core.backups import (
    BackupDamaged,
    BackupKind,
    BackupRecord,
    backup_name,
    kind_and_second,
)
from bandit.core.errors import BanditError, UnknownName
from bandit.service import backups as service
from bandit.service.backups import Moment, State
from bandit.storage import migrate, roles
from config.settings import plain
from liveops import base_backups
from liveops.ledger_server import backup_dir, state_home, wal_archive_dir
from liveops.postgres_programs import connection_of, programs_for, run_program
from liveops.wiring import App
from snapshots import backup_files
from snapshots.backup_files import LATEST, Backup

ARCHIVE: Final = "ledger.dump"
STATE: Final = "state"
_ATTEMPTS, _PAUSE_SECONDS = 60, 0.05
Say = Callable[[str], None]


class BackupFailed(BanditError):
    """No backup was taken; those from before are as they were."""

    code = "backup_failed"


def take(app: App, kind: BackupKind, *, since: date | None = None, say: Say) -> Backup | None:
    """Take a backup, verify it, and remove those that are too old; return it.

    Where one of the kind was taken on the day `since` (UTC) or later, nothing is done: None. `say`
    gets a line before each step. Raises `LockHeldElsewhere` while another process takes one,
    `LedgerUnavailable` where another may by now, `NewerServer`, `BackupFailed`, and of a base
    `RestoreRefused` where it could not be used.
    """
    root = backup_dir(app.settings, demo=app.demo)
    if kind is BackupKind.BASE:
        archive = base_backups.archive_of(app.settings, demo=app.demo)
    doing = f"backup of the {kind.value}"
    with service.only_one(app.engine, doing=doing) as require, _failing():
        backup_files.clear_parts(root)
        if since is not None and taken_since(root, kind, since):
            _record(app, found(root, LATEST, kinds=(kind,)))
            return None
        if kind is BackupKind.BASE:
            _require_archiving(app)
        taken_at = _free_second(app, root, kind)
        name = backup_name(kind, taken_at)
        with backup_files.appearing_backup(root, name) as part:
            say(f"reading the ledger for {name}")
            backup_files.seal(part, _filled(app, kind, part, taken_at=taken_at, say=say))
            say(f"putting {name} into its place")
            require()
        made = backup_files.opened(root, name)
        say("reading it back")
        try:
            check(made)
        except BanditError:
            backup_files.remove(made)
            raise
        _record(app, made)
        say("removing what is too old")
        require()
        prune(root, now=taken_at, keep_days=app.settings.backup.keep_days)
        if kind is BackupKind.BASE:
            base_backups.forget_log(archive, root, say=say)
    return made


def _require_archiving(app: App) -> None:
    """Refuse a copy from which no log would lead on; raises `BackupFailed`."""
    failure = service.known(app.engine).unarchived
    if failure is not None:
        raise BackupFailed(
            f"{failure}: is {wal_archive_dir(app.settings)} mounted, writable and not full? "
            f"See server.log below {state_home(app.settings) / 'postgres'}"
        )


def _record(app: App, made: Backup) -> None:
    """Let every replica know of a backup; also one whose taker was killed before it could."""
    taken = BackupRecord(
        kind=made.kind, name=made.name, taken_at=made.taken_at, size_bytes=made.size_bytes
    )
    service.record(app.engine, taken)


def taken_since(root: Path, kind: BackupKind, since: date) -> bool:
    """Say whether a backup of a kind was taken on that day of UTC, or later."""
    first = datetime.combine(since, time(), tzinfo=UTC)
    return any(kind_and_second(name)[1] >= first for name in backup_files.names(root, kind))


def prune(root: Path, *, now: datetime, keep_days: int) -> list[str]:
    """Remove the backups that are older than so many days; return their names."""
    old = backup_files.expired(root, before=now - timedelta(days=keep_days))
    for backup in old:
        backup_files.remove(backup)
    return [backup.name for backup in old]


def check(backup: Backup) -> None:
    """Read a whole backup; raises `BackupDamaged` unless it is what was written, and readable."""
    backup_files.verify(backup)
    if backup.kind is BackupKind.DATABASE:
        major = programs_for(backup.metadata["server_major"])
        listed = run_program("pg_restore", "--list", str(backup.path / ARCHIVE), major=major)
        missing = [name for name in backup.metadata["rows"] if _entry(name) not in listed]
        if missing:
            raise BackupDamaged(f"{backup.name}: the archive has no data of {missing[0]}")
    if backup.kind is BackupKind.BASE:
        base_backups.check_copy(backup.path / base_backups.CLUSTER)
    state_of(backup)


def _entry(table: str) -> str:
    schema, _, name = table.partition(".")
    return f" TABLE DATA {schema} {name} "


def found(root: Path, name: str, *, kinds: tuple[BackupKind, ...] = tuple(BackupKind)) -> Backup:
    """Return a backup by its name, or the latest of these kinds; its files are not read yet.

    Raises `UnknownName`, and `BackupDamaged`: what comes after it in time is not taken instead.
    """
    if name == LATEST:
        names = sorted(
            (each for kind in kinds for each in backup_files.names(root, kind)),
            key=lambda each: kind_and_second(each)[1],
        )
        if not names:
            what = " or ".join(kind.value for kind in kinds)
            raise UnknownName(kind=f"backup of the {what} in {root}", name=name)
        name = names[-1]
    return backup_files.opened(root, name)


def state_of(backup: Backup) -> State:
    """Return what a backup knows of who may trade; raises `BackupDamaged`."""
    try:
        return {
            path.stem: json.loads(path.read_text(encoding="utf-8"))["rows"]
            for path in sorted((backup.path / STATE).glob("*.json"))
            if path.stem != "configuration"
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BackupDamaged(f"{backup.name}: its state cannot be read: {error!r}") from error


def newest_state(root: Path, *, ledger: str) -> Backup | None:
    """Return the newest whole backup that knows of who may trade in a ledger; None without one.

    What is damaged is passed over: an older one that can be read is better than none.
    """
    kinds = (BackupKind.STATE, BackupKind.DATABASE)
    names = (name for kind in kinds for name in backup_files.names(root, kind))
    for name in sorted(names, key=lambda each: kind_and_second(each)[1], reverse=True):
        try:
            backup = backup_files.opened(root, name)
            if backup.metadata["ledger"] != ledger:
                continue
            backup_files.verify(backup)
        except BackupDamaged:
            continue
        return backup
    return None


def _filled(
    app: App, kind: BackupKind, part: Path, *, taken_at: datetime, say: Say
) -> dict[str, Any]:
    with service.moment(app.engine) as moment:
        metadata: dict[str, Any] = {
            "name": backup_name(kind, taken_at),
            "kind": kind.value,
            "what": _WHAT[kind],
            "taken_at": taken_at.isoformat(),
            "product_version": __version__,
            "schema": migrate.current(roles.as_owner(_url(app))),
            "server_major": moment.server_major,
            **moment.identity(),
        }
        _write_state(app, part, moment.state(), taken_at=taken_at)
        if kind is BackupKind.BASE:
            say("copying the server's files")
            base_backups.copy_server(app.settings, part)
            metadata["whole_at"] = app.clock.now().isoformat()
        if kind is BackupKind.DATABASE:
            say("dumping the ledger")
            _dump(app, part, moment)
            say("counting what was dumped")
            metadata |= {"rows": moment.row_counts(), "digest": moment.digest()}
    return metadata


_WHAT = {
    BackupKind.STATE: "who may trade: experiments, arms, allocations, kill switches, guards",
    BackupKind.DATABASE: "the ledger, as pg_dump writes it, and who may trade",
    BackupKind.BASE: "the files of the embedded server, as pg_basebackup copies them",
}


def _write_state(app: App, part: Path, state: State, *, taken_at: datetime) -> None:
    (part / STATE).mkdir()
    parts: dict[str, object] = {name: list(rows) for name, rows in state.items()}
    parts["configuration"] = plain(app.settings)
    for name, rows in parts.items():
        document = {"taken_at": taken_at.isoformat(), "rows": rows}
        text = json.dumps(document, indent=1, sort_keys=True)
        (part / STATE / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def _dump(app: App, part: Path, moment: Moment) -> None:
    conninfo, variables = connection_of(roles.as_owner(_url(app)))
    run_program(
        "pg_dump",
        "--format=custom",
        f"--snapshot={moment.snapshot}",
        f"--file={part / ARCHIVE}",
        *("-d", conninfo),
        major=programs_for(moment.server_major),
        variables=variables,
    )


def _url(app: App) -> str:
    return app.engine.url.render_as_string(hide_password=False)


def _free_second(app: App, root: Path, kind: BackupKind) -> datetime:
    """Return the time now, of a second of which there is no backup yet."""
    pause = threading.Event()
    for _ in range(_ATTEMPTS):
        now = app.clock.now()
        if not (root / backup_name(kind, now)).exists():
            return now
        pause.wait(_PAUSE_SECONDS)
    raise BackupFailed(f"{root} has a backup of each second now: the clock stands")


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupFailed(f"no backup was taken: {error}") from error
