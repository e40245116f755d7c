"""Seals the audit log and anchors the chain while a service runs, in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bandit.core.audit_chain import Anchor, Seal, anchor_of
from bandit.core.errors import BanditError
from bandit.service import auditing, ledger
from liveops.anchors import AnchorFile, anchor_file
from liveops.background import repeated
from liveops.wiring import App

INTERVAL_SECONDS = 1.0
ACTOR = "sealer"
log = logging.getLogger(__name__)


@contextmanager
def sealing(app: App) -> Iterator[None]:
    """Seal what is committed each second while the context lasts, and once more at its end.

    A ledger that is older than its anchors is killed before anything else is done with it.

    Whatever fails is tried again a second later, and never ends the service. Several services on
    one ledger may do this at once.
    """
    trouble = "the audit log is not sealed"
    sealer = Sealer(app)
    with suppress(BanditError, OSError):  # the next attempt will tell
        sealer.seal()
    with repeated(
        "sealer", lambda _: sealer.seal(), seconds=INTERVAL_SECONDS, trouble=trouble, once_more=True
    ):
        yield


class Sealer:
    """Knows which head it anchored last."""

    def __init__(self, app: App) -> None:
        """Seal the ledger of `app`; nothing is read before the first attempt."""
        self._app = app
        self._file: AnchorFile | None = None
        self._anchored: Seal | None = None

    def seal(self) -> None:
        """Seal what waits and anchor the head, unless this did so before."""
        head = auditing.seal(self._app.engine, now=self._app.clock.now())
        # Also an old head: whoever sealed it may have been killed before it was anchored.
        if head == self._anchored:
            return
        if self._file is None:
            self._file = anchor_file(self._app)
        newest = self._file.newest()
        if newest is not None and not auditing.holds(self._app.engine, newest):
            self._stop(newest, head)
        if head is not None:
            self._file.append(anchor_of(head))
        self._anchored = head

    def _stop(self, newest: Anchor, head: Seal | None) -> None:
        """Kill every account: what the ledger forgot may have been a kill, or a loss."""
        sealed_to = 0 if head is None else head.sequence
        reason = (
            f"the ledger is older than its anchors, as after a restore: its audit log is sealed to "
            f"{sealed_to}, anchored was {newest.sequence} at {newest.sealed_at.isoformat()}"
        )
        now = self._app.clock.now()
        self._app.latch.set(reason=reason, actor=ACTOR, now=now)
        log.error("every account is killed: %s", reason)
        ledger.note(
            self._app.engine,
            now=now,
            actor=ACTOR,
            action="restored",
            subject="audit_log",
            details={"sealed_to": sealed_to, "anchored_to": newest.sequence},
        )
