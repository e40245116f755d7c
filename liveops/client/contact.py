"""What the service said last, how long it has been silent, and whether that allows a fallback."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from liveops.client.errors import (
    Killed,
    Paused,
    Problem,
    RequestRefused,
    ServiceUnavailable,
    Unreconciled,
)
from liveops.client.values import Assignment, Champion, Sizing
from liveops.client.watch import Watch, later

CLOCK_TOLERANCE = timedelta(minutes=5)
"""A stored time further ahead of now than this was written under a wrong clock."""


class Standing(StrEnum):
    """Whether the experiment took decisions when it was last heard of."""

    UNKNOWN = "unknown"
    OPEN = "open"
    KILLED = "killed"
    PAUSED = "paused"
    UNRECONCILED = "unreconciled"


_GOES_ON = (Standing.PAUSED, Standing.UNRECONCILED)
"""Nothing new opens, and decisions about open positions are answered: these say nothing of it."""

_STOPPED = (Standing.KILLED, *_GOES_ON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What is known of an experiment, here and after a restart.

    `known_at` is when the standing was true for certain: when the request was *sent* for OPEN, when
    the answer came for every stop. `away_seconds` is the longest silence observed since; the wall
    clock may be set back, but what was observed stays.
    """

    standing: Standing = Standing.UNKNOWN
    known_at: datetime | None = None
    away_seconds: float = 0.0
    epoch: int = 0
    champion: Champion | None = None
    size_multiplier: float = 1.0
    confidence_bump: float = 0.0
    watch: Watch = field(default_factory=Watch)
    sizing: Sizing | None = None


def routed(
    contact: Contact,
    made: Assignment,
    *,
    epoch: int,
    is_position: bool,
    sent_at: datetime,
    now: datetime,
) -> Contact:
    """Return what is known after the service routed a unit, or decided about an open position."""
    if is_position and contact.standing is Standing.UNRECONCILED:
        return contact
    if made.size_multiplier == 0:  # of an open position, which may be closed while all is paused
        return stopped(contact, Standing.PAUSED, now=now)
    if contact.standing is Standing.PAUSED:
        assert contact.known_at is not None
        if made.decided_at < contact.known_at <= now + CLOCK_TOLERANCE:
            return contact  # decided before the pause: it says nothing of now
    contact = opened(contact, sent_at=sent_at, now=now)
    if epoch < contact.epoch:  # the stored answer of an old unit says nothing new
        return contact
    # Guards are of an experiment: what one arm is given, every arm would be.
    return replace(
        contact,
        epoch=epoch,
        size_multiplier=made.size_multiplier,
        confidence_bump=made.confidence_bump,
        sizing=made.sizing,
    )


def opened(contact: Contact, *, sent_at: datetime, now: datetime) -> Contact:
    """Return what is known after an answer to a request that only an open experiment grants.

    A request that was sent before a kill became known may be answered after it, by another thread
    or process of the bot: that answer proves nothing.
    """
    if contact.standing in _STOPPED:
        assert contact.known_at is not None
        if sent_at < contact.known_at <= now + CLOCK_TOLERANCE:
            return contact
    return replace(contact, standing=Standing.OPEN, known_at=sent_at, away_seconds=0.0)


def claimed(contact: Contact, *, sent_at: datetime, now: datetime) -> Contact:
    """Return what is known after a claim was granted: not killed, but a position may be closed.

    >>> paused = Contact(standing=Standing.PAUSED, known_at=datetime(2026, 3, 1, 12))
    >>> noon = datetime(2026, 3, 1, 13)
    >>> claimed(paused, sent_at=noon, now=noon).standing.value
    'paused'
    """
    if contact.standing in _GOES_ON:
        return contact
    return opened(contact, sent_at=sent_at, now=now)


def standing_of(refused: RequestRefused) -> Standing:
    """Return what a stop that the service told of says of the experiment.

    >>> standing_of(Unreconciled(Problem(status=423, code="unreconciled", detail="no"))).value
    'unreconciled'
    """
    match refused:
        case Unreconciled():
            return Standing.UNRECONCILED
        case Paused():
            return Standing.PAUSED
        case _:
            return Standing.KILLED


