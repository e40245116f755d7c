"""Work that a service repeats in a thread of its own, whatever goes wrong meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bandit.core.errors import BanditError

log = logging.getLogger(__name__)


class Turn:
    """One thread's attempts: when to stop, and whether the last one failed."""

    def __init__(self, trouble: str) -> None:
        """Say `trouble` when attempts begin to fail."""
        self.stop = threading.Event()
        self._trouble = trouble
        self._is_failing = False

    def succeeded(self) -> None:
        """Log that a failure is over; for attempts that go on for long."""
        if self._is_failing:
            log.info("over: %s", self._trouble)
        self._is_failing = False

    def make(self, attempt: Callable[[Turn], None]) -> None:
        """Attempt once; a failure is logged when it begins, and when it is over."""
        try:
            attempt(self)
        except (BanditError, OSError) as error:
            if not self._is_failing:
                log.warning("%s, trying on: %s", self._trouble, error)
            self._is_failing = True
        except Exception:  # the boundary of the thread: a fault of ours must not end it
            if not self._is_failing:
                log.exception("%s, trying on", self._trouble)
            self._is_failing = True
        else:
            self.succeeded()


@contextmanager
def repeated(
    name: str,
    attempt: Callable[[Turn], None],
    *,
    seconds: float,
    trouble: str,
    once_more: bool = False,
) -> Iterator[None]:
    """Attempt now and every `seconds` while the context lasts; `once_more` also at its end.

    An attempt may go on until `turn.stop` is set. No failure reaches the service.
    """
    turn = Turn(trouble)

    def run() -> None:
        while not turn.stop.is_set():
            turn.make(attempt)
            turn.stop.wait(seconds)
        if once_more:
            turn.make(attempt)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        yield
    finally:
        turn.stop.set()
        thread.join()
