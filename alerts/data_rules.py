"""Alerts about the nightly data pipeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from alerts.limits import AlertLimits
from alerts.rule import (
    VALUE,
    AlertRule,
    Component,
    Drill,
    Recording,
    Severity,
    Source,
    Take,
    duration,
)

_DAY: Final = timedelta(days=1)
_QUARTER: Final = timedelta(minutes=15)
_ONCE: Final = "it changes with a night only"

_FAILED: Final = Recording(of="liveops_data_failed", take=Take.NEWEST_HIGHEST)
_AGE: Final = Recording(of="liveops_data_finished_age_seconds", take=Take.NEWEST_LOWEST)
_ANOMALIES: Final = Recording(of="liveops_data_anomalies", take=Take.HIGHEST)


def data_rules(limits: AlertLimits) -> tuple[AlertRule, ...]:
    """Return the alerts about nights that failed, are late, found something, or are done."""
    return _failed(), _late(limits), _anomaly(), _completed()


def _failed() -> AlertRule:
    return AlertRule(
        name="DataPipelineFailed",
        component=Component.DATA,
        severity=Severity.CRITICAL,
        reads=(_FAILED,),
        expression=f"{_FAILED} > 0",
        threshold="the newest stage of a night failed",
        at_once=_ONCE,
        summary="The data pipeline failed.",
        description="A stage of the data pipeline failed: what is trained on is not of today.",
        sources=(Source(document="003", quote="- Data pipeline failed"),),
        pair="a pipeline that never ran has no series; one that does not begin is DataPipelineLate",
        drill=Drill(
            wrong={"liveops_data_failed": "1"},
            right={"liveops_data_failed": "0"},
            description="A stage of the data pipeline failed: what is trained on is not of today.",
            holds=False,
        ),
    )


def _late(limits: AlertLimits) -> AlertRule:
    limit = _DAY + limits.data_sla
    seconds = round(limit.total_seconds())
    hours, minutes = divmod((seconds + 1) // 60, 60)
    told = f"{hours // 24}d {hours % 24}h {minutes}m 1s"
    return AlertRule(
        name="DataPipelineLate",
        component=Component.DATA,
        severity=Severity.WARNING,
        reads=(_AGE,),
        expression=f"{_AGE} > {seconds}",
        threshold=f"no night was finished for {duration(limit)}: a day, and the time a night has",
        at_once="the limit is a time itself",
        summary="The data pipeline is late.",
        description="The last night was finished {{ $value | humanizeDuration }} ago.",
        sources=(Source(document="003", quote="**SLA**: Complete within 2 hours"),),
        choice="counted from the end of the night before, as both begin at the same hour",
        setting="data.sla_minutes",
        pair="no series where no night was ever finished; DataPipelineFailed where one began",
        drill=Drill(
            wrong={"liveops_data_finished_age_seconds": str(seconds + 1)},
            right={"liveops_data_finished_age_seconds": str(seconds)},
            description=f"The last night was finished {told} ago.",
            holds=False,
        ),
    )


def _anomaly() -> AlertRule:
    return AlertRule(
        name="DataAnomalyFound",
        component=Component.DATA,
        severity=Severity.WARNING,
        reads=(_ANOMALIES,),
        expression=f"{_ANOMALIES} > 0",
        threshold="new bars of the last night are unlike all before",
        at_once=_ONCE,
        summary="New candles are unlike those before.",
        description=f"{VALUE} findings in the new bars of the last night are unlike all before.",
        sources=(Source(document="003", quote="- Alert on anomalies"),),
        choice="until the next night; what stops the load is DataPipelineFailed",
        pair="no series where no night was ever finished; DataPipelineFailed where one began",
        drill=Drill(
            wrong={'liveops_data_anomalies{level="warning"}': "1"},
            right={'liveops_data_anomalies{level="warning"}': "0"},
            description="1 findings in the new bars of the last night are unlike all before.",
        ),
    )


def _completed() -> AlertRule:
    seconds = round(_QUARTER.total_seconds())
    return AlertRule(
        name="DataPipelineCompleted",
        component=Component.DATA,
        severity=Severity.INFO,
        reads=(_AGE,),
        expression=f"{_AGE} < {seconds}",
        threshold="a night was finished less than 15 minutes ago",
        at_once="it tells of an end, for 15 minutes",
        summary="The data pipeline finished a night.",
        description="A night was finished {{ $value | humanizeDuration }} ago.",
        sources=(Source(document="003", quote="- Data pipeline completed"),),
        pair="DataPipelineLate, where no night is finished",
        drill=Drill(
            wrong={"liveops_data_finished_age_seconds": str(seconds - 1)},
            right={"liveops_data_finished_age_seconds": str(seconds)},
            description="A night was finished 14m 59s ago.",
            holds=False,
        ),
    )
