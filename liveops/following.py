"""Keep what a replica remembers of experiments in step with what the others decide.

Safety does not rest on this: every commit checks the epoch it was routed on. It spares the first
batch after a change from being routed twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bandit.core.errors import BanditError
from bandit.storage import changes
from liveops.wiring import App

POLL_SECONDS = 5.0
RETRY_SECONDS = 1.0
log = logging.getLogger(__name__)


@contextmanager
def following_changes(app: App) -> Iterator[None]:
    """Follow while the context lasts, in a thread and on a connection of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(app, stop), name="changes")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(app: App, stop: threading.Event) -> None:
    url = app.engine.url.render_as_string(hide_password=False)
    failing = False
    while not stop.is_set():
        try:
            for epochs in changes.epochs(url, poll_seconds=POLL_SECONDS, stop=stop):
                app.router.refresh(epochs)
                failing = False
        except BanditError as error:
            if not failing:
                log.warning("changes are not heard of; batches notice them: %s", error)
            failing = True
            stop.wait(RETRY_SECONDS)
