"""`liveops backup take|list|verify|restore` and `liveops drill restore`."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit.core.backups import BackupKind
from bandit.core.errors import InvalidInput
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    actor,
    ledger_app,
    print_json,
    settings_from,
)

if TYPE_CHECKING:
    from bandit.service.backups import Tightened
    from config.settings import Settings
    from liveops.restoring import Restored
    from snapshots.backup_files import Backup

commands = typer.Typer(help="Backups of the ledger, and restoring it.", no_args_is_help=True)
drill_commands = typer.Typer(help="Exercises of what must work one day.", no_args_is_help=True)

BackupName = Annotated[str, typer.Argument(help="Name of a backup, or latest.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")]


@commands.command("take")
def take(
    kind: Annotated[
        BackupKind, typer.Option("--kind", help="What to back up.")
    ] = BackupKind.DATABASE,
    date: Annotated[
        datetime | None,
        typer.Option(
            "--date",
            formats=["%Y-%m-%d"],
            help="Do nothing where one was taken on this day (UTC) or later.",
            show_default=False,
        ),
    ] = None,
    if_archived: Annotated[
        bool,
        typer.Option(
            "--if-archived",
            help="Do nothing where no log of an embedded server is archived: a base needs it.",
        ),
    ] = False,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Take a backup of the ledger, or of who may trade (state), and verify it.

    It appears under its name when it is whole and on disk; of a run that was killed nothing does.
    Older ones than backup.keep_days are removed then, but never the newest of a kind.
    """
    from liveops import backups
    from liveops.backup_uploads import Uploads, upload
    from liveops.ledger_server import backup_dir

    if if_archived and (why_not := _not_archived(config, demo=demo)) is not None:
        _tell(as_json, {"would" if dry_run else "done": [], "why_not": why_not})
        return
    since = None if date is None else date.date()
    with ledger_app(config=config, demo=demo) as app:
        root = backup_dir(app.settings, demo=demo)
        if dry_run:
            is_due = since is None or not backups.taken_since(root, kind, since)
            _tell(as_json, {"would": _would(kind, root) if is_due else []})
            return
        made = backups.take(app, kind, since=since, say=_say)
        # What the demo keeps stays on this machine.
        sent = Uploads() if demo else upload(app.settings, root, now=app.clock.now)
    if sent.why is not None:
        _say(f"not uploaded, the next run tries again: {sent.why}")
    told: dict[str, Any] = {"done": [] if made is None else [made.to_json()]}
    if made is None:
        told["there_is_one_since"] = f"{since}"
    _tell(as_json, told | (sent.to_json() if app.settings.backup.upload else {}))


def _not_archived(config: Path | None, *, demo: bool) -> str | None:
    from bandit.core.backups import RestoreRefused
    from liveops.base_backups import archive_of

    try:
        archive_of(settings_from(config), demo=demo)
    except RestoreRefused as error:
        return str(error)
    return None


def _would(kind: BackupKind, root: Path) -> list[str]:
    return [f"take a {kind.value} backup in {root}", "remove those that are too old"]


