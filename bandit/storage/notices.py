"""Notices and their deliveries, as the ledger keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bandit.core.health_table import HealthLevel
from bandit.core.notices import Delivery, DeliveryState, Notice, NoticeKind, Recipient, Severity
from bandit.storage.engine import one, rows, run

_DELIVERIES = """
  SELECT d.notice_id, d.channel, d.state, d.attempts, d.next_at, d.changed_at, d.error,
         n.kind, n.severity, n.title, n.body, n.fields, n.incident, n.resolves, n.at
  FROM notice_deliveries d JOIN notices n ON n.id = d.notice_id
"""


def locked_state(connection: Connection) -> tuple[int, HealthLevel] | None:
    """Return up to where the log was read and the level that was told; None before the start.

    Nobody else reads on until this transaction ends.
    """
    found = one(connection, "SELECT read_to, health FROM notifier_state FOR UPDATE")
    return None if found is None else (found["read_to"], HealthLevel(found["health"]))


def begin(connection: Connection, *, read_to: int, health: HealthLevel) -> None:
    """Store where the notifier starts; nothing where it did before."""
    run(
        connection,
        "INSERT INTO notifier_state (is_only, read_to, health) VALUES (true, :read_to, :health) "
        "ON CONFLICT DO NOTHING",
        read_to=read_to,
        health=health.value,
    )


def read_on(connection: Connection, read_to: int) -> None:
    """Store up to where the log is read."""
    run(connection, "UPDATE notifier_state SET read_to = :read_to", read_to=read_to)


def tell_level(connection: Connection, health: HealthLevel) -> None:
    """Store which level of health is told."""
    run(connection, "UPDATE notifier_state SET health = :health", health=health.value)


def insert(
    connection: Connection,
    notice: Notice,
    recipients: Sequence[Recipient],
    *,
    audit_id: int | None,
    now: datetime,
) -> None:
    """Store a notice and a delivery for each recipient; nothing where it is stored already."""
    notice_id = _inserted(connection, notice, audit_id=audit_id, now=now)
    if notice_id is not None:
        _add_deliveries(connection, notice_id, recipients, now=now)


def ensure_weekly(
    connection: Connection, notice: Notice, recipients: Sequence[Recipient], *, now: datetime
) -> int:
    """Store a week's notice, and a delivery for each recipient without one; return the notice's id.

    Of a week that was told of before, the notice stays what it was.
    """
    notice_id = _inserted(connection, notice, audit_id=None, now=now)
    if notice_id is None:
        notice_id = weekly(connection, notice.incident)
        assert notice_id is not None
    _add_deliveries(connection, notice_id, recipients, now=now)
    return notice_id


def weekly(connection: Connection, incident: str) -> int | None:
    """Return the id of a week's notice; None before the week is told of."""
    found = one(
        connection,
        "SELECT id FROM notices WHERE kind = 'WEEKLY_REPORT' AND incident = :incident",
        incident=incident,
    )
    return None if found is None else int(found["id"])


def _inserted(
    connection: Connection, notice: Notice, *, audit_id: int | None, now: datetime
) -> int | None:
    made = one(
        connection,
        """
        INSERT INTO notices (audit_id, kind, severity, title, body, fields, incident, resolves,
                             at, stored_at)
        VALUES (:audit_id, :kind, :severity, :title, :body, CAST(:fields AS jsonb), :incident,
                :resolves, :at, :now)
        ON CONFLICT DO NOTHING RETURNING id
        """,
        audit_id=audit_id,
        kind=notice.kind.value,
        severity=notice.severity.value,
        title=notice.title,
        body=notice.text,
        fields=json.dumps(notice.fields),
        incident=notice.incident,
        resolves=notice.resolves,
        at=notice.at,
        now=now,
    )
    return None if made is None else int(made["id"])


def _add_deliveries(
    connection: Connection, notice_id: int, recipients: Sequence[Recipient], *, now: datetime
) -> None:
    run(
        connection,
        """
        INSERT INTO notice_deliveries (notice_id, channel, state, attempts, next_at, changed_at)
        SELECT :notice_id, c.name, 'pending', 0, :now, :now
        FROM unnest(CAST(:channels AS text[])) AS c (name)
        ON CONFLICT DO NOTHING
        """,
        notice_id=notice_id,
        channels=[recipient.name for recipient in recipients],
        now=now,
    )


def due(connection: Connection, channel: str, *, now: datetime, most: int) -> list[Delivery]:
    """Return what is to be sent on a channel now, the oldest notices first."""
    statement = (
        _DELIVERIES + " WHERE d.channel = :channel AND d.state = 'pending' AND d.next_at <= :now"
        " ORDER BY d.notice_id LIMIT :most"
    )
    return [
        _delivery(row) for row in rows(connection, statement, channel=channel, now=now, most=most)
    ]


def waiting(connection: Connection, channel: str) -> list[Delivery]:
    """Return what has not ended on a channel, the oldest first, for nobody else meanwhile."""
    statement = (
        _DELIVERIES + " WHERE d.channel = :channel AND d.state IN ('pending', 'held')"
        " ORDER BY d.notice_id FOR UPDATE OF d"
    )
    return [_delivery(row) for row in rows(connection, statement, channel=channel)]


