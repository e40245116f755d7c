"""`liveops notify`: whether people can be reached, and what they were told."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    ledger_app,
    print_json,
    settings_from,
)

commands = typer.Typer(help="Notices to people, and the ways they go.", no_args_is_help=True)

OneChannel = Annotated[
    str | None, typer.Option("--channel", help="Only this channel, such as discord.")
]
Newest = Annotated[
    int, typer.Option("--newest", min=1, max=1000, help="Only this many of the newest.")
]


@commands.command("test")
def try_out(channel: OneChannel = None, config: ConfigFile = None) -> None:
    """Send a test notice on each channel that is set up, and say what became of it.

    Exit 1 where a channel failed. Needs neither a ledger nor a running service.
    """
    from liveops.clock import now
    from liveops.notice_trial import try_channels

    settings = settings_from(config)
    if not settings.operations.alerts.enabled:
        sys.stderr.write("operations.alerts.enabled is false: only the log is told\n")
    results = try_channels(settings, channel, now=now())
    for name, error in results.items():
        sys.stdout.write(f"{name}: {'sent' if error is None else f'failed, {error}'}\n")
    if any(error is not None for error in results.values()):
        raise typer.Exit(1)


@commands.command("list")
def list_notices(
    newest: Newest = 20, demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """Print the newest notices and what became of each on every channel, the newest first."""
    from bandit.service import noticing

    with ledger_app(config=config, demo=demo) as app:
        found = noticing.newest(app.engine, most=newest)
    if as_json:
        print_json([report.to_json() for report in found])
        return
    for report in found:
        told = report.notice
        sys.stdout.write(f"{told.at:%Y-%m-%d %H:%M:%S} {told.kind.value}: {told.title}\n")
        for delivery in report.deliveries:
            attempts = f", {delivery.attempts} attempts" if delivery.attempts > 1 else ""
            why = f": {delivery.error}" if delivery.error else ""
            sys.stdout.write(f"  {delivery.channel} {delivery.state.value}{attempts}{why}\n")
    if not found:
        sys.stdout.write("no notices yet\n")
