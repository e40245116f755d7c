"""What callers get: the shape of every answer, as OpenAPI documents it and tests check it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from bandit.core.model import (
    WHOLE_PPM,
    ArmMode,
    ArmRole,
    ArmStatus,
    Assignment,
    DecisionKind,
    PolicyKind,
    Profile,
    Rung,
    Strategy,
)
from bandit.service.recording import Recorded
from bandit.service.revising import Revised
from bandit.storage.experiments import ArmRecord, ExperimentRecord
from bandit.storage.policies import PolicyRecord
from liveops.api.problems import Problem

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
Id = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
Amount = Annotated[str, WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"})]


class Answer(BaseModel):
    """A closed set of fields, so that an answer cannot say more than it documents."""

    model_config = ConfigDict(extra="forbid")


class PolicyAnswer(Answer):
    """A registered policy."""

    name: str
    kind: PolicyKind
    sha: str
    data_cutoff: Time | None
    parent: str | None
    metadata: dict[str, Any]
    registered_at: Time

    @classmethod
    def of(cls, record: PolicyRecord) -> Self:
        """Return the policy as callers read it."""
        policy = record.policy
        return cls(
            name=policy.name,
            kind=policy.kind,
            sha=policy.sha,
            data_cutoff=None if policy.data_cutoff is None else time_of(policy.data_cutoff),
            parent=policy.parent,
            metadata=dict(policy.metadata),
            registered_at=time_of(record.registered_at),
        )


class ArmAnswer(Answer):
    """A policy's place in an experiment."""

    policy: str
    policy_sha: str
    kind: PolicyKind
    role: ArmRole
    status: ArmStatus
    status_reason: str
    mode: ArmMode
    traffic_allocation: float = Field(description="Fraction of the order flow.", ge=0, le=1)
    rung: Rung = Field(description="How much has been shown for it: how far it may rise.")
    trades: int
    joined_at: Time

    @classmethod
    def of(cls, record: ArmRecord) -> Self:
        """Return the arm as callers read it."""
        place = record.place
        return cls(
            policy=place.policy,
            policy_sha=record.policy_sha,
            kind=record.policy_kind,
            role=place.role,
            status=place.status,
            status_reason=record.status_reason,
            mode=place.mode,
            traffic_allocation=place.ppm / WHOLE_PPM,
            rung=place.rung,
            trades=place.trades,
            joined_at=time_of(record.joined_at),
        )


class SizingAnswer(Answer):
    """Limits of positions; sizes are fractions of equity."""

    model_config = ConfigDict(from_attributes=True)

    base_position_size: float = Field(description="Nominal size of a trade.")
    max_position_size: float = Field(description="A claim that tells more is refused.")
    max_leverage: float = Field(description="A claim that tells more is refused.")
    max_open_positions: int | None = Field(description="In the account; null: any number.")
    stop_loss_pct: float = Field(description="Fraction of the entry price.")
    take_profit_pct: float = Field(description="Fraction of the entry price.")


class ExperimentAnswer(Answer):
    """An experiment with all its arms, retired ones too."""

    name: str
    champion: str
    capital: Amount
    currency: str
    account: str
    equity_fraction: float
    profile: Profile
    strategy: Strategy
    decision_seconds_valid: float
    epoch: int = Field(description="Rises with every change of who may be routed to.")
    opened_at: Time
    sizing: SizingAnswer | None = Field(description="null: opened without sizing limits.")
    arms: list[ArmAnswer]

    @classmethod
    def of(cls, record: ExperimentRecord) -> Self:
        """Return the experiment as callers read it; its salt stays ours."""
        experiment = record.experiment
        return cls(
            name=experiment.name,
            champion=experiment.champion,
            capital=f"{experiment.capital:f}",
            currency=experiment.currency,
            account=experiment.account_name,
            equity_fraction=experiment.equity_fraction,
            profile=experiment.profile,
            strategy=experiment.strategy,
            decision_seconds_valid=experiment.decision_seconds_valid,
            epoch=record.epoch,
            opened_at=time_of(record.opened_at),
            sizing=None if record.sizing is None else SizingAnswer.model_validate(record.sizing),
            arms=[ArmAnswer.of(arm) for arm in record.arms],
        )


