"""Notices: what people are told of what happened, how urgent it is, and when it is sent again.

docs/notifications.md shows the kinds; a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from bandit.core.audit_chain import AuditRow
from bandit.core.guard_rule import GuardState
from bandit.core.health import Health
from bandit.core.health_table import HealthLevel
from bandit.core.reconciling import ReconciliationState

TITLE_MAX: Final = 200
TEXT_MAX: Final = 1500
GIVE_UP: Final = timedelta(hours=24)
"""A delivery that still fails when its notice is so old is given up."""

RATE_WINDOW: Final = timedelta(hours=1)
_FIRST_PAUSE: Final = timedelta(seconds=5)
_LONGEST_PAUSE: Final = timedelta(minutes=15)


class Severity(StrEnum):
    """How urgent it is; the later, the more so."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1 or 2: the larger, the more urgent."""
        return list(Severity).index(self)

    @property
    def colour(self) -> int:
        """Red, green and blue in one number, as chats show it."""
        return (0x2E86DE, 0xF39C12, 0xC0392B)[self.rank]


class NoticeKind(StrEnum):
    """What happened; values are stable, programs read them."""

    PERFORMANCE_GUARD_PAUSED = "PERFORMANCE_GUARD_PAUSED"
    PERFORMANCE_GUARD_REDUCED = "PERFORMANCE_GUARD_REDUCED"
    PERFORMANCE_GUARD_RECOVERED = "PERFORMANCE_GUARD_RECOVERED"
    KILL_SWITCH = "KILL_SWITCH"
    ARM_HALTED = "ARM_HALTED"
    ARM_THROTTLED = "ARM_THROTTLED"
    ARM_RESUMED = "ARM_RESUMED"
    PROMOTION = "PROMOTION"
    MODEL_ROTATION = "MODEL_ROTATION"
    DRIFT = "DRIFT"
    HEALTH_ISSUE = "HEALTH_ISSUE"
    WEEKLY_REPORT = "WEEKLY_REPORT"
    MORE_NOTICES = "MORE_NOTICES"
    TEST = "TEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What people are told: `incident` names what goes on, and one that `resolves` ends it."""

    kind: NoticeKind
    severity: Severity
    title: str
    text: str
    at: datetime
    incident: str
    fields: tuple[tuple[str, str], ...] = ()
    resolves: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the notice as a JSON document."""
        return {
            "kind": self.kind.value,
            "severity": self.severity.value,
            "title": self.title,
            "text": self.text,
            "at": self.at.isoformat(),
            "incident": self.incident,
            "resolves": self.resolves,
            "fields": dict(self.fields),
        }

    def __post_init__(self) -> None:
        """Cut what a message would not hold; a title is one line."""
        object.__setattr__(self, "title", _cut(" ".join(self.title.split()), TITLE_MAX))
        object.__setattr__(self, "text", _cut(self.text, TEXT_MAX))


class DeliveryState(StrEnum):
    """What became of a notice on a channel.

    `held` waits for the hour's end, where more went out than may; `digested` was told of in the one
    notice that stood for all of those.
    """

    PENDING = "pending"
    HELD = "held"
    SENT = "sent"
    DIGESTED = "digested"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A channel's name, and what it wants to be told.

    One that `ends_incidents` is told of every end, however urgent: else they would stay open there.
    """

    name: str
    least_severity: Severity = Severity.INFO
    kinds: frozenset[NoticeKind] = frozenset(NoticeKind)
    ends_incidents: bool = False

    def wants(self, notice: Notice) -> bool:
        """Say whether this notice is for the channel.

        >>> pager = Recipient(name="pagerduty", least_severity=Severity.CRITICAL)
        >>> pager.wants(digest_notice({}, severity=Severity.INFO, at=datetime.min))
        False
        """
        is_urgent = notice.severity.rank >= self.least_severity.rank
        return notice.kind in self.kinds and (is_urgent or self.ends(notice))

    def ends(self, notice: Notice) -> bool:
        """Say whether the notice ends what is open at the channel."""
        return self.ends_incidents and notice.resolves


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A notice on its way to one channel, or arrived: attempts made, and when the next is due."""

    notice_id: int
    notice: Notice
    channel: str
    state: DeliveryState
    attempts: int
    next_at: datetime
    changed_at: datetime
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """Return what became of it, as a JSON document."""
        return {
            "channel": self.channel,
            "state": self.state.value,
            "attempts": self.attempts,
            "next_at": self.next_at.isoformat() if self.state is DeliveryState.PENDING else None,
            "changed_at": self.changed_at.isoformat(),
            "error": self.error,
        }


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts in vain: 5 s, doubled, at most 15 min.

    >>> [pause_after(n).total_seconds() for n in (1, 2, 3, 8, 9, 5000)]
    [5.0, 10.0, 20.0, 640.0, 900.0, 900.0]
    """
    return min(_FIRST_PAUSE * (1 << min(attempts - 1, 20)), _LONGEST_PAUSE)


