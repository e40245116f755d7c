"""Keep the ledger's kill switch in step with this host's latch and with its own rules."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from bandit.core.kill_switch import KillCause
from bandit.service import killing
from liveops.background import repeated
from liveops.wiring import App

TICK_SECONDS = 1.0
ACTOR = "latch"
log = logging.getLogger(__name__)


@contextmanager
def watching_kill_switch(app: App) -> Iterator[None]:
    """Look once a second while the context lasts, in a thread of its own."""
    trouble = "the kill switch cannot be looked after"
    with repeated("kill-watch", lambda _: look(app), seconds=TICK_SECONDS, trouble=trouble):
        yield


def look(app: App) -> None:
    """Tell the ledger of a latch that is set, else release what its rule releases.

    A latch kills every account: other hosts learn of it from the ledger. One that `liveops
    release` removes meanwhile kills nobody: what was just released stays so.
    """
    now = app.clock.now()
    if app.latch.is_set():
        before = {account.name for account in killing.states(app.engine) if account.is_killed}
        killed = killing.kill(
            app.engine,
            None,
            cause=KillCause.LATCH,
            reason=app.latch.reason(),
            now=now,
            actor=ACTOR,
            still=app.latch.is_set,
        )
        for account in killed:
            if account.is_killed and account.name not in before:
                log.warning("account killed by the latch", extra={"account": account.name})
        return
    rule = app.settings.kill_switch.daily_loss_release
    for account in killing.release_due(app.engine, rule=rule, now=now):
        log.info("account released with the next day", extra={"account": account.name})
