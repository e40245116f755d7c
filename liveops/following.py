"""Keep what a replica remembers of experiments in step with what the others decide.

Safety does not rest on this: every commit checks the epoch it was routed on. It spares the first
batch after a change from being routed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bandit.storage import changes
from liveops.background import Turn, repeated
from liveops.wiring import App

POLL_SECONDS = 5.0
RETRY_SECONDS = 1.0


@contextmanager
def following_changes(app: App) -> Iterator[None]:
    """Follow while the context lasts, in a thread and on a connection of its own."""
    url = app.engine.url.render_as_string(hide_password=False)

    def follow(turn: Turn) -> None:
        for epochs in changes.epochs(url, poll_seconds=POLL_SECONDS, stop=turn.stop):
            app.router.refresh(epochs)
            turn.succeeded()

    trouble = "changes of other replicas are not heard of, only met"
    with repeated("changes", follow, seconds=RETRY_SECONDS, trouble=trouble):
        yield
