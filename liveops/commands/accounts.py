"""`liveops account`: where every account's money stands, and whether its bots say so too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, print_json

if TYPE_CHECKING:
    from bandit.service.accounts import AccountReport

commands = typer.Typer(
    help="Accounts: equity, losses against their limits, kill switch.", no_args_is_help=True
)


@commands.command("list")
def show_all(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print every account: equity, peak, drawdown, the day's loss, and whether it is killed."""
    from bandit.service import accounts

    with ledger_app(config=config, demo=demo) as app:
        found = accounts.listed(app.engine, now=app.clock.now())
    if as_json:
        print_json([account.to_json() for account in found])
    else:
        _print(found)


@commands.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Account, such as usd.")],
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Print one account."""
    from bandit.service import accounts

    with ledger_app(config=config, demo=demo) as app:
        found = accounts.named(app.engine, name, now=app.clock.now())
    if as_json:
        print_json(found.to_json())
    else:
        _print([found])


@commands.command("reconcile")
def reconcile(
    name: Annotated[str, typer.Argument(help="Account, such as usd.")],
    reason: ReasonText,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Accept how an account differs from what its bots tell, in the name of who says why.

    Missing positions count as not held, unknown ones as known, as long as they differ; the
    difference of the balance is taken off from then on. Where nothing differs, nothing changes.
    """
    from bandit.service import reconciling

    with ledger_app(config=config, demo=demo) as app:
        found = reconciling.accept(
            app.engine, name, reason=reason, now=app.clock.now(), actor=actor()
        )
    if as_json:
        print_json(found.to_json())
    else:
        _print([found])


def _print(found: list[AccountReport]) -> None:
    from rich.console import Console

    from liveops.report import render_accounts

    Console().print(render_accounts(found))
