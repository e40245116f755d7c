"""Metrics of the nightly data pipeline."""

from __future__ import annotations

from typing import Final

from alerts.metric import Metric, MetricKind

_NEVER: Final = "where the pipeline never ran; while the ledger does not answer"
_UNFINISHED: Final = "where no night was ever finished; while the ledger does not answer"
_SERIES: Final = ("series",)

DATA_METRICS: Final = (
    Metric(
        name="liveops_data_failed",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether the newest stage of the data pipeline failed.",
        absent=_NEVER,
    ),
    Metric(
        name="liveops_data_paused",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether candles are being rolled back, so that trainings are refused.",
        absent=_NEVER,
    ),
    Metric(
        name="liveops_data_finished_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="Time since the data pipeline last finished a night.",
        absent=_UNFINISHED,
    ),
    Metric(
        name="liveops_data_night_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="How long that night took, from its first attempt to its end.",
        absent=_UNFINISHED,
    ),
    Metric(
        name="liveops_data_rows",
        kind=MetricKind.GAUGE,
        unit="bars",
        help="New bars that it loaded, of all series.",
        absent=_UNFINISHED,
    ),
    Metric(
        name="liveops_data_anomalies",
        kind=MetricKind.GAUGE,
        unit="findings",
        help="What was unlike before in its new bars, by `level` (`warning` or `critical`).",
        labels=("level",),
        absent=_UNFINISHED,
    ),
    Metric(
        name="liveops_data_bar_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="Time since the close of the newest bar that was stored then.",
        labels=_SERIES,
        absent=_UNFINISHED,
    ),
    Metric(
        name="liveops_data_completeness_ratio",
        kind=MetricKind.GAUGE,
        unit="ratio",
        help="Part of the bars of the 30 days before it that is stored.",
        labels=_SERIES,
        absent=_UNFINISHED,
    ),
)
