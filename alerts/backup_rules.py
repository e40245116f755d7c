"""Alerts about backups that are missed, and restores that nobody has exercised."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from alerts.limits import AlertLimits
from alerts.rule import AlertRule, Case, Component, Drill, Recording, Severity, Source, Take
from alerts.rule import duration as spelt

_AGE: Final = "{{ $value | humanizeDuration }}"
_STATE: Final = Recording(
    of="liveops_backup_age_seconds",
    by=("kind",),
    take=Take.NEWEST_LOWEST,
    where={"kind": "state"},
)
_DATABASE: Final = Recording(
    of="liveops_backup_age_seconds",
    by=("kind",),
    take=Take.NEWEST_LOWEST,
    where={"kind": "database"},
)
_DRILL: Final = Recording(of="liveops_restore_drill_age_seconds", take=Take.NEWEST_LOWEST)
_OTHER: Final = 'liveops_backup_age_seconds{kind="database",job="other"}'
_ITSELF: Final = "the limit is a time itself"


def backup_rules(limits: AlertLimits) -> tuple[AlertRule, ...]:
    """Return the alerts about backups."""
    return (_backup(limits), _drill(limits))


def _backup(limits: AlertLimits) -> AlertRule:
    state, database = (round(each.total_seconds()) for each in (limits.state, limits.database))
    return AlertRule(
        name="BackupStale",
        component=Component.LEDGER,
        severity=Severity.WARNING,
        reads=(_STATE, _DATABASE),
        expression=f"{_STATE} > {state} or {_DATABASE} > {database}",
        threshold=(
            f"newest state backup older than {spelt(limits.state)}, or of the ledger than "
            f"{spelt(limits.database)}"
        ),
        at_once=_ITSELF,
        summary="The newest backup is old.",
        description=f"The newest backup of the {{{{ $labels.kind }}}} is {_AGE} old.",
        sources=(Source(document="004", quote="- last_backup_time > 1 hour"),),
        choice="a quarter of an hour more than 004: the hourly backup has to be taken first",
        setting="backup.state_age_max_minutes, backup.database_age_max_hours",
        pair="where no backup was ever taken `liveops doctor` says so; nobody asked for one",
        drill=_backup_drill(state, database),
    )


def _backup_drill(state: int, database: int) -> Drill:
    series = {kind: f'liveops_backup_age_seconds{{kind="{kind}"}}' for kind in _KINDS}
    return Drill(
        wrong={series["state"]: str(state + 1)},
        right={series["state"]: str(state)},
        labels={"kind": "state"},
        description=f"The newest backup of the state is {_humanized(state + 1)} old.",
        holds=False,
        cases=(
            Case(
                name="a ledger that is not backed up",
                series={series["state"]: "0", series["database"]: str(database + 1)},
                fires={timedelta(0): True},
                labels={"kind": "database"},
                description=f"The newest backup of the database is {_humanized(database + 1)} old.",
            ),
            Case(
                name="a ledger of another job that is not backed up",
                series={_OTHER: str(database + 1)},
                fires={timedelta(0): False},
            ),
            Case(
                name="a ledger is backed up less often than the state",
                series={series["state"]: "0", series["database"]: str(database)},
                fires={timedelta(0): False},
            ),
        ),
    )


def _drill(limits: AlertLimits) -> AlertRule:
    seconds = round(limits.drill.total_seconds())
    return AlertRule(
        name="RestoreDrillStale",
        component=Component.LEDGER,
        severity=Severity.WARNING,
        reads=(_DRILL,),
        expression=f"{_DRILL} > {seconds}",
        threshold=f"no drill passed for {spelt(limits.drill)}",
        at_once=_ITSELF,
        summary="No restore was exercised for long.",
        description=f"A backup was last restored and compared {_AGE} ago.",
        choice="not of the documents: a backup that nobody restored is a hope",
        setting="backup.drill_age_max_days",
        pair="before the first drill nobody expects one",
        drill=Drill(
            wrong={"liveops_restore_drill_age_seconds": str(seconds + 1)},
            right={"liveops_restore_drill_age_seconds": str(seconds)},
            description=f"A backup was last restored and compared {_humanized(seconds + 1)} ago.",
            holds=False,
        ),
    )


_KINDS: Final = ("state", "database")


def _humanized(seconds: int) -> str:
    """Return a span as Prometheus says it to people.

    >>> _humanized(4501)
    '1h 15m 1s'
    >>> _humanized(691201)
    '8d 0h 0m 1s'
    """
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    parts = [(d, "d"), (h, "h"), (m, "m"), (s, "s")]
    first = next(i for i, (number, _) in enumerate(parts) if number or i == 3)
    return " ".join(f"{number}{unit}" for number, unit in parts[first:])
