"""`liveops ledger digest` and `export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from liveops.commands.options import ConfigFile, Demo, ledger_app
from snapshots.formats import ExportFormat

commands = typer.Typer(help="Read the ledger as a whole.", no_args_is_help=True)


@commands.command("digest")
def digest(demo: Demo = False, config: ConfigFile = None) -> None:
    """Print one hash of everything the ledger remembers."""
    from bandit.service.ledger import ledger_digest

    with ledger_app(config=config, demo=demo) as app:
        sys.stdout.write(ledger_digest(app.engine) + "\n")


@commands.command("export")
def export(
    directory: Annotated[Path, typer.Argument(help="New directory to write to.")],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="File format.")
    ] = ExportFormat.PARQUET,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Write every table of the ledger, as of one moment, to Parquet or CSV files."""
    from snapshots.ledger_export import export_ledger

    with ledger_app(config=config, demo=demo) as app:
        for path, rows in export_ledger(app.engine, directory, form=form):
            sys.stdout.write(f"{path} {rows} rows\n")
