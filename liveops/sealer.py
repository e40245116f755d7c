"""Seals the audit log and anchors the chain while a service runs, in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bandit.core.audit_chain import Seal, anchor_of
from bandit.core.errors import LedgerUnavailable
from bandit.service import auditing
from bandit.service.auditing import LostAnchor
from liveops.anchors import AnchorFile, anchor_file
from liveops.background import repeated
from liveops.wiring import App

INTERVAL_SECONDS = 1.0
ACTOR = "sealer"
log = logging.getLogger(__name__)


@contextmanager
def sealing(app: App) -> Iterator[None]:
    """Seal what is committed each second while the context lasts, and once more at its end.

    Before, a ledger that has lost what was anchored is killed; raises `AnchorsUnreadable` where
    that cannot be known. Whatever fails later is tried again a second later, and never ends the
    service. Several services on one ledger may do this at once.
    """
    trouble = "the audit log is not sealed"
    sealer = Sealer(app)
    with suppress(LedgerUnavailable):  # without a ledger nothing is decided either
        sealer.compare()
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

    def compare(self) -> None:
        """Kill every account of a ledger that has lost what was anchored.

        What it forgot may have been a kill, or a loss. Raises `AnchorsUnreadable`.
        """
        lost = auditing.lost(self._app.engine, self._anchors().recent())
        if lost is not None:
            self._stop(lost)

    def seal(self) -> None:
        """Seal what waits and anchor the head, unless this did so before."""
        head = auditing.seal(self._app.engine, now=self._app.clock.now())
        # Also an old head: whoever sealed it may have been killed before it was anchored.
        if head is None or head == self._anchored:
            return
        self.compare()
        self._anchors().append(anchor_of(head))
        self._anchored = head

    def _anchors(self) -> AnchorFile:
        if self._file is None:
            self._file = anchor_file(self._app)
        return self._file

    def _stop(self, lost: LostAnchor) -> None:
        reason = (
            "the audit log is not the one that was anchored, as after a restore: it is sealed to "
            f"{lost.sealed_to}, anchored was {lost.anchor.sequence} at "
            f"{lost.anchor.sealed_at.isoformat()}"
        )
        now = self._app.clock.now()
        self._app.latch.set(reason=reason, actor=ACTOR, now=now)
        log.error("every account is killed: %s", reason)
        # So that no other host stops a second time what a person has let go on.
        auditing.note_lost(self._app.engine, lost, now=now, actor=ACTOR)