def notice_of(row: AuditRow) -> Notice | None:
    """Return what people are told of a row whose action is in `TOLD`; None where it is no news.

    >>> row = AuditRow(
    ...     id=1, at="2026-03-01T12:00:00.000000Z", actor="cli:ann", action="KILL", subject="usd",
    ...     details='{"cause": "hand", "reason": "drill", "reasons": []}',
    ... )
    >>> told = notice_of(row)
    >>> told.kind.value, told.severity.value, told.title
    ('KILL_SWITCH', 'critical', 'Account usd is killed')
    """
    details = json.loads(row.details)
    told = _TOLD_BY_ACTION[row.action](row, details)
    if told is None:
        return None
    kind, severity, title, incident, more = told
    reason = str(details.get("reason") or details.get("result") or "")
    fields = [*more.items(), ("by", row.actor)]
    return Notice(
        kind=kind,
        severity=severity,
        title=title,
        text=reason,
        at=datetime.fromisoformat(row.at),
        incident=incident,
        fields=tuple((name, _cut(str(value), TITLE_MAX)) for name, value in fields),
        resolves=severity is Severity.INFO and kind in _RESOLVING,
    )


def health_notice(health: Health, *, before: HealthLevel, at: datetime) -> Notice:
    """Return what people are told when the level of health is no longer `before`."""
    level = health.level
    why = "\n".join(issue.text for issue in health.issues)
    return Notice(
        kind=NoticeKind.HEALTH_ISSUE,
        severity=list(Severity)[level.rank],
        title=f"Health is {level.value}, was {before.value}",
        text=why or "nothing is wrong",
        at=at,
        incident="health",
        resolves=level is HealthLevel.HEALTHY,
    )


def digest_notice(kinds: Mapping[str, int], *, severity: Severity, at: datetime) -> Notice:
    """Return the one notice that stands for those of which there were too many.

    >>> at = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> told = digest_notice({"DRIFT": 2, "PROMOTION": 1}, severity=Severity.INFO, at=at)
    >>> told.title, told.text
    ('3 more notices', 'DRIFT: 2, PROMOTION: 1. liveops notify list shows them.')
    """
    counted = ", ".join(f"{kind}: {number}" for kind, number in sorted(kinds.items()))
    return Notice(
        kind=NoticeKind.MORE_NOTICES,
        severity=severity,
        title=f"{sum(kinds.values())} more notices",
        text=f"{counted}. liveops notify list shows them.",
        at=at,
        incident="more notices",
    )


_Told = tuple[NoticeKind, Severity, str, str, dict[str, Any]]
_RESOLVING: Final = {
    NoticeKind.KILL_SWITCH,
    NoticeKind.PERFORMANCE_GUARD_RECOVERED,
    NoticeKind.ARM_RESUMED,
    NoticeKind.HEALTH_ISSUE,
}


def _killed(row: AuditRow, details: dict[str, Any]) -> _Told:
    is_kill = row.action == "KILL"
    said = "killed" if is_kill else "released"
    severity = Severity.CRITICAL if is_kill else Severity.INFO
    title, more = f"Account {row.subject} is {said}", {"cause": details.get("cause", "unknown")}
    return NoticeKind.KILL_SWITCH, severity, title, f"kill:{row.subject}", more


_GUARDED: Final = {
    GuardState.NORMAL: (NoticeKind.PERFORMANCE_GUARD_RECOVERED, Severity.INFO),
    GuardState.REDUCED: (NoticeKind.PERFORMANCE_GUARD_REDUCED, Severity.WARNING),
    GuardState.PAUSED: (NoticeKind.PERFORMANCE_GUARD_PAUSED, Severity.CRITICAL),
}


def _guarded(row: AuditRow, details: dict[str, Any]) -> _Told | None:
    before, after = details.get("before"), details.get("after")
    if before == after or after not in set(GuardState):
        return None  # begun anew by a person where nothing was wrong
    kind, severity = _GUARDED[GuardState(after)]
    title = f"Performance guard of {row.subject} is {after}"
    return kind, severity, title, f"guard:{row.subject}", {"before": before}