def sent_since(connection: Connection, channel: str, *, since: datetime) -> list[Delivery]:
    """Return what was sent on a channel later than `since`."""
    statement = (
        _DELIVERIES + " WHERE d.channel = :channel AND d.state = 'sent' AND d.changed_at > :since"
    )
    return [_delivery(row) for row in rows(connection, statement, channel=channel, since=since)]


def claim(connection: Connection, delivery: Delivery, *, now: datetime, pause: timedelta) -> bool:
    """Count an attempt that begins now, and say whether it is ours: nobody else began it."""
    made = one(
        connection,
        """
        UPDATE notice_deliveries
        SET attempts = attempts + 1, next_at = CAST(:now AS timestamptz) + :pause, changed_at = :now
        WHERE notice_id = :notice_id AND channel = :channel AND state = 'pending'
          AND attempts = :attempts
        RETURNING attempts
        """,
        notice_id=delivery.notice_id,
        channel=delivery.channel,
        attempts=delivery.attempts,
        now=now,
        pause=pause,
    )
    return made is not None


def end(
    connection: Connection,
    channel: str,
    notice_ids: Sequence[int],
    *,
    state: DeliveryState,
    now: datetime,
    error: str | None = None,
    next_at: datetime | None = None,
) -> None:
    """Give deliveries of a channel another state; what has ended already stays as it is."""
    run(
        connection,
        """
        UPDATE notice_deliveries
        SET state = :state, changed_at = :now, error = :error,
            next_at = coalesce(CAST(:next_at AS timestamptz), next_at)
        WHERE channel = :channel AND notice_id = ANY(:ids) AND state IN ('pending', 'held')
        """,
        state=state.value,
        channel=channel,
        ids=list(notice_ids),
        now=now,
        error=error,
        next_at=next_at,
    )


def abandon(connection: Connection, *, kept: Sequence[str], now: datetime, error: str) -> None:
    """Give up what waits for channels that are not among `kept`."""
    run(
        connection,
        "UPDATE notice_deliveries SET state = 'given_up', changed_at = :now, error = :error "
        "WHERE state IN ('pending', 'held') AND channel <> ALL(:kept)",
        kept=list(kept),
        now=now,
        error=error,
    )


def newest(connection: Connection, *, most: int) -> list[tuple[int, Notice]]:
    """Return the notices stored last, the newest first."""
    found = rows(connection, "SELECT * FROM notices ORDER BY id DESC LIMIT :most", most=most)
    return [(row["id"], _notice(row)) for row in found]


def deliveries(connection: Connection, notice_ids: Sequence[int]) -> list[Delivery]:
    """Return the deliveries of these notices, by channel."""
    statement = _DELIVERIES + " WHERE d.notice_id = ANY(:ids) ORDER BY d.notice_id, d.channel"
    return [_delivery(row) for row in rows(connection, statement, ids=list(notice_ids))]


def told_between(
    connection: Connection, *, since: datetime, until: datetime
) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Return how many notices of each kind tell of a time, and of deliveries by channel and state.

    From `since` to before `until`; weekly reports are not among them.
    """
    within = "n.at >= :since AND n.at < :until AND n.kind <> 'WEEKLY_REPORT'"
    times = {"since": since, "until": until}
    kinds = rows(
        connection,
        f"SELECT n.kind, count(*) AS n FROM notices n WHERE {within} GROUP BY 1 ORDER BY 1",  # noqa: S608 - constants
        **times,
    )
    told = rows(
        connection,
        "SELECT d.channel, d.state, count(*) AS n FROM notice_deliveries d "  # noqa: S608 - constants
        f"JOIN notices n ON n.id = d.notice_id WHERE {within} GROUP BY 1, 2 ORDER BY 1, 2",
        **times,
    )
    return (
        {row["kind"]: row["n"] for row in kinds},
        {(row["channel"], row["state"]): row["n"] for row in told},
    )


def counts(connection: Connection) -> dict[tuple[str, DeliveryState], int]:
    """Return how many deliveries each channel has in each state."""
    statement = "SELECT channel, state, count(*) AS n FROM notice_deliveries GROUP BY 1, 2"
    found = rows(connection, statement)
    return {(row["channel"], DeliveryState(row["state"])): row["n"] for row in found}


def oldest_open(connection: Connection) -> dict[str, datetime]:
    """Return when the oldest notice was stored that waits for each channel."""
    statement = """
        SELECT d.channel, min(n.stored_at) AS since
        FROM notice_deliveries d JOIN notices n ON n.id = d.notice_id
        WHERE d.state IN ('pending', 'held') GROUP BY 1
    """
    return {row["channel"]: row["since"] for row in rows(connection, statement)}


def _delivery(row: Mapping[str, Any]) -> Delivery:
    return Delivery(
        notice_id=row["notice_id"],
        notice=_notice(row),
        channel=row["channel"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        next_at=row["next_at"],
        changed_at=row["changed_at"],
        error=row["error"],
    )


def _notice(row: Mapping[str, Any]) -> Notice:
    return Notice(
        kind=NoticeKind(row["kind"]),
        severity=Severity(row["severity"]),
        title=row["title"],
        text=row["body"],
        at=row["at"],
        incident=row["incident"],
        fields=tuple((name, value) for name, value in row["fields"]),
        resolves=row["resolves"],
    )
