"""Metrics of the jobs of the schedule."""

from __future__ import annotations

from typing import Final

from alerts.metric import Metric, MetricKind

# Not `job`: that is what Prometheus calls a group of targets.
_JOB: Final = ("name",)
_NEVER: Final = "for a job that never ended; while the ledger does not answer"

JOB_METRICS: Final = (
    Metric(
        name="liveops_job_last_success_timestamp_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds since 1970",
        help="When the newest slot of a job that is done was done.",
        labels=_JOB,
        absent="for a job that was never done; while the ledger does not answer",
    ),
    Metric(
        name="liveops_job_last_duration_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="How long the last attempt took at the newest slot of a job that has ended.",
        labels=_JOB,
        absent=_NEVER,
    ),
    Metric(
        name="liveops_job_last_run_failed",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether the newest slot of a job that has ended has failed.",
        labels=_JOB,
        absent=_NEVER,
    ),
    Metric(
        name="liveops_job_overdue_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="For how long the slot after the newest one that is done should have been over.",
        labels=_JOB,
        absent="for a job that nobody ever began; while the ledger does not answer",
    ),
)
