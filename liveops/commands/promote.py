"""`liveops promote` and `liveops rollback`: who is the champion."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import ConfigFile, Demo, actor, ledger_app

if TYPE_CHECKING:
    from bandit.storage.experiments import ArmRecord

Experiment = Annotated[str, typer.Argument(help="Experiment.")]


def promote(
    experiment: Experiment,
    arm: Annotated[str, typer.Argument(help="Policy: full name, sha or unique sha prefix.")],
    reason: ReasonText,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Make a challenger the champion; the one before stays in the experiment, as its hold-out.

    Once this returns, no decision made under the champion before can be claimed. Open positions
    keep their arm.
    """
    from bandit.core.model import PolicyName
    from bandit.service import promoting

    with ledger_app(config=config, demo=demo) as app:
        made, changed = promoting.promote(
            app.engine,
            name=experiment,
            policy=PolicyName(arm),
            reason=reason,
            now=app.clock.now(),
            actor=actor(),
        )
    _say(experiment, made, changed=changed)


def rollback(
    experiment: Experiment,
    reason: ReasonText,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", help="Earlier champion; the newest if left out. A halted one must be named."
        ),
    ] = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Let an earlier champion take over again; the present one is halted. Works while killed."""
    from bandit.core.model import PolicyName
    from bandit.service import promoting

    with ledger_app(config=config, demo=demo) as app:
        made, changed = promoting.roll_back(
            app.engine,
            name=experiment,
            to=None if to is None else PolicyName(to),
            reason=reason,
            now=app.clock.now(),
            actor=actor(),
        )
    _say(experiment, made, changed=changed)


def _say(experiment: str, made: ArmRecord, *, changed: bool) -> None:
    state = f"{made.place.policy} is the champion of {experiment}"
    said = state if changed else f"{state} already; nothing changed"
    sys.stdout.write(f"{said} ({made.place.ppm / 10_000:g} % of traffic)\n")
