"""Close orders: which open positions a person wants closed, and what has become of each (SPEC F10).

The ledger opens and closes nothing itself: bots read what waits, close it, and tell its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from bandit.core.ladder import LadderRule, matured_before
from bandit.core.model import PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseFailure:
    """A bot's word that it could not close a position; it goes on trying."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTarget:
    """A position that a close order concerns, named by the decision that opened it.

    `since` is when the order was given, and `decided_to` when its experiment had decided last by
    then: the same but where a market is replayed. The multiplier and the bump are the decision's.
    `is_closed` once its outcome is recorded, or that nothing was opened; nothing else ends it.
    `failure` is the newest.
    """

    order_id: int
    experiment: str
    reason: str
    since: datetime
    decided_to: datetime
    assignment_id: UUID
    unit_id: str
    instrument: str
    policy: PolicyName
    size_multiplier: float
    confidence_bump: float
    decided_at: datetime
    is_closed: bool
    failure: CloseFailure | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the position as the API and the CLI tell it."""
        failure = self.failure
        return {
            "order_id": self.order_id,
            "reason": self.reason,
            "since": self.since.isoformat(),
            "assignment_id": str(self.assignment_id),
            "unit_id": self.unit_id,
            "instrument": self.instrument,
            "policy": self.policy,
            "closed": self.is_closed,
            "failure": None
            if failure is None
            else {"at": failure.at.isoformat(), "actor": failure.actor, "reason": failure.reason},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOrder:
    """An order to close what was open; without targets it was done at once.

    `waiting` are the positions of its experiment that are not closed, those of earlier orders too.
    While its `account` is not killed, new positions may open all the same.
    """

    id: int
    experiment: str
    at: datetime
    actor: str
    reason: str
    targets: tuple[CloseTarget, ...]
    waiting: int
    account: str
    is_killed: bool

    @property
    def note(self) -> str:
        """Say whether new positions may open, and what stops that."""
        if self.is_killed:
            return f"account {self.account} is killed: nothing new opens"
        stop = f"`liveops kill --account {self.account} --reason ...` stops that"
        return f"new positions may open: {stop}"

    def to_json(self) -> dict[str, Any]:
        """Return the order as the API and the CLI tell it."""
        return {
            "order_id": self.id,
            "experiment": self.experiment,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "reason": self.reason,
            "positions": [target.to_json() for target in self.targets],
            "waiting": self.waiting,
            "account": self.account,
            "killed": self.is_killed,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingToClose:
    """How many positions of an experiment wait to be closed, the oldest of them `since`."""

    experiment: str
    positions: int
    since: datetime


def heard_since(*, decided_to: datetime | None, now: datetime, rule: LadderRule) -> datetime:
    """Return from when on a position must have been heard of to be taken to be open.

    What was claimed or marked before then, and has no outcome, is what a night counts as a claim
    that came to nothing. It is counted back from the newest decision of the experiment: of a bot
    that fell silent, or of a market of another year, no position is forgotten meanwhile.

    >>> noon = datetime.fromisoformat("2026-03-09T12:00:00Z")
    >>> heard_since(decided_to=noon, now=noon, rule=LadderRule()).isoformat()
    '2026-03-06T00:00:00+00:00'
    """
    newest = now if decided_to is None else min(decided_to, now)
    return matured_before(now=newest, rule=rule)
