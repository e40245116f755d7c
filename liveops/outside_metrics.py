"""What `/metrics` shows of what lies outside the service: calls, backups, snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from bandit.core.backups import RestoreDrill
from bandit.core.health import Vitals, backup_ages
from bandit.core.heartbeat import BreakerState
from bandit.core.notices import DeliveryState
from bandit.core.snapshots import (
    SnapshotEvent,
    SnapshotRecord,
    SnapshotStore,
    damaged,
    pending_uploads,
)
from bandit.service.noticing import ChannelCount
from liveops.breakers import BreakerReport
from liveops.health_metrics import Sample


def of_breakers(reports: Iterable[BreakerReport]) -> Iterator[Sample]:
    """Yield one series for each breaker and state, and its trips."""
    for report in reports:
        for state in BreakerState:
            labels = (report.name, state.value)
            yield "liveops_breaker_state", labels, float(report.state is state)
        yield "liveops_breaker_trips_total", (report.name,), report.trips


def of_notices(counts: Iterable[ChannelCount], *, now: datetime) -> Iterator[Sample]:
    """Yield what ended and what waits, a channel each."""
    open_states = (DeliveryState.PENDING, DeliveryState.HELD)
    for count in counts:
        for state, number in count.by_state.items():
            if state not in open_states:
                yield "liveops_notices_total", (count.channel, state.value), number
        labels, since = (count.channel,), count.waits_since
        waiting = sum(count.by_state[state] for state in open_states)
        yield "liveops_notices_waiting", labels, waiting
        age = 0.0 if since is None else max((now - since).total_seconds(), 0.0)
        yield "liveops_notices_oldest_waiting_seconds", labels, age


def of_backups(found: Vitals, drill: RestoreDrill | None) -> Iterator[Sample]:
    """Yield how old the newest backups are, and how the newest drill went that passed."""
    for kind, age in backup_ages(found).items():
        yield "liveops_backup_age_seconds", (kind.value,), age.total_seconds()
    if drill is not None:
        age_seconds = max((found.now - drill.began_at).total_seconds(), 0.0)
        yield "liveops_restore_drill_age_seconds", (), age_seconds
        yield "liveops_restore_drill_rpo_seconds", (), drill.rpo_seconds
        if drill.rto_seconds is not None:
            yield "liveops_restore_drill_rto_seconds", (), drill.rto_seconds


def of_snapshots(
    records: Sequence[SnapshotRecord], *, has_bucket: bool, now: datetime
) -> Iterator[Sample]:
    """Yield how old the newest snapshot is where it belongs, what waits, and what is damaged."""
    place = SnapshotStore.S3 if has_bucket else SnapshotStore.LOCAL
    stored = [r for r in records if r.store is place and r.event is SnapshotEvent.STORED]
    if stored:
        newest = max(stored, key=lambda record: record.date)
        age = max((now - newest.recorded_at).total_seconds(), 0.0)
        yield "liveops_snapshot_age_seconds", (), age
        yield "liveops_snapshot_bytes", (), newest.size
    waiting = pending_uploads(records) if has_bucket else []
    yield "liveops_snapshot_pending_uploads", (), len(waiting)
    yield "liveops_snapshots_damaged", (), len(damaged(records))
