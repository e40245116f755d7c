"""Alerts about the jobs of the schedule: one that fails, and one that nobody does."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from alerts.rule import AlertRule, Component, Drill, Recording, Severity, Source, Take

_FAILED: Final = Recording(of="liveops_job_last_run_failed", by=("name",), take=Take.NEWEST_HIGHEST)
_OVERDUE: Final = Recording(of="liveops_job_overdue_seconds", by=("name",), take=Take.NEWEST_LOWEST)
_NAME: Final = "{{ $labels.name }}"
_PAIR: Final = "LedgerUnavailable; a job that was never begun has no series"


def job_rules() -> tuple[AlertRule, ...]:
    """Return the alerts about scheduled jobs."""
    return _failed(), _overdue()


def _failed() -> AlertRule:
    series = 'liveops_job_last_run_failed{name="data"}'
    return AlertRule(
        name="JobFailed",
        component=Component.SCHEDULE,
        severity=Severity.WARNING,
        reads=(_FAILED,),
        expression=f"{_FAILED} > 0",
        threshold="the newest slot of a job has failed",
        wait=timedelta(hours=1),
        summary="A scheduled job has failed.",
        description=f"The job {_NAME} has failed, and its four tries are over.",
        sources=(
            Source(document="003", quote="- Data pipeline failed"),
            Source(document="003", quote="- Alert on anomalies"),
        ),
        choice="after an hour, in which it is tried four times",
        pair=_PAIR,
        drill=Drill(
            wrong={series: "1"},
            right={series: "0"},
            labels={"name": "data"},
            description="The job data has failed, and its four tries are over.",
            holds=False,
        ),
    )


def _overdue() -> AlertRule:
    series = 'liveops_job_overdue_seconds{name="data"}'
    return AlertRule(
        name="JobOverdue",
        component=Component.SCHEDULE,
        severity=Severity.WARNING,
        reads=(_OVERDUE,),
        expression=f"{_OVERDUE} > 0",
        threshold="a slot of a job is not done, and its time is over",
        wait=timedelta(minutes=5),
        summary="A scheduled job is not done.",
        description=(
            f"The job {_NAME} should have been done {{{{ $value | humanizeDuration }}}} ago."
        ),
        sources=(
            Source(document="003", quote="**SLA**: Complete within 2 hours"),
            Source(document="003", quote="**SLA**: Complete within 6 hours"),
        ),
        choice="the limits of the jobs of data and training are those of 003",
        pair=_PAIR,
        drill=Drill(
            wrong={series: "1"},
            right={series: "0"},
            labels={"name": "data"},
            description="The job data should have been done 1s ago.",
            holds=False,
        ),
    )