def stopped(contact: Contact, standing: Standing, *, now: datetime) -> Contact:
    """Return what is known after the service said that it takes no decisions."""
    return replace(contact, standing=standing, known_at=now, away_seconds=0.0)


def crowned(contact: Contact, champion: Champion) -> Contact:
    """Return what is known after the service said who the champion is."""
    if contact.champion is not None and champion.epoch < contact.champion.epoch:
        return contact
    epoch = max(contact.epoch, champion.epoch)
    return replace(contact, champion=champion, epoch=epoch)


def watched(contact: Contact, watch: Watch | None) -> Contact:
    """Return what is known after an answer said, or did not say, who is waited for."""
    return contact if watch is None else replace(contact, watch=watch)


def newest(ours: Contact, stored: Contact, *, now: datetime) -> Contact:
    """Return the later of what this process knows and what the processes beside it stored."""
    latest = ours
    # An OPEN from a clock that ran ahead would count for days; a kill is believed all the same.
    is_credible = stored.standing is not Standing.OPEN or (
        stored.known_at is not None and stored.known_at <= now + CLOCK_TOLERANCE
    )
    if stored.known_at is not None and is_credible:
        if ours.known_at is None or stored.known_at > ours.known_at:
            latest = stored
        elif stored.known_at == ours.known_at:
            away = max(ours.away_seconds, stored.away_seconds)
            latest = replace(ours, away_seconds=away)
    watch = later(ours.watch, stored.watch, latest=now + CLOCK_TOLERANCE)
    sizing = latest.sizing or ours.sizing or stored.sizing  # of an experiment: it never changes
    epoch = max(ours.epoch, stored.epoch)
    latest = replace(latest, epoch=epoch, watch=watch, sizing=sizing)
    for known in (ours.champion, stored.champion):
        latest = latest if known is None else crowned(latest, known)
    return latest


def silent_seconds(contact: Contact, *, now: datetime, observed_seconds: float) -> float:
    """Return how long the service has been away, never less than was observed before.

    `observed_seconds` passed by a clock that nobody sets, since the contact or since
    `away_seconds` was read.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> known = Contact(standing=Standing.OPEN, known_at=noon, away_seconds=600.0)
    >>> silent_seconds(known, now=noon - timedelta(hours=1), observed_seconds=60)
    660.0
    """
    if contact.known_at is None:
        return 0.0
    wall_seconds = (now - contact.known_at).total_seconds()
    return max(wall_seconds, contact.away_seconds + observed_seconds)


def needs_champion(contact: Contact) -> bool:
    """Say whether the champion is unknown, or may have become another since."""
    return contact.champion is None or contact.champion.epoch < contact.epoch


def fallback_champion(contact: Contact, *, silent: float, limit_seconds: float) -> Champion:
    """Return who decides while the service is away, or raise what forbids a fallback."""
    match contact.standing:
        case Standing.KILLED:
            raise Killed(_remembered(423, contact.standing))
        case Standing.PAUSED:
            raise Paused(_remembered(409, contact.standing))
        case Standing.UNRECONCILED:
            raise Unreconciled(_remembered(423, contact.standing))
        case Standing.UNKNOWN:
            raise ServiceUnavailable("the service is away and has not routed a unit here before")
        case Standing.OPEN:
            pass
        case _:
            assert_never(contact.standing)
    if contact.champion is None or needs_champion(contact):
        raise ServiceUnavailable("the service is away and the champion is not known")
    if silent > limit_seconds:
        raise ServiceUnavailable(
            f"the service has been away for {silent:.0f} s, more than the {limit_seconds:.0f} s"
            " for which the champion may stand in"
        )
    return contact.champion


def _remembered(status: int, standing: Standing) -> Problem:
    detail = f"the service is away, and was {standing} when it was last heard of"
    return Problem(status=status, code=standing.value, detail=detail)
