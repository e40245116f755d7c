"""What callers get of accounts: their money, their marks, their kill switch."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from bandit.core.kill_switch import KillCause
from bandit.core.marks import PositionMark
from bandit.core.model import Verdict
from bandit.core.reconciling import Kind, ReconciliationState
from liveops.api.answers import Amount, Answer, Day, Id, Time, time_of
from liveops.api.problems import Problem


class MarkAnswer(Answer):
    """What stands of an open position: its newest mark and its worst."""

    assignment_id: Id
    unrealised_pnl: Amount
    marked_at: Time
    worst_pnl: Amount
    worst_at: Time

    @classmethod
    def of(cls, mark: PositionMark) -> Self:
        """Return the mark as callers read it."""
        newest = mark.newest
        return cls(
            assignment_id=str(newest.assignment_id),
            unrealised_pnl=f"{newest.unrealised_pnl:f}",
            marked_at=time_of(newest.marked_at),
            worst_pnl=f"{mark.worst_pnl:f}",
            worst_at=time_of(mark.worst_at),
        )


class MarkLineAnswer(Answer):
    """What became of one mark of an array: `mark` for 200, else `problem`."""

    line: int = Field(description="Counted from 1.", ge=1)
    status: int
    mark: MarkAnswer | None = None
    problem: Problem | None = None


class LimitAnswer(Answer):
    """A loss limit with what is measured against it, in percent; FAIL is over the limit."""

    check: str
    value: float
    limit: float
    verdict: Verdict
    note: str


class FindingOfReconciliation(Answer):
    """One difference; `position` is null where it is the balance, of which both are told."""

    kind: Kind
    position: Id | None
    since: Time
    in_force: bool = Field(description="Whether it has outlasted its grace.")
    told: Amount | None
    ledger: Amount | None


class ReconciliationAnswer(Answer):
    """How an account compares with what its bots tell; BLOCKED: nothing new opens."""

    state: ReconciliationState
    since: Time | None = Field(description="When it changed last; null where it never did.")
    judged_at: Time = Field(description="The newest heartbeat that was compared.")
    differs: str = Field(description="What is in force, in words.")
    findings: list[FindingOfReconciliation]
    accepted_positions: list[Id] = Field(description="Differing, and accepted by a person.")
    accepted_difference: Amount = Field(
        description="Taken off what bots tell before it is compared with the ledger's equity."
    )


class AccountAnswer(Answer):
    """An account today; `drawdown_percent` of its peak, the day's loss of `day_start`."""

    name: str
    currency: str
    capital: Amount
    realised_pnl: Amount
    unrealised_pnl: Amount
    equity: Amount
    peak: Amount
    drawdown_percent: float
    trading_day: Day
    day_start: Amount
    daily_loss_percent: float
    limits: list[LimitAnswer]
    killed: bool
    cause: KillCause | None
    reason: str | None
    actor: str | None
    since: Time | None
    reconciliation: ReconciliationAnswer | None = Field(
        description="Null where no bot told anything that can be held against the ledger."
    )
