"""Read the status file, whether the service runs or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bandit.core.errors import BanditError
from bandit.core.health_table import HealthLevel
from bandit.core.model import CLOCK_TOLERANCE

STALE_INTERVALS = 2
"""A file that missed so many of its own writes tells of a service that does not run."""


class StatusUnknown(BanditError):
    """There is no status file, or none that can be read."""

    code = "status_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFile:
    """What a status file says, when it was written, and how often it should be."""

    document: Mapping[str, Any]
    level: HealthLevel
    written_at: datetime
    interval: timedelta

    def is_stale(self, *, now: datetime) -> bool:
        """Say whether the service has written nothing for too long, or in the future."""
        age = now - self.written_at
        return not -CLOCK_TOLERANCE <= age <= STALE_INTERVALS * self.interval

    def exit_code(self, *, now: datetime) -> int:
        """Return 0, 1 or 2 for HEALTHY, DEGRADED and UNHEALTHY; a stale file is a 2."""
        return HealthLevel.UNHEALTHY.rank if self.is_stale(now=now) else self.level.rank


def read_status(path: Path) -> StatusFile:
    """Return what the file at `path` says; raises `StatusUnknown`."""
    try:
        found = json.loads(path.read_bytes())
        return StatusFile(
            document=found,
            level=HealthLevel(found["health_status"]),
            written_at=datetime.fromisoformat(found["written_at"]).astimezone(UTC),
            interval=timedelta(seconds=int(found["interval_seconds"])),
        )
    except FileNotFoundError:
        message = f"there is no status file {path}: has `liveops serve` ever run?"
        raise StatusUnknown(message) from None
    except OSError as error:
        raise StatusUnknown(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise StatusUnknown(f"{path} is no status file of this service: {error}") from error
