"""What an alert from outside does to the arm that it names: the second path that stops one.

Alerts come at least once, late, doubled, out of order, or not at all. So each notice is held
against what is now, not against the one before: it stops an arm that is not stopped as far as it
asks, unless somebody let the arm go on after the alert began, or just now: rules read the last
minutes. Nothing here ever lets one go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from bandit.core.errors import InvalidInput
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmRole, ArmStatus, Profile, checked_instant

TEXT_MAX: Final = 200
"""How much of a text of an alert is kept, in characters."""

SETTLES: Final = timedelta(minutes=5)
"""For how long after a resume alerts may still speak of what was before it.

The shipped rules read two minutes; scrapes, evaluations and a resolved notice take the rest.
"""

_FINGERPRINT = re.compile(r"[0-9a-zA-Z]{1,64}")
_VERBS: Final = {"throttle": ArmVerb.THROTTLE, "halt": ArmVerb.HALT}
_STOPPED: Final = {
    ArmVerb.THROTTLE: frozenset({ArmStatus.THROTTLED, ArmStatus.HALTED, ArmStatus.RETIRED}),
    ArmVerb.HALT: frozenset({ArmStatus.HALTED, ArmStatus.RETIRED}),
}


class AlertStatus(StrEnum):
    """Whether an alert holds, or has ended."""

    FIRING = "firing"
    RESOLVED = "resolved"


class AlertResult(StrEnum):
    """What was done about one alert of a payload; `truncated` stands for those cut off from it."""

    HALTED = "halted"
    THROTTLED = "throttled"
    ALREADY = "already"
    RESUMED_SINCE = "resumed_since"
    NO_ACTION = "no_action"
    UNKNOWN_ARM = "unknown_arm"
    RESOLVED = "resolved"
    REPEATED = "repeated"
    TRUNCATED = "truncated"


_DONE: Final = {ArmVerb.THROTTLE: AlertResult.THROTTLED, ArmVerb.HALT: AlertResult.HALTED}


class NoticeKey(NamedTuple):
    """By which a notice is known again, whoever sends it."""

    fingerprint: str
    starts_at: datetime
    status: AlertStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One alert of a payload: who it is, since when it holds, and what its labels ask for.

    `starts_at` is by the clock of whoever evaluates the rule. Labels that it does not have are "".
    """

    fingerprint: str
    status: AlertStatus
    starts_at: datetime
    alertname: str = ""
    experiment: str = ""
    policy: str = ""
    action: str = ""

    def __post_init__(self) -> None:
        """Refuse a fingerprint or a time outside its domain."""
        if _FINGERPRINT.fullmatch(self.fingerprint) is None:
            rule = "must be 1 to 64 letters and digits"
            raise InvalidInput(field="fingerprint", rule=rule, found=ascii(self.fingerprint))
        checked_instant(self.starts_at, field="startsAt")

    @property
    def key(self) -> NoticeKey:
        """What tells it from other notices."""
        return NoticeKey(self.fingerprint, self.starts_at, self.status)

    @property
    def verb(self) -> ArmVerb | None:
        """What it asks for; None where it has ended, or asks for nothing that there is."""
        return _VERBS.get(self.action) if self.status is AlertStatus.FIRING else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStanding:
    """What decides whether an arm may be stopped; `resumed_at` is when it was last let go on."""

    role: ArmRole
    status: ArmStatus
    profile: Profile
    resumed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNotice:
    """A notice that came before: when it first did, and what was done then."""

    received_at: datetime
    result: AlertResult


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertAction:
    """What to do: `verb` where an arm is to be stopped, and how that is called."""

    result: AlertResult
    verb: ArmVerb | None = None


def stop(verb: ArmVerb, arm: ArmStanding, *, since: datetime, now: datetime) -> AlertAction:
    """Say whether an arm is stopped by what has asked for it `since` then.

    Champions carry what challengers give up, and `observe` stops nobody. Who was resumed within
    `SETTLES` is not stopped yet: what still asks for it then, and began since, is heard.

    >>> from datetime import UTC
    >>> noon, one = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 13, tzinfo=UTC)
    >>> arm = ArmStanding(role=ArmRole.CHALLENGER, status=ArmStatus.ACTIVE,
    ...                   profile=Profile.GUARDED, resumed_at=noon)
    >>> [stop(ArmVerb.HALT, arm, since=noon, now=at).result.value for at in (noon, one)]
    ['resumed_since', 'halted']
    >>> stop(ArmVerb.HALT, arm, since=datetime(2026, 3, 1, 11, tzinfo=UTC), now=one).result.value
    'resumed_since'
    """
    if arm.role is ArmRole.CHAMPION or arm.profile is Profile.OBSERVE:
        return AlertAction(result=AlertResult.NO_ACTION)
    if arm.status in _STOPPED[verb]:
        return AlertAction(result=AlertResult.ALREADY)
    if arm.resumed_at is not None and (arm.resumed_at > since or now < arm.resumed_at + SETTLES):
        return AlertAction(result=AlertResult.RESUMED_SINCE)
    return AlertAction(result=_DONE[verb], verb=verb)


def action_of(
    notice: Notice, arm: ArmStanding | None, known: KnownNotice | None, *, now: datetime
) -> AlertAction:
    """Return what a notice asks for now; `arm` is the one it names, None where there is none.

    One that is known does what is still to be done, and else is `repeated`. By our clock an alert
    began when we first heard of it at the latest: a sender whose clock is ahead does not stop an
    arm again that was resumed since.
    """
    since = min(notice.starts_at, known.received_at if known else now)
    found = _action(notice, arm, since=since, now=now)
    if known is not None and found.verb is None:
        return AlertAction(result=AlertResult.REPEATED)
    return found


def _action(
    notice: Notice, arm: ArmStanding | None, *, since: datetime, now: datetime
) -> AlertAction:
    if notice.status is AlertStatus.RESOLVED:
        return AlertAction(result=AlertResult.RESOLVED)
    if notice.verb is None:
        return AlertAction(result=AlertResult.NO_ACTION)
    if arm is None:
        return AlertAction(result=AlertResult.UNKNOWN_ARM)
    return stop(notice.verb, arm, since=since, now=now)


def since_of(notices: Iterable[Notice], *, now: datetime) -> datetime:
    """Return since when alerts may hold that were cut off: the newest beginning that is shown.

    Where none is shown, since now.
    """
    return min(max((notice.starts_at for notice in notices), default=now), now)


def kept_text(text: str) -> str:
    r"""Return what is kept of a text of an alert: one line that steers no terminal.

    >>> kept_text("drawdown\r\nforged \x1b[31m")
    'drawdown��forged �[31m'
    """
    return "".join(c if c.isprintable() else "�" for c in text[:TEXT_MAX])
