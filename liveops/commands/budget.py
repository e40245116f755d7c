"""`liveops budget`: what challengers may cost an experiment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, money, print_json

if TYPE_CHECKING:
    from bandit.service.exploring import BudgetReport

commands = typer.Typer(
    help="Exploration budget: how much less than the champion all challengers may earn.",
    no_args_is_help=True,
)
Experiment = Annotated[str, typer.Argument(help="Experiment.")]


@commands.command("set")
def set_budget(
    experiment: Experiment,
    reason: ReasonText,
    amount: Annotated[
        str | None, typer.Option("--amount", help="In the account's currency.", show_default=False)
    ] = None,
    percent: Annotated[
        float | None,
        typer.Option("--percent", help="Of the experiment's capital.", show_default=False),
    ] = None,
    at_risk: Annotated[
        str | None,
        typer.Option(
            "--at-risk",
            help="The most that a position opened by one decision may lose; all that is put into a "
            "trade at nominal size if left out.",
            show_default=False,
        ),
    ] = None,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Let challengers cost no more than this, in all and for ever, or change what they may cost.

    Before a decision goes to a challenger, what it may lose is set aside; where that has no room,
    the champion decides. What was charged before stays charged.
    """
    from bandit.core.errors import InvalidInput
    from bandit.service import exploring

    if (amount is None) == (percent is None):
        rule = "must be given, or --percent, and not both"
        raise InvalidInput(field="--amount", rule=rule, found=amount)
    with ledger_app(config=config, demo=demo) as app:
        total = (
            money(amount, field="--amount")
            if amount is not None
            else exploring.amount_of_percent(app.engine, experiment, percent or 0.0)
        )
        found = exploring.set_budget(
            app.engine,
            experiment,
            amount=total,
            at_risk=None if at_risk is None else money(at_risk, field="--at-risk"),
            reason=reason,
            now=app.clock.now(),
            actor=actor(),
        )
    _say(found)


@commands.command("clear")
def clear(
    experiment: Experiment, reason: ReasonText, demo: Demo = False, config: ConfigFile = None
) -> None:
    """Let challengers decide without a budget again."""
    from bandit.service import exploring

    with ledger_app(config=config, demo=demo) as app:
        found = exploring.clear_budget(
            app.engine, experiment, reason=reason, now=app.clock.now(), actor=actor()
        )
    _say(found)


@commands.command("show")
def show(
    experiment: Experiment, demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """Print what is spent, set aside and left."""
    from bandit.service import exploring

    with ledger_app(config=config, demo=demo) as app:
        found = exploring.report(app.engine, experiment)
    if as_json:
        head = {"experiment": found.experiment, "currency": found.currency}
        print_json(head | found.to_json())
    else:
        _say(found)


@commands.command("open")
def open_decisions(experiment: Experiment, demo: Demo = False, config: ConfigFile = None) -> None:
    """List the oldest decisions that hold something aside, because nobody told their outcome.

    Tell each what it earned, or that it did not trade, and what it holds is given back.
    """
    from bandit.service import exploring

    with ledger_app(config=config, demo=demo) as app:
        found = exploring.open_decisions(app.engine, experiment)
    for each in found:
        at = f"{each.decided_at:%Y-%m-%d %H:%M}"
        line = f"{each.assignment}  {at}  {each.charge:.2f}  {each.policy}  {each.unit_id}"
        sys.stdout.write(f"{line}\n")


def _say(found: BudgetReport) -> None:
    from liveops.report import budget_lines

    sys.stdout.write("".join(f"{line}\n" for line in budget_lines(found)))
