"""`liveops import outcomes` and `liveops import candles`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit.core.errors import InvalidInput
from liveops.commands.candles import write_findings
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    ledger_app,
    print_json,
    settings_from,
)

if TYPE_CHECKING:
    from learners.market.stored_series import SeriesName
    from liveops.candle_import import ImportedCandles
    from liveops.outcome_import import Refusal

commands = typer.Typer(
    help="Bring outcomes into the ledger, candles into the store.", no_args_is_help=True
)


@commands.callback()
def imports() -> None:
    """Bring outcomes into the ledger, candles into the store."""


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
    from liveops.memory import keeping_what_is_loaded
    from liveops.outcome_import import import_outcomes

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with (
        ledger_app(config=config, demo=demo) as app,
        _refusing(rejects) as refuse,
        Progress(*columns, console=Console(stderr=True)) as bar,
        keeping_what_is_loaded(),
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


CandleFiles = Annotated[
    list[Path] | None,
    typer.Argument(exists=True, dir_okay=False, help="CSV, .csv.gz, Parquet or feather."),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"],
        help="UTC time to fetch from; the last bar stored when left out.",
    ),
]
ExchangeOptions = Annotated[
    Path | None,
    typer.Option(
        "--exchange-options",
        exists=True,
        dir_okay=False,
        help="JSON file of ccxt's options for the exchange: proxies, urls, markets.",
    ),
]


@commands.command("candles")
def candles(
    files: CandleFiles = None,
    source: Annotated[
        str, typer.Option("--source", help="Name of where the files come from.")
    ] = "file",
    exchange: Annotated[
        str | None, typer.Option("--exchange", help="Fetch from this exchange, by its ccxt name.")
    ] = None,
    instrument: Annotated[
        str | None, typer.Option("--instrument", help="Instrument; a file may name its own.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option("--interval", help="Length of a bar to fetch, such as 1h.")
    ] = None,
    since: Since = None,
    exchange_options: ExchangeOptions = None,
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Take files with missing bars.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Bring closed candles into the store, from files or from an exchange.

    Only bars newer than those stored are added, so the same again changes nothing; a bar that
    differs from the one stored is refused. Findings are told, errors of a file refuse it.
    """
    from liveops.candle_import import candle_store, import_candle_file, import_from_exchange
    from liveops.clock import now
    from liveops.wiring import breakers_of

    settings = settings_from(config)
    store = candle_store(settings)
    if exchange is not None:
        name = _series_to_fetch(files, exchange, instrument, interval)
        begin = None if since is None else since.replace(tzinfo=UTC)
        options = _exchange_options(exchange_options)
        breakers = breakers_of(settings)
        fetched = import_from_exchange(
            store, name, since=begin, options=options, breakers=breakers, now=now()
        )
        _tell_of_candles([fetched], as_json=as_json)
        return
    _require_files(files, {"--interval": interval, "--since": since})
    read = (
        import_candle_file(
            store, file, source=source, instrument=instrument, allow_gaps=allow_gaps, now=now()
        )
        for file in files or ()
    )
    _tell_of_candles(read, as_json=as_json)


def _require_files(files: list[Path] | None, of_exchanges: dict[str, object]) -> None:
    for option, value in of_exchanges.items():
        if value is not None:
            raise InvalidInput(field=option, rule="must go with --exchange", found=value)
    if not files:
        raise InvalidInput(field="FILES", rule="must name a file, or --exchange", found="none")


def _series_to_fetch(
    files: list[Path] | None, exchange: str, instrument: str | None, interval: str | None
) -> SeriesName:
    from learners.market.intervals import interval_of
    from learners.market.stored_series import SeriesName

    if files:
        raise InvalidInput(field="FILES", rule="must not go with --exchange", found=files[0])
    if instrument is None or interval is None:
        rule = "must be there with --exchange"
        raise InvalidInput(field="--instrument and --interval", rule=rule, found="none")
    return SeriesName(source=exchange, instrument=instrument, interval=interval_of(interval))


def _exchange_options(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        options = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidInput(field=path.name, rule="must be JSON", found=error) from error
    if not isinstance(options, dict):
        raise InvalidInput(field=path.name, rule="must be a JSON object", found=type(options))
    return options


def _tell_of_candles(imported: Iterable[ImportedCandles], *, as_json: bool) -> None:
    """Tell of each as soon as it is stored: a later file may be refused."""
    documents = []
    for one in imported:
        documents.append(one.to_json())
        if as_json:
            continue
        became = one.appended
        sys.stdout.write(
            f"{one.name}: {became.new} new, {became.known} known before, "
            f"{became.unclosed} not closed yet\n"
        )
        write_findings(documents[-1]["report"]["findings"])
    if as_json:
        print_json(documents)


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
