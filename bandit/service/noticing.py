"""Make notices of what the audit log and health say, and keep count of what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.audit_chain import AuditRow
from bandit.core.health import Health
from bandit.core.health_table import HealthLevel
from bandit.core.notices import (
    GIVE_UP,
    RATE_WINDOW,
    TOLD,
    Delivery,
    DeliveryState,
    Notice,
    Recipient,
    Severity,
    digest_notice,
    health_notice,
    notice_of,
    pause_after,
)
from bandit.storage import audit, notices
from bandit.storage.engine import snapshot, transaction

SEALS_MAX = 5_000
"""Seals that one look goes through; what lies beyond is the next look's."""

AT_ONCE_MAX = 20
"""Deliveries that are handed out at once."""

ERROR_MAX = 300
NEWEST = 50
_GONE = "the channel is not set up any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeReport:
    """A stored notice, and what became of it on each channel."""

    id: int
    notice: Notice
    deliveries: tuple[Delivery, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        told = [delivery.to_json() for delivery in self.deliveries]
        return {"id": self.id, **self.notice.to_json(), "deliveries": told}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCount:
    """How many deliveries of a channel are in each state, and since when the oldest waits."""

    channel: str
    by_state: dict[DeliveryState, int]
    waits_since: datetime | None


def follow(engine: Engine, recipients: Sequence[Recipient], *, now: datetime) -> bool:
    """Store a notice of each row sealed since the last look; True where there is more to read.

    The first look of all begins at the head: what happened before is no news.
    """
    with transaction(engine) as connection:
        state = notices.locked_state(connection)
        head = audit.sealed_to(connection)
        if state is None:
            notices.begin(connection, read_to=head, health=HealthLevel.HEALTHY)
            return False
        read_to, _ = state
        to = min(head, read_to + SEALS_MAX)
        if to <= read_to:
            return False
        for row in audit.sealed_rows(connection, after=read_to, to=to, actions=TOLD):
            _tell(connection, row, recipients, now=now)
        notices.read_on(connection, to)
        return to < head


def tell_health(
    engine: Engine, health: Health, recipients: Sequence[Recipient], *, now: datetime
) -> None:
    """Store a notice where the level is not the one that was told last; not before `follow`."""
    with transaction(engine) as connection:
        state = notices.locked_state(connection)
        if state is None or state[1] is health.level:
            return
        notice = health_notice(health, before=state[1], at=now)
        _store(connection, notice, recipients, audit_id=None, now=now)
        notices.tell_level(connection, health.level)


def _tell(
    connection: Connection, row: AuditRow, recipients: Sequence[Recipient], *, now: datetime
) -> None:
    notice = notice_of(row)
    if notice is not None:
        _store(connection, notice, recipients, audit_id=row.id, now=now)


def _store(
    connection: Connection,
    notice: Notice,
    recipients: Sequence[Recipient],
    *,
    audit_id: int | None,
    now: datetime,
) -> None:
    wanted = [recipient for recipient in recipients if recipient.wants(notice)]
    notices.insert(connection, notice, wanted, audit_id=audit_id, now=now)


def tell_week(
    engine: Engine,
    notice: Notice,
    recipients: Sequence[Recipient],
    *,
    now: datetime,
    pause: timedelta,
) -> tuple[int, list[Delivery]]:
    """Store a week's notice once; return its id, and its deliveries that are ours to send now.

    A channel that was not set up when the week was first told of is added. Whoever is killed before
    it says what came of a delivery has it sent again after `pause`.
    """
    wanted = [recipient for recipient in recipients if recipient.wants(notice)]
    names = {recipient.name for recipient in wanted}
    with transaction(engine) as connection:
        notice_id = notices.ensure_weekly(connection, notice, wanted, now=now)
        return notice_id, [
            delivery
            for delivery in notices.deliveries(connection, [notice_id])
            if delivery.channel in names
            and delivery.state is DeliveryState.PENDING
            and delivery.next_at <= now
            and notices.claim(connection, delivery, now=now, pause=pause)
        ]


def deliveries(engine: Engine, notice_id: int) -> list[Delivery]:
    """Return what became of a notice, by channel."""
    with snapshot(engine) as connection:
        return notices.deliveries(connection, [notice_id])


def week_told(engine: Engine, incident: str) -> list[Delivery] | None:
    """Return what became of the notice of a week, by channel; None before it is told of."""
    with snapshot(engine) as connection:
        notice_id = notices.weekly(connection, incident)
        return None if notice_id is None else notices.deliveries(connection, [notice_id])


def due(engine: Engine, channel: str, *, now: datetime) -> list[Delivery]:
    """Return what is to be sent on a channel now, the oldest first."""
    with snapshot(engine) as connection:
        return notices.due(connection, channel, now=now, most=AT_ONCE_MAX)


def claim(engine: Engine, delivery: Delivery, *, now: datetime) -> bool:
    """Count an attempt before it is made, and say whether it is ours to make.

    Whoever is killed before it says what came of it has the notice sent again after the pause, and
    at most one message is there twice.
    """
    with transaction(engine) as connection:
        pause = pause_after(delivery.attempts + 1)
        return notices.claim(connection, delivery, now=now, pause=pause)


def sent(engine: Engine, delivery: Delivery, *, now: datetime) -> None:
    """Write down that a delivery arrived."""
    _end(engine, delivery, DeliveryState.SENT, now=now)


def failed(
    engine: Engine,
    delivery: Delivery,
    *,
    error: str,
    now: datetime,
    asked_pause: timedelta | None = None,
    for_good: bool = False,
) -> DeliveryState:
    """Write down a failed attempt, and return whether there will be another.

    `asked_pause` is how long the other side wants to be left alone; `for_good`, that it will never
    take this message.
    """
    if for_good or now - delivery.notice.at >= GIVE_UP:
        return _end(engine, delivery, DeliveryState.GIVEN_UP, now=now, error=error)
    pause = max(pause_after(delivery.attempts + 1), asked_pause or timedelta(0))
    return _end(engine, delivery, DeliveryState.PENDING, now=now, error=error, next_at=now + pause)


def _end(
    engine: Engine,
    delivery: Delivery,
    state: DeliveryState,
    *,
    now: datetime,
    error: str | None = None,
    next_at: datetime | None = None,
) -> DeliveryState:
    with transaction(engine) as connection:
        notices.end(
            connection,
            delivery.channel,
            [delivery.notice_id],
            state=state,
            now=now,
            error=None if error is None else error[:ERROR_MAX],
            next_at=next_at,
        )
    return state


def ration(engine: Engine, channel: Recipient, *, per_hour: int, now: datetime) -> None:
    """Hold what is more than may go out within an hour, and tell of it in one notice when it may.

    Critical notices have an hour's ration of their own, so that nothing else keeps them back; what
    ends an incident is never held from a channel that has them.
    """
    with transaction(engine) as connection:
        waiting = _rationed(notices.waiting(connection, channel.name), channel)
        if not waiting:
            return
        since = now - RATE_WINDOW
        recent = _rationed(notices.sent_since(connection, channel.name, since=since), channel)
        for is_critical in (True, False):
            of_class = [d for d in waiting if _is_critical(d) is is_critical]
            used = sum(_is_critical(d) is is_critical for d in recent)
            _ration(connection, channel, of_class, room=max(per_hour - used, 0), now=now)


def _rationed(found: Sequence[Delivery], channel: Recipient) -> list[Delivery]:
    return [delivery for delivery in found if not channel.ends(delivery.notice)]


def _ration(
    connection: Connection,
    channel: Recipient,
    waiting: Sequence[Delivery],
    *,
    room: int,
    now: datetime,
) -> None:
    pending = [d for d in waiting if d.state is DeliveryState.PENDING]
    held = [d for d in waiting if d.state is DeliveryState.HELD]

    def put(found: Sequence[Delivery], state: DeliveryState) -> None:
        ids = [delivery.notice_id for delivery in found]
        notices.end(connection, channel.name, ids, state=state, now=now)

    too_many = pending[room:]
    if too_many:
        put(too_many, DeliveryState.HELD)
    held = sorted([*held, *too_many], key=lambda d: d.notice_id)
    if not held or len(pending) >= room:
        return
    if len(held) == 1:
        put(held, DeliveryState.PENDING)
        return
    put(held, DeliveryState.DIGESTED)
    severity = max((d.notice.severity for d in held), key=lambda s: s.rank)
    kinds = Counter(delivery.notice.kind.value for delivery in held)
    notice = digest_notice(kinds, severity=severity, at=now)
    notices.insert(connection, notice, [channel], audit_id=None, now=now)


def _is_critical(delivery: Delivery) -> bool:
    return delivery.notice.severity is Severity.CRITICAL


def abandon(engine: Engine, recipients: Sequence[Recipient], *, now: datetime) -> None:
    """Give up what waits for channels that are not set up any more."""
    with transaction(engine) as connection:
        kept = [recipient.name for recipient in recipients]
        notices.abandon(connection, kept=kept, now=now, error=_GONE)


def newest(engine: Engine, *, most: int = NEWEST) -> list[NoticeReport]:
    """Return the newest notices with their deliveries, the newest first."""
    with snapshot(engine) as connection:
        found = notices.newest(connection, most=most)
        told = notices.deliveries(connection, [notice_id for notice_id, _ in found])
    return [
        NoticeReport(
            id=notice_id,
            notice=notice,
            deliveries=tuple(d for d in told if d.notice_id == notice_id),
        )
        for notice_id, notice in found
    ]


def counted(engine: Engine) -> list[ChannelCount]:
    """Return how many deliveries each channel has in each state, by channel."""
    with snapshot(engine) as connection:
        counts, oldest = notices.counts(connection), notices.oldest_open(connection)
    return [
        ChannelCount(
            channel=channel,
            by_state={state: counts.get((channel, state), 0) for state in DeliveryState},
            waits_since=oldest.get(channel),
        )
        for channel in sorted({channel for channel, _ in counts})
    ]
