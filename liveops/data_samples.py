"""What `/metrics` shows of the data pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from bandit.core.data_runs import DataState
from bandit.service.data_runs import DataStanding
from liveops.health_metrics import Sample


def of_data(standing: DataStanding | None, *, now: datetime) -> Iterator[Sample]:
    """Yield how the newest night stands, and what the one that was finished last found."""
    if standing is None:
        return
    yield "liveops_data_failed", (), float(standing.newest.state is DataState.FAILED)
    yield "liveops_data_paused", (), float(standing.paused is not None)
    finished = standing.finished
    if finished is None:
        return
    told = finished.report
    # Never below 0: the clock of whoever ran it may be ahead of ours.
    age = max((now - finished.ended_at).total_seconds(), 0.0)
    yield "liveops_data_finished_age_seconds", (), age
    yield "liveops_data_night_seconds", (), told["seconds"]
    yield "liveops_data_rows", (), told["rows"]
    for level, count in told["anomalies"].items():
        yield "liveops_data_anomalies", (level,), count
    for series, found in told["series"].items():
        newest = datetime.fromisoformat(found["newest"])
        yield "liveops_data_bar_age_seconds", (series,), max((now - newest).total_seconds(), 0.0)
        yield "liveops_data_completeness_ratio", (series,), found["completeness"]
