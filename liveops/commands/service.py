"""`liveops serve`, `doctor`, `reset`, `db` and `config`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from liveops.commands.options import (
    AdminPort,
    AsJson,
    ConfigFile,
    Day,
    Demo,
    DryRun,
    Port,
    actor,
    ledger_app,
    loaded_settings,
    print_json,
    settings_from,
)

database_commands = typer.Typer(help="The ledger's schema and server.", no_args_is_help=True)
configuration_commands = typer.Typer(help="The configuration.", no_args_is_help=True)


def serve(
    demo: Demo = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Port = None,
    admin_port: AdminPort = None,
    config: ConfigFile = None,
) -> None:
    """Serve the HTTP API until stopped."""
    from config.settings import read_environment
    from liveops.api.server import listening
    from liveops.breaker_watch import following_resets
    from liveops.following import following_changes
    from liveops.kill_watch import watching_kill_switch
    from liveops.notifier import notifying
    from liveops.paper_closing import closing_on_paper
    from liveops.policy_archive import bring_back
    from liveops.readiness import tell_ready
    from liveops.scheduler import scheduling
    from liveops.sealer import sealing
    from liveops.status_file import keeping_status_file
    from liveops.stopping import wait_for_stop
    from liveops.wiring import running_app

    settings = settings_from(config)
    in_service = settings.scheduler.in_service
    with (
        running_app(settings, demo=demo, create=True, upgrade=True) as app,
        sealing(app),
        watching_kill_switch(app),
        following_changes(app),
        following_resets(app),
        app.gpus.looking(),
        app.monitors.looking(app.engine),
        keeping_status_file(app),
        closing_on_paper(app),
        notifying(app),
        scheduling(app, config=config) if in_service else nullcontext(),
        listening(app, host=host, port=port, admin_port=admin_port) as at,
    ):
        bring_back(app)
        admin = f", for operators {at.admin}" if at.admin else ""
        health = f", health {at.health}" if at.health else ""
        sys.stderr.write(f"serving {at.public}{admin}{health}; Ctrl-C stops everything\n")
        tell_ready(read_environment())
        wait_for_stop(meanwhile=app.revive)


def doctor(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Check what usually goes wrong on a first day, and say what to do about it."""
    from liveops.doctor import Level, checkup

    findings = checkup(settings_from(config), demo=demo)
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.level.value:<5} {finding.check}: {finding.message}\n")
    if any(finding.level is Level.FAIL for finding in findings):
        raise typer.Exit(1)


