"""What closes a position that a person wants closed."""

from __future__ import annotations

from typing import Protocol

from bandit.core.closing import CloseTarget
from bandit.core.errors import BanditError
from bandit.core.outcomes import Outcome


class CannotClose(BanditError):
    """A position could not be closed; the message says why, and the order stands."""

    code = "cannot_close"


class PositionCloser(Protocol):
    """A place where positions are, and are closed: an exchange, or a market on paper."""

    def close(self, target: CloseTarget) -> Outcome:
        """Close a position and return what it earned; raises `CannotClose`."""
