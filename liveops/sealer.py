"""Seals the audit log and anchors the chain while a service runs, in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bandit.core.audit_chain import Seal, anchor_of
from bandit.service import auditing
from liveops.anchors import AnchorFile, anchor_file
from liveops.background import repeated
from liveops.wiring import App

INTERVAL_SECONDS = 1.0


@contextmanager
def sealing(app: App) -> Iterator[None]:
    """Seal what is committed each second while the context lasts, and once more at its end.

    Whatever fails is tried again a second later, and never ends the service. Several services on
    one ledger may do this at once.
    """
    trouble = "the audit log is not sealed"
    sealer = Sealer(app)
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
        if head is None or head == self._anchored:
            return
        if self._file is None:
            self._file = anchor_file(self._app)
        self._file.append(anchor_of(head))
        self._anchored = head
