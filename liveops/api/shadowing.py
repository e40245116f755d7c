"""Routes that tell what arms would have earned on decisions, whoever took them."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.model import PolicyName
from bandit.core.paper_fills import PaperTrade, Side, paper_fill
from bandit.core.shadow import ShadowOutcome, ShadowSource, shadow_declined, shadow_trade
from bandit.service import shadowing
from bandit.service.shadowing import RecordedShadow
from liveops.api.answers import Answer, Time, time_of
from liveops.api.answers import Id as IdText
from liveops.api.batches import NDJSON, answered, batch_of, batch_schema, entries_of
from liveops.api.bodies import (
    Body,
    Id,
    Instant,
    Money,
    Ratio,
    Reference,
    body_of,
    given,
    read,
    schema_of,
)
from liveops.api.parameters import Application
from liveops.api.problems import Problem, declared, problem_of
from liveops.api.strict_json import parse

router = APIRouter(prefix="/v1", responses=declared(503))


class NewPaperTrade(Body):
    """A proposal and the market prices it is held against, before slippage."""

    side: Annotated[Side, Field(strict=False)]
    entry_price: Money
    exit_price: Money
    size: Money
    fee_bps: Ratio = Field(description="Fee of each fill, in basis points of its value.")
    slippage_bps: Ratio = Field(description="How far each fill slips against the trade.")


class NewShadowOutcome(Body):
    """What an arm would have earned; `return` or `paper`, and both times, unless `no_trade`."""

    assignment_id: Id
    policy: Reference
    no_trade: bool = Field(default=False, description="It would have declined: nothing else.")
    return_: Ratio | None = Field(
        default=None, alias="return", description="Net result over the notional at entry."
    )
    paper: NewPaperTrade | None = Field(
        default=None, description="Instead of `return`: the service works it out."
    )
    opened_at: Instant | None = None
    closed_at: Instant | None = None

    def outcome(self) -> ShadowOutcome:
        """Return the checked result; raises `InvalidInput` naming the field and the rule."""
        policy = PolicyName(self.policy)
        if self.no_trade:
            for name in ("return_", "paper", "opened_at", "closed_at"):
                if getattr(self, name) is not None:
                    field, rule = name.removesuffix("_"), "must be left out when no_trade is true"
                    raise InvalidInput(field=field, rule=rule, found=getattr(self, name))
            return shadow_declined(self.assignment_id, policy)
        earned, source = self._earned()
        return shadow_trade(
            self.assignment_id,
            policy,
            return_ratio=earned,
            opened_at=given(self.opened_at, "opened_at"),
            closed_at=given(self.closed_at, "closed_at"),
            source=source,
        )

    def _earned(self) -> tuple[Decimal, ShadowSource]:
        if self.paper is None:
            return given(self.return_, "return"), ShadowSource.REPORTED
        if self.return_ is not None:
            rule = "must be left out where paper is told"
            raise InvalidInput(field="return", rule=rule, found=self.return_)
        told = PaperTrade(**{name: getattr(self.paper, name) for name in PaperTrade.__slots__})
        return paper_fill(told).return_ratio, ShadowSource.PAPER


class ShadowAnswer(Answer):
    """A result on paper in the ledger; the same for every time its body comes."""

    assignment_id: IdText
    policy: str
    source: ShadowSource
    return_: float = Field(serialization_alias="return")
    recorded_at: Time

    @classmethod
    def of(cls, recorded: RecordedShadow) -> Self:
        """Return the result as callers read it."""
        told = recorded.outcome
        return cls(
            assignment_id=str(told.assignment_id),
            policy=told.policy,
            source=told.source,
            return_=float(told.return_ratio),
            recorded_at=time_of(recorded.recorded_at),
        )


class ShadowLineAnswer(Answer):
    """What became of one line of a batch: `outcome` for 201 and 200, else `problem`."""

    line: int = Field(description="Counted from 1.", ge=1)
    status: int
    outcome: ShadowAnswer | None = None
    problem: Problem | None = None


@router.post(
    "/shadow-outcomes",
    status_code=201,
    openapi_extra=schema_of(NewShadowOutcome),
    responses=declared(400, 404, 409, 413, 415, 422)
    | {200: {"description": "Recorded before, with the same body", "model": ShadowAnswer}},
)
def record_shadow_outcome(
    app: Application,
    body: Annotated[NewShadowOutcome, Depends(body_of(NewShadowOutcome))],
    response: Response,
) -> ShadowAnswer:
    """Tell what an arm would have earned on a decision; again with the same body answers 200."""
    (answer,) = shadowing.record(app.engine, [body.outcome()], now=app.clock.now())
    if isinstance(answer, BanditError):
        raise answer
    response.status_code = 201 if answer.created else 200
    return ShadowAnswer.of(answer)


@router.post(
    "/shadow-outcomes/batch",
    openapi_extra=batch_schema(NewShadowOutcome),
    response_model=list[ShadowLineAnswer],
    responses=declared(400, 413, 415, 422)
    | {200: {"description": "One result per line, in order", "content": {NDJSON: {}}}},
)
def record_shadow_batch(
    app: Application, batch: Annotated[tuple[str, bytes], Depends(batch_of)]
) -> Response:
    """Tell up to 1000 of them; a line at fault gets its problem and takes no other with it."""
    entries = entries_of(batch, of_line=_of_line, of_value=_of_value)
    lawful = [entry for entry in entries if isinstance(entry, ShadowOutcome)]
    now = app.clock.now()
    recorded = iter(shadowing.record(app.engine, lawful, now=now) if lawful else ())
    answers = [next(recorded) if isinstance(entry, ShadowOutcome) else entry for entry in entries]
    return answered(batch, [_line(number, made) for number, made in enumerate(answers, start=1)])


def _of_line(line: bytes) -> ShadowOutcome | BanditError:
    try:
        return read(NewShadowOutcome, parse(line)).outcome()
    except InvalidInput as error:
        return error


def _of_value(value: object) -> ShadowOutcome | BanditError:
    try:
        return read(NewShadowOutcome, value).outcome()
    except InvalidInput as error:
        return error


def _line(number: int, answer: RecordedShadow | BanditError) -> str:
    if isinstance(answer, BanditError):
        problem = problem_of(answer)
        made = ShadowLineAnswer(line=number, status=problem.status, problem=problem)
    else:
        status = 201 if answer.created else 200
        made = ShadowLineAnswer(line=number, status=status, outcome=ShadowAnswer.of(answer))
    return made.model_dump_json(exclude_none=True, by_alias=True)
