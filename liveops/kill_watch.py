"""Keep the ledger's kill switch in step with this host's latch and with its own rules."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bandit.core.errors import BanditError
from bandit.core.kill_switch import KillCause
from bandit.service import killing
from liveops.wiring import App

TICK_SECONDS = 1.0
ACTOR = "latch"
log = logging.getLogger(__name__)


@contextmanager
def watching_kill_switch(app: App) -> Iterator[None]:
    """Look once a second while the context lasts, in a thread of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(app, stop), name="kill-watch")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def look(app: App) -> None:
    """Tell the ledger of a latch that is set, else release what its rule releases.

    A latch kills every account: other hosts learn of it from the ledger.
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
        )
        for account in killed:
            if account.name not in before:
                log.warning("account killed by the latch", extra={"account": account.name})
        return
    rule = app.settings.kill_switch.daily_loss_release
    for account in killing.release_due(app.engine, rule=rule, now=now):
        log.info("account released with the next day", extra={"account": account.name})


def _watch(app: App, stop: threading.Event) -> None:
    failing = False
    while not stop.wait(TICK_SECONDS):
        try:
            look(app)
        except BanditError as error:
            if not failing:
                log.warning("the kill switch cannot be looked after: %s", error)
            failing = True
        else:
            failing = False
