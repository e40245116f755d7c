"""Options that several commands share, and how they reach the ledger."""

from __future__ import annotations

import getpass
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit.core.errors import InvalidInput
from liveops.events import EventFormatter

if TYPE_CHECKING:
    from config.settings import LoadedSettings, Settings
    from liveops.wiring import App

Demo = Annotated[bool, typer.Option("--demo", help="Use the demo's ledger, never the real one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Day = Annotated[
    datetime | None,
    typer.Option(
        "--date",
        metavar="YYYY-MM-DD",
        formats=["%Y-%m-%d"],
        help="UTC day that it is done for; today if left out.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port to serve on.", show_default=False),
]
AdminPort = Annotated[
    int | None,
    typer.Option(
        "--admin-port",
        min=0,
        max=65535,
        help="Port for operators and probes; 0 for none.",
        show_default=False,
    ),
]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", help="Write a page with a picture into this file instead."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Configuration file.", show_default=False)
]


def loaded_settings(config: Path | None) -> LoadedSettings:
    """Read the configuration as every command does."""
    from config.settings import load_settings, read_environment

    return load_settings(path=config, environ=read_environment(), dotenv=None)


def settings_from(config: Path | None) -> Settings:
    """Load the settings of a command; warnings go to stderr, and logging starts."""
    loaded = loaded_settings(config)
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter())
    logging.basicConfig(level=loaded.settings.logging.level, handlers=[handler])
    # Their INFO is about themselves, and httpx tells addresses, which may be secrets.
    for library in ("uvicorn", "alembic", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))
    return loaded.settings


@contextmanager
def ledger_app(*, config: Path | None, demo: bool, only_stops: bool = False) -> Iterator[App]:
    """Yield the App a reading or operating command works on.

    Our own embedded ledger is brought to this release's schema; a configured server is not touched,
    its schema is `liveops db upgrade`'s or `liveops serve`'s business. A command that `only_stops`
    what trades works under any clock.
    """
    from liveops.wiring import running_app

    settings = settings_from(config)
    embedded = settings.database.url is None
    with running_app(
        settings, demo=demo, create=False, upgrade=embedded, only_stops=only_stops
    ) as app:
        yield app


def money(text: str, *, field: str) -> Decimal:
    """Return an amount of money that was typed; raises `InvalidInput`, naming the option.

    >>> money("12.50", field="--amount")
    Decimal('12.50')
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        rule = "must be an amount of money"
        raise InvalidInput(field=field, rule=rule, found=repr(text)) from None


def utc_day(text: str) -> date:
    """Return the day that was typed for `--date`; raises `InvalidInput`.

    >>> utc_day("2026-03-01")
    datetime.date(2026, 3, 1)
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        rule = "must be a day as YYYY-MM-DD"
        raise InvalidInput(field="--date", rule=rule, found=repr(text)) from None


def actor() -> str:
    """Return who acts, for the audit log: the operating system's user."""
    return f"cli:{getpass.getuser()}"


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
