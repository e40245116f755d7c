"""What is done when: the one table that the crontab and systemd's timers are written from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from typing import Final

from bandit.core.errors import InvalidInput
from bandit.core.model import NIGHT_HOUR

TRY_MINUTES: Final = 15
"""A job is begun at its hour, and tried again so often within it.

Every offset from UTC in use is a multiple of it, so that a clock which counts local quarter hours,
as cron does, also counts those of UTC.
"""

TRIES: Final = 60 // TRY_MINUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyJob:
    """A command that is run for a policy once a night, safe to run again.

    >>> NightlyJob(name="scale", at=time(2), meaning="traffic", options=("--mode", "scale")).at
    datetime.time(2, 0)
    """

    name: str
    at: time
    meaning: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what a line that looks at the hour cannot say."""
        if self.at != time(self.at.hour):
            raise InvalidInput(field="at", rule="must be a whole hour of UTC", found=self.at)


NIGHTLY: Final = (
    NightlyJob(
        name="scale",
        at=time(NIGHT_HOUR),
        meaning="decides tonight's traffic",
        options=("--mode", "scale"),
    ),
)
"""The jobs, each an option of `live_ops_monitor --policy-sha P`."""
