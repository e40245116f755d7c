"""How a process that goes on is stopped: by SIGINT or SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from bandit.core.errors import BanditError

WATCH_SECONDS: Final = 1.0
_STOPPING = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Yield what SIGINT and SIGTERM set; for the main thread, which alone hears of them."""
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in _STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_stop(*, meanwhile: Callable[[], None]) -> None:
    """Wait for SIGINT or SIGTERM, and return; for the main thread, which alone hears of them.

    `meanwhile` is called each second, from the main thread: it revives what died.
    """
    with stopped_by_signals() as stop:
        while not stop.wait(WATCH_SECONDS):
            try:
                meanwhile()
            except BanditError as error:
                log.warning("the ledger cannot be revived: %s", error)
