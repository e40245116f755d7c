"""`liveops explain`: why an arm has its traffic, and when it may be decided."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from liveops.commands.options import AsJson, ConfigFile, Demo, ledger_app, print_json


def explain(
    experiment: Annotated[str, typer.Argument(help="Experiment.")],
    arm: Annotated[str, typer.Argument(help="Policy: full name, sha or unique sha prefix.")],
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Say in plain words why an arm's traffic is what it is, and when it may be decided.

    The decision that moved it, with what was measured and the limit; what holds it back; and how
    many more decisions and days, as a range, until it is proven better or worse at the pace of its
    evidence so far, "may never be decided at this rate" included. A forecast decides nothing.
    """
    from bandit.service import explaining
    from liveops.explanation import explanation_lines

    with ledger_app(config=config, demo=demo) as app:
        found = explaining.explain(app.engine, experiment, arm)
    if as_json:
        print_json(found.to_json())
        return
    for line in explanation_lines(found):
        sys.stdout.write(f"{line}\n")
