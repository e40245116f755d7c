"""`scheduled_retrain`: models that are due are made anew, and go through their gates."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    actor,
    ledger_app,
    print_json,
)
from liveops.commands.training import shown

if TYPE_CHECKING:
    from bandit.storage.rotations import Rotation
    from liveops.rotation import Failed, ModelPlan

Day = Annotated[
    datetime | None,
    typer.Option(
        "--date",
        formats=["%Y-%m-%d"],
        help="Day (UTC) whose work it is; today if left out. A day's work is done once.",
        show_default=False,
    ),
]

_OFF = "rotation is off: operations.model_rotation.enabled, or --weekly"


def scheduled_retrain(
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SYMBOL]...", help="More symbols, after the first of --symbols."),
    ] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option("--symbols", help="Only models that trade these; all if left out."),
    ] = None,
    weekly: Annotated[
        bool,
        typer.Option(
            "--weekly", help="As the weekly maintenance: also where rotation is not enabled."
        ),
    ] = False,
    day: Day = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is due, and train nothing.")
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make models anew that are too old or win too rarely, and give those a place that earn it.

    What is due is trained on the newest bars, measured walking forward, held against the limits of
    `operations.model_rotation`, and registered with its card. In profile guarded what passes joins
    as a challenger; in seed_exact it replaces the model before, who stays for a rollback. Exit 1
    where a training failed, 3 while another process is at it.
    """
    from rich.console import Console

    from liveops.rotation import planned, rotated

    with ledger_app(config=config, demo=demo) as app, shown(Console(stderr=True)) as report:
        today = (day or app.clock.now()).date()
        is_on = weekly or dry_run or app.settings.operations.model_rotation.enabled
        asked = [*(symbols or []), *(more or [])]
        plans: list[ModelPlan] = []
        made: list[Rotation] = []
        failed: list[Failed] = []
        if is_on and dry_run:
            plans = planned(app, day=today, symbols=asked)
        elif is_on:
            plans, made, failed = rotated(
                app, day=today, symbols=asked, report=report, actor=actor()
            )
    if as_json:
        print_json(
            {
                ("would" if dry_run else "done"): _facts(plans, made, is_on=is_on, is_dry=dry_run),
                "day": today.isoformat(),
                "enabled": is_on,
                "models": [plan.to_json() for plan in plans],
                "rotations": [rotation.to_json() for rotation in made],
                "failed": [each.to_json() for each in failed],
            }
        )
    else:
        _print(plans, made, failed, is_on=is_on)
    if failed:
        raise typer.Exit(1)


def _facts(plans: list[ModelPlan], made: list[Rotation], *, is_on: bool, is_dry: bool) -> list[str]:
    """Say in a line each what was made, or would be."""
    if not is_on:
        return [f"nothing: {_OFF}"]
    if is_dry:
        return [
            f"make {plan.new} of {plan.record.model.policy}"
            for plan in plans
            if plan.why_not is None
        ]
    return [
        f"{rotation.new} of {rotation.policy}: {rotation.verdict}, "
        + ", ".join(f"{placed.value} in {name}" for name, placed in rotation.placings.items())
        for rotation in made
    ]


def _print(
    plans: list[ModelPlan], made: list[Rotation], failed: list[Failed], *, is_on: bool
) -> None:
    out = sys.stdout
    if not is_on:
        out.write(f"{_OFF}\n")
        return
    if not plans:
        out.write("no arm belongs to a policy that `liveops learn` made\n")
    for plan in plans:
        said = plan.why_not or f"due: {plan.new}"
        out.write(f"{plan.record.model.policy}: {said}\n")
        for reason in plan.triggers:
            value = "unknown" if reason.value is None else f"{reason.value:.4g}"
            out.write(f"  {reason.check} {value}, limit {reason.limit:.4g}: {reason.verdict}\n")
    for rotation in made:
        out.write(f"{rotation.new} of {rotation.policy}: {rotation.verdict}\n")
        for gate in rotation.gates:
            value = "unknown" if gate["value"] is None else f"{gate['value']:.4g}"
            out.write(f"  {gate['check']} {value}, limit {gate['limit']}: {gate['verdict']}\n")
        for name, placed in rotation.placings.items():
            out.write(f"  {name}: {placed.value}\n")
    for each in failed:
        out.write(f"{each.policy} was not made anew: {each.reason}\n")
