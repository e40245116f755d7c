"""Seals the audit log and anchors the chain while a service runs, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bandit.core.audit_chain import Seal, anchor_of
from bandit.core.errors import BanditError
from bandit.service import auditing
from liveops.anchors import AnchorFile, anchor_file
from liveops.wiring import App

INTERVAL_SECONDS = 1.0
log = logging.getLogger(__name__)


@contextmanager
def sealing(app: App) -> Iterator[None]:
    """Seal what is committed each second while the context lasts, and once more at its end.

    Whatever fails is tried again a second later, and never ends the service. Several services on
    one ledger may do this at once.
    """
    sealer, stop = Sealer(app), threading.Event()

    def run() -> None:
        sealer.attempt()
        while not stop.wait(INTERVAL_SECONDS):
            sealer.attempt()
        sealer.attempt()

    thread = threading.Thread(target=run, name="sealer")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Sealer:
    """Knows which head it anchored last, and whether the last attempt failed."""

    def __init__(self, app: App) -> None:
        """Seal the ledger of `app`; nothing is read before the first attempt."""
        self._app = app
        self._file: AnchorFile | None = None
        self._anchored: Seal | None = None
        self._is_failing = False

    def attempt(self) -> None:
        """Seal and anchor; a failure is logged when it begins and when it is over."""
        try:
            self._seal()
        except (BanditError, OSError) as error:
            if not self._is_failing:
                log.warning("the audit log is not sealed, trying on: %s", error)
            self._is_failing = True
        except Exception:  # the boundary of the sealer's thread
            if not self._is_failing:
                log.exception("the audit log is not sealed, trying on")
            self._is_failing = True
        else:
            if self._is_failing:
                log.info("the audit log is sealed again")
            self._is_failing = False

    def _seal(self) -> None:
        head = auditing.seal(self._app.engine, now=self._app.clock.now())
        # Also an old head: whoever sealed it may have been killed before it was anchored.
        if head is None or head == self._anchored:
            return
        if self._file is None:
            self._file = anchor_file(self._app)
        self._file.append(anchor_of(head))
        self._anchored = head
