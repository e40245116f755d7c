"""`liveops kill` and `liveops release`: the switch that wins over everything."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import ConfigFile, Demo, actor, ledger_app, settings_from

Accounts = Annotated[
    list[str] | None,
    typer.Option("--account", help="Only this account; repeat. Left out: every one."),
]


def kill(
    reason: ReasonText, account: Accounts = None, demo: Demo = False, config: ConfigFile = None
) -> None:
    """Stop every decision: once this returns, none follows. Works while the ledger is down.

    Without --account, this host's latch is set first, which every service of the host obeys at
    once; then the ledger is told, and with it the other hosts.
    """
    from bandit.core.errors import LedgerUnavailable
    from bandit.core.kill_switch import KillCause
    from bandit.service import killing
    from liveops.clock import SystemClock
    from liveops.latch import latch_of
    from liveops.postgres_home import ServerFailed, ServerInUse

    if account is None:
        latch = latch_of(settings_from(config), demo=demo)
        is_new = latch.set(reason=reason, actor=actor(), now=SystemClock().now())
        sys.stdout.write(f"latch {latch.path} {'set' if is_new else 'was set already'}\n")
    try:
        with ledger_app(config=config, demo=demo, only_stops=True) as app:
            killed = killing.kill(
                app.engine,
                account,
                cause=KillCause.HAND,
                reason=reason,
                now=app.clock.now(),
                actor=actor(),
            )
    except (LedgerUnavailable, ServerFailed, ServerInUse) as error:
        if account is not None:
            raise
        sys.stderr.write(
            f"the ledger could not be told: {error}\n"
            "services of this host are killed by the latch; other hosts are not yet: "
            "run this there, or again when the ledger is back\n"
        )
        return
    for found in killed:
        sys.stdout.write(f"account {found.name} is killed\n")


def release(
    reason: ReasonText, account: Accounts = None, demo: Demo = False, config: ConfigFile = None
) -> None:
    """Let decisions be made again, in the name of a person who says why.

    Without --account, this host's latch is removed too. A latch on another host is removed there.
    """
    from bandit.core.errors import Conflict
    from bandit.service import killing
    from liveops.latch import latch_of

    latch = latch_of(settings_from(config), demo=demo)
    if account is not None and latch.is_set():
        raise Conflict(f"the latch {latch.path} kills every account: leave --account out")
    with ledger_app(config=config, demo=demo) as app:
        # The file first: while the ledger still says killed, nobody decides in between, and a
        # service that looks at the latch does not kill again what was just released.
        removed = latch.clear()
        released = killing.release(
            app.engine, account, reason=reason, now=app.clock.now(), actor=actor()
        )
    if removed:
        sys.stdout.write(f"latch {latch.path} removed\n")
    for found in released:
        sys.stdout.write(f"account {found.name} is released\n")
