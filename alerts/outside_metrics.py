"""Metrics of what the service calls outside itself, and of its backups and snapshots."""

from __future__ import annotations

from typing import Final

from alerts.metric import Metric, MetricKind

_NO_BREAKER: Final = "for a breaker that nothing has named yet in this process"

_NO_CHANNEL: Final = "for a channel that was never sent anything; while the ledger does not answer"

_NO_DRILL: Final = "before the first drill that passed; while the ledger does not answer"

_NO_SNAPSHOT: Final = "before the first snapshot; while the ledger does not answer"

OUTSIDE_METRICS: Final = (
    Metric(
        name="liveops_backup_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help=(
            "Time since the newest backup was taken, by `kind`: `state` (who may trade) or "
            "`database` (the ledger)."
        ),
        labels=("kind",),
        absent="before the first backup of the kind; while the ledger does not answer",
    ),
    Metric(
        name="liveops_restore_drill_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="Time since a drill last restored a backup that was what had been backed up.",
        absent=_NO_DRILL,
    ),
    Metric(
        name="liveops_restore_drill_rpo_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="How old the newest moment was that this drill could restore.",
        absent=_NO_DRILL,
    ),
    Metric(
        name="liveops_restore_drill_rto_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="How long this drill took until a service on the restored ledger was ready.",
        absent=_NO_DRILL,
    ),
    Metric(
        name="liveops_snapshot_age_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help=(
            "Time since the newest snapshot was stored: in the bucket where one is set, else on "
            "this machine."
        ),
        absent=_NO_SNAPSHOT,
    ),
    Metric(
        name="liveops_snapshot_bytes",
        kind=MetricKind.GAUGE,
        unit="bytes",
        help="Size of that snapshot, what it shares with others included.",
        absent=_NO_SNAPSHOT,
    ),
    Metric(
        name="liveops_snapshot_pending_uploads",
        kind=MetricKind.GAUGE,
        unit="snapshots",
        help="Snapshots that lie on this machine and wait for the bucket; 0 where none is set.",
    ),
    Metric(
        name="liveops_snapshots_damaged",
        kind=MetricKind.GAUGE,
        unit="snapshots",
        help="Snapshots that were not whole when they were last read back.",
    ),
    Metric(
        name="liveops_breaker_state",
        kind=MetricKind.GAUGE,
        unit="0 or 1",
        help="Whether a circuit breaker of this process is in the state; of its states, one is 1.",
        labels=("breaker", "state"),
        absent=_NO_BREAKER,
        is_own=True,
    ),
    Metric(
        name="liveops_breaker_trips_total",
        kind=MetricKind.COUNTER,
        unit="trips",
        help="How often a circuit breaker opened since the process began.",
        labels=("breaker",),
        absent=_NO_BREAKER,
        is_own=True,
    ),
    Metric(
        name="liveops_notices_total",
        kind=MetricKind.COUNTER,
        unit="notices",
        help=(
            "Notices that have ended on a channel: sent, digested (told of in one notice for many) "
            "or given_up."
        ),
        labels=("channel", "state"),
        absent=_NO_CHANNEL,
    ),
    Metric(
        name="liveops_notices_waiting",
        kind=MetricKind.GAUGE,
        unit="notices",
        help="Notices that wait for a channel: to be sent (again), or for the hour's end.",
        labels=("channel",),
        absent=_NO_CHANNEL,
    ),
    Metric(
        name="liveops_notices_oldest_waiting_seconds",
        kind=MetricKind.GAUGE,
        unit="seconds",
        help="For how long the oldest of them has waited; 0 where none waits.",
        labels=("channel",),
        absent=_NO_CHANNEL,
    ),
)