_ARM: Final = {
    "HALT": (NoticeKind.ARM_HALTED, Severity.CRITICAL, "halted"),
    "THROTTLE": (NoticeKind.ARM_THROTTLED, Severity.WARNING, "throttled"),
    "RESUME": (NoticeKind.ARM_RESUMED, Severity.INFO, "resumed"),
}


def _arm(row: AuditRow, details: dict[str, Any]) -> _Told:
    kind, severity, said = _ARM[row.action]
    policy = details.get("policy", "an arm")  # rows of older releases do not name it
    incident = f"arm:{row.subject}/{policy}"
    more = {"experiment": row.subject, "policy": policy}
    return kind, severity, f"{policy} in {row.subject} is {said}", incident, more


def _promoted(row: AuditRow, details: dict[str, Any]) -> _Told:
    policy = details.get("policy", "another policy")
    by_hand = row.action == "ROLL_BACK"
    title = f"{policy} is the champion of {row.subject}" + (" again" if by_hand else "")
    severity = Severity.WARNING if by_hand else Severity.INFO
    more = {name: told for name, told in details.items() if name in ("policy", "demoted")}
    return NoticeKind.PROMOTION, severity, title, f"champion:{row.subject}", more


_LEARNER: Final = {
    "learner_job_done": (Severity.INFO, "Model of {} was made anew"),
    "learner_job_failed": (Severity.WARNING, "Model of {} could not be made anew"),
    "learner_restarted": (Severity.WARNING, "Learner of {} was begun again"),
}


def _learned(row: AuditRow, details: dict[str, Any]) -> _Told:
    severity, said = _LEARNER[row.action]
    more = {name: details[name] for name in ("job", "asked", "result") if details.get(name)}
    title = said.format(row.subject)
    return NoticeKind.MODEL_ROTATION, severity, title, f"learner:{row.subject}", more


def _rotated(row: AuditRow, details: dict[str, Any]) -> _Told:
    placed = set(details.get("placings", {}).values())
    new = details.get("new", "a new model")
    severity, title = Severity.INFO, f"{row.subject} was made anew, and the new one is kept out"
    if "replaced" in placed:
        severity, title = Severity.WARNING, f"{new} has the place of {row.subject}"
    elif "joined" in placed:
        title = f"{new} challenges, made anew of {row.subject}"
    more = {"new": new, "gates": details.get("verdict", "unknown")}
    return NoticeKind.MODEL_ROTATION, severity, title, f"rotation:{row.subject}", more


def _drifted(row: AuditRow, details: dict[str, Any]) -> _Told | None:
    if not details.get("drifted"):
        return None
    checks = f"{details['drifted']} of {details.get('checks', '?')} drift checks"
    title = f"{checks} of {row.subject} fail"
    more = {name: told for name, told in details.items() if name.startswith("window_")}
    return NoticeKind.DRIFT, Severity.WARNING, title, f"drift:{row.subject}", more


_RECONCILED: Final = {
    ReconciliationState.BLOCKED: (Severity.CRITICAL, "differs from its bots: nothing new opens"),
    ReconciliationState.DIFFERS: (Severity.WARNING, "differs from what its bots tell"),
    ReconciliationState.AGREES: (Severity.INFO, "agrees with its bots again"),
}


def _reconciled(row: AuditRow, details: dict[str, Any]) -> _Told | None:
    before, after = details.get("from"), details.get("to")
    if before == after or after not in set(ReconciliationState):
        return None
    severity, said = _RECONCILED[ReconciliationState(after)]
    title, incident = f"Account {row.subject} {said}", f"reconciliation:{row.subject}"
    more = {"differed": details["differed"]} if details.get("differed") else {}
    return NoticeKind.HEALTH_ISSUE, severity, title, incident, more


_TOLD_BY_ACTION: Final[Mapping[str, Callable[[AuditRow, dict[str, Any]], _Told | None]]] = {
    **dict.fromkeys(("KILL", "RELEASE"), _killed),
    "performance_guard": _guarded,
    **dict.fromkeys(_ARM, _arm),
    **dict.fromkeys(("PROMOTE", "ROLL_BACK"), _promoted),
    **dict.fromkeys(_LEARNER, _learned),
    "model_rotated": _rotated,
    "drift": _drifted,
    "reconciliation": _reconciled,
}
TOLD: Final = tuple(_TOLD_BY_ACTION)
"""Actions of the audit log of which people may be told."""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
