"""Alerts about snapshots: that there is a new one where it belongs, and that it can be read."""

from __future__ import annotations

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
    number,
)

_AGE: Final = Recording(of="liveops_snapshot_age_seconds", take=Take.NEWEST_LOWEST)
_DAMAGED: Final = Recording(of="liveops_snapshots_damaged", take=Take.NEWEST_HIGHEST)


def snapshot_rules(limits: AlertLimits) -> tuple[AlertRule, ...]:
    """Return the alerts about snapshots."""
    return (_stale(limits), _damaged())


def _stale(limits: AlertLimits) -> AlertRule:
    seconds = limits.snapshot_age.total_seconds()
    hours = number(seconds / 3600)
    return AlertRule(
        name="SnapshotStale",
        component=Component.LEDGER,
        severity=Severity.WARNING,
        reads=(_AGE,),
        expression=f"{_AGE} > {number(seconds)}",
        threshold=f"the newest snapshot was stored where it belongs more than {hours} h ago",
        at_once="the limit is a time itself",
        summary="There is no new snapshot.",
        description="The newest snapshot was stored {{ $value | humanizeDuration }} ago.",
        sources=(Source(document="004", quote="- last_backup_time > 1 hour"),),
        choice="a snapshot is taken once a day; the hourly backups have an alert of their own",
        setting="snapshots.stale_hours",
        pair="LedgerUnavailable; before the first snapshot nobody waits for one",
        drill=Drill(
            wrong={"liveops_snapshot_age_seconds": number(seconds + 1)},
            right={"liveops_snapshot_age_seconds": number(seconds)},
            description="The newest snapshot was stored 1d 12h 0m 1s ago.",
            holds=False,
        ),
    )


def _damaged() -> AlertRule:
    return AlertRule(
        name="SnapshotDamaged",
        component=Component.LEDGER,
        severity=Severity.WARNING,
        reads=(_DAMAGED,),
        expression=f"{_DAMAGED} > 0",
        threshold="a snapshot was not whole when it was last read back",
        at_once="it was read to the end",
        summary="A snapshot is damaged.",
        description=f"{VALUE} snapshots were not whole when they were last read back.",
        pair="LedgerUnavailable",
        drill=Drill(
            wrong={"liveops_snapshots_damaged": "1"},
            right={"liveops_snapshots_damaged": "0"},
            description="1 snapshots were not whole when they were last read back.",
            holds=False,
        ),
    )