def reset(
    demo: Annotated[
        bool, typer.Option("--demo", help="Required: only the demo can be reset.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Forget the demo's ledger and its pictures; the real one is never touched."""
    from liveops import replay_pictures
    from liveops.ledger_server import drop_demo

    if not demo:
        raise typer.BadParameter("only the demo's ledger can be reset: say --demo")
    settings = settings_from(config)
    drop_demo(settings)
    replay_pictures.forget(settings)
    sys.stdout.write("the demo's ledger is gone; `make run` makes a new one\n")


@database_commands.command("upgrade")
def upgrade(demo: Demo = False, config: ConfigFile = None) -> None:
    """Bring the ledger to the schema of this release; again changes nothing."""
    from bandit.storage import migrate
    from liveops.ledger_server import ledger_server

    with ledger_server(settings_from(config), demo=demo, create=True) as server:
        before = migrate.current(server.url)
        migrate.upgrade(server.url)
        after = migrate.current(server.url)
    said = f"from {before or 'nothing'} to {after}" if before != after else f"stays at {after}"
    sys.stdout.write(f"schema {said}\n")


@database_commands.command("status")
def status(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print the ledger's schema and the one this release needs; exit 1 when they differ."""
    from bandit.storage import migrate
    from liveops.ledger_server import ledger_server

    with ledger_server(settings_from(config), demo=demo, create=False) as server:
        found, wanted = migrate.current(server.url), migrate.head()
    if as_json:
        print_json({"schema": found, "needed": wanted, "ready": found == wanted})
    else:
        sys.stdout.write(f"schema {found or 'none'}, this release needs {wanted}\n")
    if found != wanted:
        raise typer.Exit(1)


@database_commands.command("upgrade-server")
def upgrade_server(config: ConfigFile = None) -> None:
    """Bring the embedded server to the newest packaged PostgreSQL; again changes nothing.

    Stop everything that uses it first. Every database is exported, imported and compared beside
    the old files, which are then kept under another name; settings changed by hand in
    postgresql.conf or pg_hba.conf stay with them. A run that was killed is simply run again.
    """
    from bandit.core.errors import InvalidInput
    from liveops import postgres_upgrade
    from liveops.ledger_server import state_home

    settings = settings_from(config)
    if settings.database.url is not None:
        rule = "must not be set: a server of your own is upgraded with its own tools"
        raise InvalidInput(field="database.url", rule=rule, found="an address")
    data_dir = state_home(settings) / "postgres"
    report = postgres_upgrade.upgrade_server(data_dir, say=_say)
    if report.after is None:
        sys.stdout.write("nothing to do: no server was started here yet\n")
    elif report.before == report.after:
        sys.stdout.write(f"nothing to do: the server is PostgreSQL {report.after}\n")
    else:
        sys.stdout.write(f"the server is PostgreSQL {report.after}, was {report.before}\n")
    for kept in report.kept:
        sys.stdout.write(f"the old files are in {kept}; delete them when all is well\n")


@database_commands.command("maintain")
def maintain(
    day: Day = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Keep the ledger's database fit, and print how large its tables are; exit 1 on any error.

    Settled decisions of long ago leave for archives (as `liveops ledger age`), statistics are
    compared with outcomes unless that was done today, and tables with many dead rows or stale
    planner numbers are vacuumed and analyzed. Services may run meanwhile.
    """
    from liveops.maintenance import database
    from liveops.maintenance.days import moment_of

    with ledger_app(config=config, demo=demo) as app:
        moment = moment_of(None if day is None else day.date(), now=app.clock.now())
        upkeep = database.maintain(app, moment=moment, dry_run=dry_run, actor=actor())
    if as_json:
        print_json({"date": f"{moment:%Y-%m-%d}", "dry_run": dry_run, **upkeep.to_json()})
    else:
        for line in upkeep.done:
            sys.stdout.write(f"{line}\n")
        for table in upkeep.tables:
            sys.stdout.write(
                f"{table.name}  {table.rows} rows  {table.table_bytes} bytes  "
                f"indexes {table.index_bytes} bytes\n"
            )
    for error in upkeep.errors:
        sys.stderr.write(f"{error}\n")
    if upkeep.errors:
        raise typer.Exit(1)


@configuration_commands.command("show")
def show(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print every setting, where it came from, and which are not in force yet."""
    from config.settings import describe

    loaded = loaded_settings(config)
    rows = describe(loaded)
    if as_json:
        keys = ("key", "value", "unit", "source", "in_force", "meaning")
        print_json([{key: getattr(row, key) for key in keys} for row in rows])
        return
    for row in rows:
        force = "" if row.in_force else ", not in force yet"
        sys.stdout.write(f"{row.key} = {row.value}  ({row.unit}, from {row.source}{force})\n")
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")


@configuration_commands.command("encrypt")
def encrypt(config: ConfigFile = None) -> None:
    """Read a secret from stdin and print it as the settings file may hold it.

    A last line break is not part of it. The key is the first in LIVEOPS_SECRET_KEY, or in the file
    that LIVEOPS_SECRET_KEY_FILE names.
    """
    from bandit.core.errors import InvalidInput
    from config.settings import read_environment, secrets_vault

    secret = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not secret:
        raise InvalidInput(field="stdin", rule="must hold a secret", found="nothing")
    sys.stdout.write(f"{secrets_vault(config, read_environment()).encrypted(secret)}\n")


@configuration_commands.command("secret-key")
def secret_key() -> None:
    """Print a new key that encrypts secrets, for LIVEOPS_SECRET_KEY; nothing is stored."""
    from config.secrets import new_secret_key

    sys.stdout.write(f"{new_secret_key()}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
