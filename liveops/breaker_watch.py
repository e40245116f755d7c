"""Reset breakers that a person has reset, at whichever replica, by the audit log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bandit.core.errors import UnknownName
from bandit.service import auditing, ledger
from liveops.background import repeated
from liveops.breakers import RESET, BreakerReport
from liveops.wiring import App

TICK_SECONDS = 1.0
log = logging.getLogger(__name__)


@contextmanager
def following_resets(app: App) -> Iterator[None]:
    """Look once a second while the context lasts, in a thread of its own."""
    follower = ResetFollower(app)
    trouble = "resets of circuit breakers at other replicas are not heard of"
    with repeated("breakers", lambda _: follower.look(), seconds=TICK_SECONDS, trouble=trouble):
        yield


class ResetFollower:
    """Knows up to where it has read the sealed log; what was there before it began is not read."""

    def __init__(self, app: App) -> None:
        """Reset the breakers of `app`; nothing is read before the first look."""
        self._app = app
        self._read_to: int | None = None

    def look(self) -> None:
        """Reset what was reset since the last look, this replica's own resets once more."""
        if self._read_to is None:
            self._read_to = auditing.sealed_to(self._app.engine)
            return
        rows, self._read_to = auditing.sealed_since(
            self._app.engine, self._read_to, actions=(RESET,)
        )
        for row in rows:
            with suppress(UnknownName):  # a replica with other settings calls other places
                self._app.breakers.reset(row.subject)
                log.info("circuit breaker reset", extra={"breaker": row.subject, "by": row.actor})


def reset(app: App, name: str, *, reason: str, actor: str) -> BreakerReport:
    """Close a breaker here at once, and at every other replica within seconds; audited.

    Raises `UnknownName` where this replica has no breaker of this name.
    """
    app.breakers.require(name)
    ledger.note(
        app.engine,
        now=app.clock.now(),
        actor=actor,
        action=RESET,
        subject=name,
        details={"reason": reason},
    )
    return app.breakers.reset(name)
