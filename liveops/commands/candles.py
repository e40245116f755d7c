"""`liveops candles`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from liveops.commands.options import AsJson, ConfigFile, print_json, settings_from

commands = typer.Typer(help="The candles in the store.", no_args_is_help=True)


@commands.callback()
def candles() -> None:
    """The candles in the store."""


@commands.command("show")
def show(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List each series with its bars, its digest and what was found in them."""
    from liveops.candle_import import candle_store

    series = candle_store(settings_from(config)).series()
    if as_json:
        print_json([stored.to_json() for stored in series])
        return
    if not series:
        sys.stdout.write("no candles yet; `liveops import candles` brings them in\n")
    for stored in series:
        period = f"{stored.report['first']} to {stored.report['last']}"
        sys.stdout.write(f"{stored.name}: {stored.bars} bars, {period}\n")
        sys.stdout.write(f"  digest {stored.digest}\n")
        write_findings(stored.report["findings"])


def write_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    """Print the findings of a validation report, a line each."""
    for found in findings:
        sys.stdout.write(
            f"  {found['severity']}: {found['column']} {found['rule']}, found {found['found']}\n"
        )