@commands.command("list")
def list_backups(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print the backups there are, the newest first; their files are not read."""
    from bandit.core.backups import BackupDamaged
    from liveops.ledger_server import backup_dir
    from snapshots import backup_files

    root = backup_dir(settings_from(config), demo=demo)
    told: list[dict[str, Any]] = []
    for name in backup_files.names(root):
        try:
            told.append(backup_files.opened(root, name).to_json())
        except BackupDamaged as error:
            told.append({"name": name, "damaged": str(error)})
    if as_json:
        print_json(told)
        return
    for backup in told:
        size = f"{backup['bytes']} bytes" if "bytes" in backup else "DAMAGED"
        sys.stdout.write(f"{backup['name']} {size}\n")


@commands.command("verify")
def verify(
    name: BackupName = "latest",
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Read a whole backup; exit 1 unless every byte is what was written."""
    from liveops import backups

    backup = _found(config, demo=demo, name=name)
    backups.check(backup)
    _tell(as_json, {"done": [backup.to_json()]})


@commands.command("fetch")
def fetch(
    name: BackupName = "latest",
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Bring a backup from the bucket to this machine, and verify it."""
    from liveops import backup_uploads
    from liveops.clock import SystemClock
    from liveops.ledger_server import backup_dir

    settings = settings_from(config)
    root = backup_dir(settings, demo=demo)
    made = backup_uploads.fetch(settings, root, name, now=SystemClock().now)
    _tell(as_json, {"done": [made.to_json()]})


@commands.command("restore")
def restore(
    name: BackupName = "latest",
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="URL",
            help="Empty database to fill; the configured ledger if left out.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="MOMENT",
            help="Bring the embedded server back as of 2026-03-01T12:00:00Z, or of the log's end.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Fill an empty ledger from a backup of the database; every account of it is killed.

    A state backup restores no ledger: it kills every account of the one there is, and stops each
    arm that it knows as stopped. `--at` goes on from a base backup by the archived log, where the
    embedded server's home was moved away. Nothing is ever let go on: that is `liveops release`.
    """
    settings = settings_from(config)
    if at is not None:
        _recover(settings, _moment(at), dry_run=dry_run, as_json=as_json)
        return
    backup = _found(config, demo=demo, name=name)
    if dry_run:
        _tell(as_json, {"would": [f"restore {backup.name}", "kill every account"]})
    elif backup.kind is BackupKind.STATE:
        if into is not None:
            rule = "must be left out: a state backup stops the configured ledger"
            raise InvalidInput(field="--into", rule=rule, found="an address")
        _halt(backup, demo=demo, as_json=as_json, config=config)
    else:
        _fill(settings, backup, into, demo=demo, as_json=as_json)


def _halt(backup: Backup, *, demo: bool, as_json: bool, config: Path | None) -> None:
    from liveops.restoring import halt_as_known

    with ledger_app(config=config, demo=demo, only_stops=True) as app:
        now = app.clock.now()
        stopped = halt_as_known(app.engine, backup, now=now, actor=actor(), say=_say)
    done = [*stopped.done, "every account is killed"]
    _tell(as_json, {"done": done, "left": list(stopped.left)})


def _fill(
    settings: Settings, backup: Backup, into: str | None, *, demo: bool, as_json: bool
) -> None:
    from liveops import restoring
    from liveops.clock import SystemClock
    from liveops.ledger_server import backup_dir, ledger_server

    root = backup_dir(settings, demo=demo)
    how: dict[str, Any] = {"root": root, "now": SystemClock().now, "actor": actor(), "say": _say}
    if into is not None:
        _restored(restoring.restore(backup, _psycopg(into), **how), as_json=as_json)
        return
    with ledger_server(settings, demo=demo, create=True) as server:
        _restored(restoring.restore(backup, server.url, **how), as_json=as_json)


def _recover(settings: Settings, at: datetime | None, *, dry_run: bool, as_json: bool) -> None:
    from liveops import recovering
    from liveops.clock import SystemClock
    from liveops.ledger_server import backup_dir

    if dry_run:
        backup = recovering.copy_before(backup_dir(settings, demo=False), at)
        _tell(as_json, {"would": [f"go on from {backup.name} by the log", "kill every account"]})
        return
    found = recovering.recover(settings, at=at, now=SystemClock().now, actor=actor(), say=_say)
    if as_json:
        print_json(found.to_json())
        return
    sys.stdout.write(f"went on from {found.backup.name} to {found.at or 'the end of the log'}\n")
    _stops(found.tightened)


def _moment(text: str) -> datetime | None:
    """Return the moment that was typed; None for the latest."""
    from bandit.core.model import checked_instant

    if text == "latest":
        return None
    rule = "must be latest, or a moment with its zone such as 2026-03-01T12:00:00Z"
    try:
        return checked_instant(datetime.fromisoformat(text), field="--at")
    except ValueError:
        raise InvalidInput(field="--at", rule=rule, found=text) from None


@drill_commands.command("restore")
def drill_restore(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Restore the newest backup aside, compare it, and measure how long that takes.

    Takes a backup where there is none. The scratch server and its files are gone afterwards; how it
    went stays in the ledger. Exit 1 where the restored ledger is not what was backed up.
    """
    from liveops.restore_drill import exercise

    with ledger_app(config=config, demo=demo) as app:
        drill = exercise(app, actor=actor(), say=_say)
    if as_json:
        print_json(drill.to_json())
    else:
        for key, value in drill.to_json().items():
            sys.stdout.write(f"{key}: {value}\n")
    if not drill.passed:
        raise typer.Exit(1)


def _found(config: Path | None, *, demo: bool, name: str) -> Backup:
    from liveops import backups
    from liveops.ledger_server import backup_dir
    from snapshots.backup_files import LATEST

    root = backup_dir(settings_from(config), demo=demo)
    ledgers = (BackupKind.DATABASE,)
    return backups.found(root, name, kinds=ledgers if name == LATEST else tuple(BackupKind))


def _psycopg(url: str) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        rule = "must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        raise InvalidInput(field="--into", rule=rule, found="something else") from None
    return found.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _restored(found: Restored, *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
        return
    sys.stdout.write(f"restored {found.backup.name}: {found.rows} rows\n")
    _stops(found.tightened)


def _stops(found: Tightened) -> None:
    for line in found.done:
        sys.stdout.write(f"stopped: {line}\n")
    for line in found.left:
        sys.stdout.write(f"not stopped, its account is killed: {line}\n")
    sys.stdout.write("every account is killed: see docs/runbooks/disaster-recovery.md\n")


def _tell(as_json: bool, told: dict[str, Any]) -> None:
    if as_json:
        print_json(told)
        return
    for key, values in told.items():
        if values is None:
            continue
        for value in values if isinstance(values, list) else [values]:
            sys.stdout.write(f"{key}: {value['name'] if isinstance(value, dict) else value}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
