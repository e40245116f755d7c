"""What every channel is: something that takes a notice, or says why not."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from bandit.core.errors import BanditError
from bandit.core.notices import Notice

TIMEOUT_SECONDS: Final = 5.0
PAUSE_MAX: Final = timedelta(hours=1)
"""However long a channel asks to be left alone, it is tried again after this."""


class ChannelFailed(BanditError):
    """A notice was not delivered; the message never has an address, a secret or an answer's text.

    `retry_after` is what the other side said in the header of that name.
    """

    code = "channel_failed"

    def __init__(self, message: str, *, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def asked_pause(self, *, now: datetime) -> timedelta | None:
        """Return how long the other side wants to be left alone; None where it did not say.

        >>> now = datetime.fromisoformat("2026-03-01T12:00:00Z")
        >>> for said in ("30", "Sun, 01 Mar 2026 12:01:00 GMT", "999999", "soon", "-5"):
        ...     print(ChannelFailed("busy", retry_after=said).asked_pause(now=now))
        0:00:30
        0:01:00
        1:00:00
        None
        None
        """
        said = (self.retry_after or "").strip()
        if said.isascii() and said.isdigit():
            return timedelta(seconds=min(int(said[:9]), PAUSE_MAX.total_seconds()))
        try:
            pause = parsedate_to_datetime(said) - now
        except (ValueError, TypeError):
            return None
        return min(pause, PAUSE_MAX) if pause > timedelta(0) else None


class ChannelRefused(ChannelFailed):
    """The channel is well, and will never take this notice."""

    code = "channel_refused"


class Channel(Protocol):
    """A way to reach people."""

    def send(self, notice: Notice, *, key: str) -> None:
        """Deliver a notice; raises `ChannelFailed`.

        `key` is the same whenever this notice is sent: the other side may know it by that.
        """
        ...
