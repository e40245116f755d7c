"""`liveops guard`: where performance guards stand, and a person's way to begin one anew."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, print_json

commands = typer.Typer(
    help="Performance guards: NORMAL, REDUCED or PAUSED, and why.", no_args_is_help=True
)

OneExperiment = Annotated[
    str | None, typer.Argument(help="Experiment, such as btc.", show_default=False)
]
OneAccount = Annotated[
    str | None,
    typer.Option("--account", help="Account, such as usd, instead of an experiment."),
]


@commands.command("show")
def show(
    experiment: Annotated[
        str | None, typer.Argument(help="Only its guards; all if left out.", show_default=False)
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Print guards: state, what it does to decisions, what is measured, and what is to recover."""
    from bandit.service import performance_guarding

    with ledger_app(config=config, demo=demo) as app:
        found = performance_guarding.listed(app.engine, experiment)
    if as_json:
        print_json([report.to_json() for report in found])
        return
    from rich.console import Console

    from liveops.guard_lines import guard_lines

    for line in guard_lines(found):
        Console().print(line, soft_wrap=True)


@commands.command("reset")
def reset(
    reason: ReasonText,
    experiment: OneExperiment = None,
    account: OneAccount = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Begin a guard anew, in the name of a person who says why: NORMAL, with an empty window.

    The guard of an experiment and that of its account are two: a decision follows the stricter one.
    """
    from bandit.core.errors import InvalidInput
    from bandit.service import performance_guarding
    from liveops.guard_lines import line_of

    if (experiment is None) == (account is None):
        rule = "must be given, or --account, and not both"
        raise InvalidInput(field="EXPERIMENT", rule=rule, found=experiment or "nothing")
    with ledger_app(config=config, demo=demo) as app:
        report = performance_guarding.reset(
            app.engine,
            experiment=experiment,
            account=account,
            reason=reason,
            now=app.clock.now(),
            actor=actor(),
        )
    sys.stdout.write(f"{line_of(report)}\n")
