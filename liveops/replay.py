"""The main job: recorded candles replayed through the service as a paper market.

One opportunity a bar, at its close. The arm the service assigns proposes or declines; positions
stay open for a while, and their outcomes are reported late and out of order. Every step goes
through the use cases that live traffic goes through, with the replay's own time as `now`. Each step
is idempotent, so a replay that was killed takes up its work by starting again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
from sqlalchemy import Engine

from bandit.core.closing import CloseTarget
from bandit.core.errors import BanditError, Expired, Killed, Paused, PositionLimit, Revoked
from bandit.core.model import (
    NIGHT_HOUR,
    Assignment,
    Experiment,
    PolicyName,
    UnitId,
)
from bandit.core.outcomes import Outcome, declined
from bandit.core.shadow import ShadowOutcome, shadow_declined, shadow_trade
from bandit.service import (
    closing,
    experiments,
    guarding,
    ledger,
    policies,
    recording,
    reporting,
    scaling,
    shadowing,
)
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage.decisions import DecisionRecord
from learners.market.paper_market import (
    ClosedPosition,
    open_position,
    reported_at,
    settle,
)
from liveops.connectors.closing import CannotClose
from liveops.connectors.paper_closer import PaperCloser, outcome_of
from liveops.replay_arms import ReplayArm, Wish, rule_arms
from liveops.replay_plan import ACTOR, CAPITAL, COMPLETE, Plan

STOPS_MAX = 16
"""Decisions looked back on for what guards stopped in a day: the demo has four challengers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far the replay is: the bar just decided, and the night's work when there was one.

    `stops` are what the checklist throttled and halted since the night before, `refused` how many
    opportunities a performance guard refused so far; they were followed on paper. `full` is how
    many found no place among the positions that may be open at once; they were declined.
    """

    done: int
    total: int
    at: datetime
    night: scaling.Night | None
    stops: tuple[DecisionRecord, ...]
    refused: int
    full: int


@dataclass(order=True, slots=True)
class _Report:
    """An outcome, or a result on paper, on its way to the service."""

    due: datetime
    unit: str
    outcome: Outcome | ShadowOutcome = field(compare=False)


def is_complete(engine: Engine, plan: Plan) -> bool:
    """Say whether this replay has been driven to its end in this ledger."""
    return ledger.was_noted(engine, action=COMPLETE, subject=plan.experiment)


def replay(engine: Engine, plan: Plan) -> Iterator[Step]:
    """Drive the whole plan, one bar a step; every step ends with everything committed.

    A market whose account is killed is over: nobody is there to release it.
    """
    arms: list[ReplayArm] = [*rule_arms(plan.candles), *plan.learned]
    _open(engine, plan, arms)
    drive = _Drive(engine, plan, arms)
    for done, bar in enumerate(plan.bars, start=1):
        now = plan.candles.closing(bar)
        night = drive.bar(bar, now=now)
        stops = () if night is None else drive.stops()
        yield Step(
            done=done,
            total=len(plan.bars),
            at=now,
            night=night,
            stops=stops,
            refused=drive.refused,
            full=drive.full,
        )
        if drive.is_killed:
            break
    end = drive.report_the_rest()
    ledger.note(
        engine,
        now=end,
        actor=ACTOR,
        action=COMPLETE,
        subject=plan.experiment,
        details={"bars": len(plan.bars), "seed": plan.seed, "candles": plan.candles.digest},
    )


class _Drive:
    """The paper bot: what it knows between two bars."""

    def __init__(self, engine: Engine, plan: Plan, arms: Sequence[ReplayArm]) -> None:
        self._engine = engine
        self._plan = plan
        self._router = Router(engine)
        self._arms = {arm.policy.name: arm for arm in arms}
        self._reports: list[_Report] = []
        self._now = plan.candles.opening(plan.bars.start)
        self._ordered: dict[UUID, CloseTarget] = {}
        self._closer = PaperCloser(
            plan.candles, arm_of=self._arms.__getitem__, notional=_notional(plan), costs=plan.costs
        )
        self.is_killed = False
        self.refused = 0
        self.full = 0
        self._open = 0
        self._told = 0

    def bar(self, bar: int, *, now: datetime) -> scaling.Night | None:
        """Close what is ordered, report what is due, scale when it is night, decide the bar."""
        self._obey()
        self._report_until(now)
        night = self._scale(now) if _begins_night(self._now, now) else None
        self._now = now
        opportunity = Opportunity(
            unit_id=UnitId(f"{now:%Y%m%dT%H%M%SZ}"), instrument=self._plan.candles.instrument
        )
        try:
            (made,) = self._router.assign(self._plan.experiment, [opportunity], now=now)
        except Killed:
            self.is_killed = True
        except Paused as paused:
            self.refused += 1
            self._follow(paused, bar, opportunity.unit_id)
        else:
            self._act(made, bar)
        return night

    def stops(self) -> tuple[DecisionRecord, ...]:
        """Return what guards decided since the last time this was asked."""
        made = reporting.decision_history(self._engine, self._plan.experiment, newest=STOPS_MAX)
        told, self._told = self._told, made[0].id
        return tuple(
            decision
            for decision in reversed(made)
            if decision.id > told and decision.actor == guarding.CHECKLIST_ACTOR
        )

    def report_the_rest(self) -> datetime:
        """Report every position the candles closed; those still open at their end stay open."""
        while self._reports:
            self._now = max(self._now, self._reports[0].due)
            self._report_until(self._now)
        return self._now

    def _act(self, made: Assignment, bar: int) -> None:
        wish = self._arms[made.policy].wish(
            bar, size_multiplier=made.size_multiplier, confidence_bump=made.confidence_bump
        )
        outcome, due = declined(made.id), made.decided_at
        if wish is not None and self._may_open(made):
            self._open += 1
            if made.id in self._ordered:  # where a replay starts again, which was told before
                self._leave(self._ordered[made.id])
                return
            closed = self._closed(bar, wish)
            if closed is None:
                return
            outcome, due = outcome_of(made.id, closed), self._due(bar, closed.closed_at)
        heapq.heappush(self._reports, _Report(due=due, unit=made.unit_id, outcome=outcome))

    def _may_open(self, made: Assignment) -> bool:
        """Claim a decision, and say whether a position is opened on it."""
        sizing = made.sizing
        most = None if sizing is None else sizing.max_open_positions
        # By its own count too: a replay that starts again claims where places are free by now.
        is_full = most is not None and self._open >= most
        try:
            self._router.claim(made.id, now=made.decided_at)
        except PositionLimit:
            is_full = True
        except (Revoked, Expired, Paused):
            pass  # only where a replay starts again: what was claimed then may be revoked since
        self.full += is_full
        return not is_full

    def _follow(self, paused: Paused, bar: int, unit: UnitId) -> None:
        """Let the arm of a refused opportunity trade on paper, as if no guard had spoken."""
        policy = PolicyName(paused.policy)
        wish = self._arms[policy].wish(bar, size_multiplier=1.0, confidence_bump=0.0)
        told, due = shadow_declined(paused.assignment_id, policy), self._now
        if wish is not None:
            closed = self._closed(bar, wish)
            if closed is None:
                return
            told, due = _on_paper(paused, closed), self._due(bar, closed.closed_at)
        heapq.heappush(self._reports, _Report(due=due, unit=unit, outcome=told))

    def _closed(self, bar: int, wish: Wish) -> ClosedPosition | None:
        """Return what becomes of a wish; None where the candles end before."""
        plan, notional = self._plan, _notional(self._plan) * wish.share
        position = open_position(
            plan.candles, bar=bar, proposal=wish.proposal, notional=notional, costs=plan.costs
        )
        return None if position is None else settle(plan.candles, position, left_at=wish.left_at)

    def _obey(self) -> None:
        """Close what has been ordered to be closed since the last bar."""
        for target in closing.ordered(self._engine, self._plan.experiment):
            if target.assignment_id not in self._ordered:
                self._ordered[target.assignment_id] = target
                # What was decided later in the run before this one is closed once it is here.
                if target.decided_at <= self._now and not target.is_closed:
                    self._leave(target)

    def _leave(self, target: CloseTarget) -> None:
        """Report what a position earned that is closed by order, in the place of its own end."""
        try:
            outcome = self._closer.close(target)
        except CannotClose as error:
            closing.failed(
                self._engine,
                target.order_id,
                target.assignment_id,
                reason=str(error),
                now=self._now,
                actor=ACTOR,
            )
            return
        due = target.decided_at
        if outcome.closed_at is not None:
            due = self._due(self._closer.bar_of(target.decided_at), outcome.closed_at)
        self._reports = [report for report in self._reports if report.unit != target.unit_id]
        self._reports.append(_Report(due=due, unit=target.unit_id, outcome=outcome))
        heapq.heapify(self._reports)

    def _due(self, bar: int, closed_at: datetime) -> datetime:
        # One generator a bar: a replay that starts again reports at the same times.
        return reported_at(closed_at, rng=np.random.default_rng([self._plan.seed, bar]))

    def _report_until(self, now: datetime) -> None:
        live: list[Outcome] = []
        paper: list[ShadowOutcome] = []
        while self._reports and self._reports[0].due <= now:
            told = heapq.heappop(self._reports).outcome
            if isinstance(told, Outcome):
                live.append(told)
                self._open -= not told.no_trade
            else:
                paper.append(told)
        for start in range(0, len(live), recording.BATCH_MAX):
            batch = live[start : start + recording.BATCH_MAX]
            _require_taken(recording.record(self._engine, batch, now=now))
        for start in range(0, len(paper), shadowing.BATCH_MAX):
            some = paper[start : start + shadowing.BATCH_MAX]
            _require_taken(shadowing.record(self._engine, some, now=now))

    def _scale(self, now: datetime) -> scaling.Night:
        return scaling.scale(self._engine, self._plan.experiment, now=now, actor=ACTOR)


def _open(engine: Engine, plan: Plan, arms: Sequence[ReplayArm]) -> None:
    opened = plan.candles.opening(plan.bars.start)
    for arm in arms:
        policies.register(engine, arm.policy, now=opened, actor=ACTOR)
    champion, *challengers = (arm.policy.name for arm in arms)
    experiment = Experiment(
        name=plan.experiment,
        champion=champion,
        capital=CAPITAL,
        currency="USD",
        account=plan.experiment,  # another market, perhaps of another year, is no risk of this one
        equity_fraction=plan.equity_fraction,
        profile=plan.profile,
        # A bar's decision is filled at the next bar's open.
        decision_seconds_valid=plan.candles.interval.total_seconds(),
    )
    experiments.open_experiment(
        engine,
        experiment,
        challengers=challengers,
        salt=np.random.default_rng(plan.seed).bytes(32),
        limits=plan.limits,
        loss_limits=plan.loss_limits,
        rules=plan.rules,
        now=opened,
        actor=ACTOR,
    )


def _notional(plan: Plan) -> Decimal:
    return CAPITAL * Decimal(str(plan.equity_fraction))


def _on_paper(paused: Paused, closed: ClosedPosition) -> ShadowOutcome:
    return shadow_trade(
        paused.assignment_id,
        PolicyName(paused.policy),
        return_ratio=closed.return_ratio,
        opened_at=closed.opened_at,
        closed_at=closed.closed_at,
    )


def _require_taken(answers: Sequence[object]) -> None:
    for answer in answers:
        if isinstance(answer, BanditError):
            raise answer


def _begins_night(before: datetime, now: datetime) -> bool:
    """Say whether the hour of scaling lies after `before` and not after `now`."""
    tonight = now.astimezone(UTC).replace(hour=NIGHT_HOUR, minute=0, second=0, microsecond=0)
    if tonight > now:
        tonight -= timedelta(days=1)
    return before < tonight
