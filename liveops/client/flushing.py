"""One round of sending what is spooled, and how long to wait for the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from liveops.client.core import Core
from liveops.client.delivery import Fate, Row, Verdict, delivery, verdicts
from liveops.client.protocol import Reply, Request
from liveops.client.values import Kind

ROWS_MAX: Final = 500
"""Rows of one request: half of what the service takes."""

PAUSE_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 30.0


class Round:
    """Sends what is in line until nothing is left or the service stops taking it.

    Whoever drives it asks for the next request, sends it, and hands back the reply.
    """

    def __init__(self, core: Core) -> None:
        """Begin at the head of the line."""
        self._core = core
        self._rows: Sequence[Row] = ()
        self._skipped: list[Kind] = []
        self.settled = 0
        self.is_over = False
        self.is_clean = True
        self.retry_after_seconds = 0.0

    def next(self) -> Request | None:
        """Return the next request, None when the round is over."""
        if self.is_over:
            return None
        head = self._core.spool.head(ROWS_MAX, skipping=self._skipped)
        if not head:
            self.is_over = True
            return None
        request, self._rows = delivery(self._core.experiment, head)
        return request

    def take(self, reply: Reply | None) -> None:
        """Do with the rows what the reply means for them."""
        found = verdicts(self._rows, reply)
        refused = self._core.spool.settle(self._rows, found, now=self._core.now())
        self._core.log_refused(refused)
        gone = (Fate.ACKNOWLEDGED, Fate.REFUSED)
        settled = sum(verdict.fate in gone for verdict in found)
        self.settled += settled
        if reply is not None:
            self._core.heard(reply)
            self.retry_after_seconds = reply.retry_after_seconds
        if settled < len(found):
            self._go_on_after(reply, found)

    def _go_on_after(self, reply: Reply | None, found: Sequence[Verdict]) -> None:
        if reply is None or reply.status >= 500:
            self.is_clean, self.is_over = False, True
        elif any(verdict.fate is Fate.KEPT for verdict in found):
            # This service, or this key, takes nothing of the kind now; the others may pass.
            self.is_clean = False
            self._skipped.append(self._rows[0].kind)
        elif len(self._rows) == 1:
            self.is_clean, self.is_over = False, True


def pause_seconds(failures: int, *, retry_after_seconds: float, jitter: float) -> float:
    """Return how long to wait after so many rounds in a row that got nothing done.

    The lower half of each wait is certain, the upper half is drawn, so that bots which lost the
    service together do not come back together.

    >>> [pause_seconds(n, retry_after_seconds=0.0, jitter=0.5) for n in (1, 2, 3, 99)]
    [0.375, 0.75, 1.5, 22.5]
    """
    longest = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))
    asked = min(retry_after_seconds, PAUSE_SECONDS_MAX)
    return max(asked, longest * (0.5 + 0.5 * jitter))
