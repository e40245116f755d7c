"""What the nightly data pipeline did, stage by stage, and what follows from it.

The facts are rows that are only ever appended: how far a night is, whether it is to be done anew,
and whether the candles are being rolled back is read from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

REPORT_BYTES_MAX: Final = 262_144
"""How long a stage's report may be as compact JSON."""


class DataStage(StrEnum):
    """What a night goes through, and after it what takes its load back."""

    EXTRACT = "extract"
    VALIDATE = "validate"
    ANOMALIES = "anomalies"
    TRANSFORM = "transform"
    LOAD = "load"
    ARCHIVE = "archive"
    HEALTH = "health"
    PAUSE = "pause"
    RESTORE = "restore"
    REVALIDATE = "revalidate"
    RESUME = "resume"
    VERIFY = "verify"


NIGHT: Final = (
    DataStage.EXTRACT,
    DataStage.VALIDATE,
    DataStage.ANOMALIES,
    DataStage.TRANSFORM,
    DataStage.LOAD,
    DataStage.ARCHIVE,
    DataStage.HEALTH,
)
BEFORE_LOAD: Final = frozenset(NIGHT[:4])
ROLLBACK: Final = (
    DataStage.PAUSE,
    DataStage.RESTORE,
    DataStage.REVALIDATE,
    DataStage.RESUME,
    DataStage.VERIFY,
)


class DataState(StrEnum):
    """How a stage ended."""

    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFact:
    """A stage that ended: of which night and attempt, with which report.

    `rows_in` and `rows_out` are bars, `version_before` and `version_after` digests of the candle
    store. A stage that changes no bars has no versions.

    >>> began = datetime(2026, 3, 1, 2)
    >>> fact = DataFact(
    ...     day=date(2026, 3, 1), attempt=1, stage=DataStage.LOAD, state=DataState.DONE,
    ...     rows_in=24, rows_out=24, report={}, began_at=began, ended_at=began)
    >>> fact.report_digest[:12]
    '44136fa355b3'
    """

    day: date
    attempt: int
    stage: DataStage
    state: DataState
    rows_in: int = 0
    rows_out: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    version_before: str | None = None
    version_after: str | None = None
    began_at: datetime
    ended_at: datetime

    @property
    def report_digest(self) -> str:
        """Return the SHA-256 of the report as compact JSON with sorted keys."""
        told = json.dumps(self.report, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(told.encode()).hexdigest()


def attempt_of(facts: Sequence[DataFact]) -> int:
    """Return which attempt at a night is to be made, or was: the one after all that ended.

    An attempt ends when a stage before the load failed, and when its load was taken back.

    >>> attempt_of([])
    1
    """
    ended = [
        fact.attempt
        for fact in facts
        if (fact.state is DataState.FAILED and fact.stage in BEFORE_LOAD)
        or (fact.state is DataState.DONE and fact.stage is DataStage.RESTORE)
    ]
    return max(ended, default=0) + 1


def is_done(facts: Sequence[DataFact]) -> bool:
    """Say whether a night's work is done, given all facts of its date.

    >>> is_done([])
    False
    """
    attempt = attempt_of(facts)
    return any(
        fact.stage is DataStage.HEALTH and fact.state is DataState.DONE and fact.attempt == attempt
        for fact in facts
    )


def stages_done(facts: Sequence[DataFact], stages: Sequence[DataStage]) -> tuple[DataStage, ...]:
    """Return which of these stages the attempt that is under way has done, in their order.

    >>> stages_done([], NIGHT)
    ()
    """
    attempt = attempt_of(facts)
    done = {
        fact.stage for fact in facts if fact.attempt == attempt and fact.state is DataState.DONE
    }
    return tuple(stage for stage in stages if stage in done)
