"""`liveops selection`: in which symbols an experiment opens positions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, print_json

if TYPE_CHECKING:
    from bandit.service.selecting import SelectionReport

commands = typer.Typer(
    help="The strongest symbols, in which alone positions open.", no_args_is_help=True
)

Experiment = Annotated[str, typer.Argument(help="Experiment, such as btc.")]


@commands.command("show")
def show(
    experiment: Experiment, demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """Print the selection in force, the scores that made it, and when the next one is due."""
    from bandit.service import selecting

    with ledger_app(config=config, demo=demo) as app:
        found = selecting.report(app.engine, experiment)
    _say(found, as_json=as_json)


@commands.command("make")
def make(
    experiment: Experiment,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be selected, and store nothing.")
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Rank the symbols by the candles in the store and select the strongest, where it is due.

    `live_ops_monitor --mode continuous` does so by itself.
    """
    from liveops.ranking import select_by_momentum

    with ledger_app(config=config, demo=demo) as app:
        found = select_by_momentum(app, experiment, actor=actor(), is_dry=dry_run)
    _say(found, as_json=as_json)


def _say(found: SelectionReport, *, as_json: bool) -> None:
    from liveops.selection_lines import selection_lines

    if as_json:
        print_json(found.to_json())
    else:
        sys.stdout.write("".join(f"{line}\n" for line in selection_lines(found)))