class AssignmentAnswer(Answer):
    """Which arm decides a unit, for ever."""

    assignment_id: Id
    experiment: str
    unit_id: str
    policy: str
    policy_sha: str
    role: ArmRole
    propensity: float = Field(description="Probability with which the arm was chosen.", gt=0, le=1)
    allocation_version: int
    epoch: int
    mode: ArmMode
    size_multiplier: float
    confidence_bump: float
    decided_at: Time
    expires_at: Time
    sizing: SizingAnswer | None = Field(description="null: its experiment has no sizing limits.")


def assignment_values(made: Assignment) -> dict[str, Any]:
    """Return the values of an `AssignmentAnswer`."""
    return {
        "assignment_id": str(made.id),
        "experiment": made.experiment,
        "unit_id": made.unit_id,
        "policy": made.policy,
        "policy_sha": made.policy_sha,
        "role": made.role,
        "propensity": made.propensity,
        "allocation_version": made.allocation_version,
        "epoch": made.epoch,
        "mode": made.mode,
        "size_multiplier": made.size_multiplier,
        "confidence_bump": made.confidence_bump,
        "decided_at": time_of(made.decided_at),
        "expires_at": time_of(made.expires_at),
        "sizing": made.sizing,
    }


class ClaimAnswer(Answer):
    """A decision that may be acted on."""

    assignment_id: Id
    claimed_at: Time = Field(description="When it was claimed first.")


def claim_values(assignment: str, claimed_at: datetime) -> dict[str, str]:
    """Return the values of a `ClaimAnswer`."""
    return {"assignment_id": assignment.lower(), "claimed_at": time_of(claimed_at)}


class OutcomeAnswer(Answer):
    """An outcome in the ledger; the same for every time its body comes."""

    assignment_id: Id
    recorded_at: Time
    expired: bool = Field(description="The position was opened after the decision had expired.")
    unclaimed: bool = Field(description="The position was opened without claiming the decision.")

    @classmethod
    def of(cls, recorded: Recorded) -> Self:
        """Return the outcome as callers read it."""
        return cls(
            assignment_id=str(recorded.assignment_id),
            recorded_at=time_of(recorded.recorded_at),
            **recorded.flags._asdict(),
        )


class RevisionAnswer(OutcomeAnswer):
    """The version of an outcome that counts."""

    revision: int = Field(description="Counted from 1; 0 is what was told first.", ge=0)

    @classmethod
    def of_revised(cls, revised: Revised) -> Self:
        """Return the version as callers read it."""
        return cls(
            assignment_id=str(revised.assignment_id),
            recorded_at=time_of(revised.recorded_at),
            **revised.flags._asdict(),
            revision=revised.revision,
        )


class LineAnswer(Answer):
    """What became of one line of a batch: `outcome` for 201 and 200, else `problem`."""

    line: int = Field(description="Counted from 1.", ge=1)
    status: int
    outcome: OutcomeAnswer | None = None
    problem: Problem | None = None


class AllocationAnswer(Answer):
    """One version of an experiment's weights."""

    version: int
    created_at: Time
    champion: str
    traffic_allocation: dict[str, float]


class DecisionAnswer(Answer):
    """A decision with what it read and its reasons."""

    id: int
    experiment: str
    kind: DecisionKind
    trading_day: Day | None
    decided_at: Time
    actor: str
    reason: str
    profile: Profile
    strategy: Strategy
    seed: int | None
    code_version: str
    inputs: dict[str, Any]
    inputs_digest: str
    reasons: dict[str, Any]
    allocation_version: int | None = Field(description="The version it made, if it made one.")


class NightAnswer(Answer):
    """What a night's scaling did."""

    decision: DecisionAnswer
    actions: list[DecisionAnswer] = Field(
        description="Which arms it throttled, halted, brought back and promoted."
    )
    already_done: bool


class PingAnswer(Answer):
    """The process answers."""

    status: Literal["ok"]


def time_of(moment: datetime) -> str:
    """Return a time as callers read it."""
    return moment.isoformat()
