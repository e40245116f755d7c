"""Wait until something holds, for what another thread or process does."""

from __future__ import annotations

import threading
from collections.abc import Callable


def until(holds: Callable[[], bool], act: Callable[[], None] = lambda: None) -> None:
    """Act and look again and again; fail where it does not come to hold within half a minute."""
    pause = threading.Event()
    for _ in range(3_000):
        act()
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it never came to hold")
