"""`liveops import outcomes`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.options import AsJson, ConfigFile, Demo, ledger_app, print_json

if TYPE_CHECKING:
    from liveops.outcome_import import Refusal

commands = typer.Typer(help="Bring files into the ledger.", no_args_is_help=True)


@commands.callback()
def imports() -> None:
    """Bring files into the ledger."""


@commands.command("outcomes")
def outcomes(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV, .csv.gz or Parquet.")
    ],
    rejects: Annotated[
        Path | None,
        typer.Option("--rejects", help="CSV file to write refused rows to.", show_default=False),
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Record the outcomes of a file; exit 1 when a row was refused.

    Its columns are the fields of `POST /v1/outcomes`; times are ISO 8601 with their offset or epoch
    milliseconds, an empty cell is a field left out. Rows that were recorded before count as known,
    so the same file again changes nothing. Refused rows are told with line, field and rule.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    from liveops.connectors.outcome_files import outcome_rows
    from liveops.outcome_import import import_outcomes

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with (
        ledger_app(config=config, demo=demo) as app,
        _refusing(rejects) as refuse,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task("import", total=1.0)
        imported = import_outcomes(
            app.engine,
            outcome_rows(file),
            now=app.clock.now(),
            refuse=refuse,
            advance=lambda share: bar.update(task, completed=share),
        )
    if as_json:
        print_json(imported.to_json())
    else:
        rows = imported.to_json()["rows"]
        sys.stdout.write(
            f"{rows} rows: {imported.created} new, {imported.known} known before, "
            f"{imported.refused} refused\n"
        )
    if imported.refused:
        raise typer.Exit(1)


@contextmanager
def _refusing(path: Path | None) -> Iterator[Callable[[Refusal], None]]:
    """Yield what tells of a refused row on stderr, and in a file at `path`."""
    from liveops.outcome_import import Refusal

    def tell(refusal: Refusal) -> None:
        sys.stderr.write(f"{refusal}\n")

    if path is None:
        yield tell
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Refusal)])

        def write(refusal: Refusal) -> None:
            tell(refusal)
            writer.writerow(astuple(refusal))

        yield write
