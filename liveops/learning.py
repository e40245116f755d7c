"""Challengers made by learning: trained, measured, written down, and registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bandit.core.backtest import (
    BacktestMetrics,
    BacktestRule,
    BacktestTrial,
    TrialSubject,
    judged,
    verdict_of,
)
from bandit.core.errors import Conflict, UnknownName
from bandit.core.model import Policy, PolicyKind, PolicyName, Verdict, checked_name
from bandit.service import data_runs, policies, trials
from config.settings import Settings
from learners import fitting, reinforcement
from learners.artifact import Artifact
from learners.backtest import Backtest, measure
from learners.card_page import page_of
from learners.challenger import ChallengerPlan, data_digest
from learners.classifier_plan import ClassifierPlan
from learners.environment_spec import EnvironmentSpec
from learners.installed import versions
from learners.market.candles import Candles
from learners.market.paper_market import PERPETUAL_TAKER
from learners.policy_card import CardEntries, PolicyCard, card_of
from learners.sealed_files import forget_parts
from learners.training_events import (
    DeadlinePassed,
    ForecastTooLong,
    TrainingEvent,
    TrainingFailed,
)
from learners.workshop import Walked, Workshop
from liveops.clock import monotonic
from liveops.deciders import artifact_home
from liveops.ledger_server import state_home
from liveops.whole_files import write_whole
from liveops.wiring import App

ENVIRONMENT = EnvironmentSpec(
    costs=PERPETUAL_TAKER,
    stop_ratio=0.02,
    take_profit_ratio=0.03,
    holding_bars_max=24,
    shorts_allowed=True,
    position_ratio=0.5,
    funding_ratio=0.0001,
    episode_bars=240,
    equity_ratio_min=0.5,
)
"""The market that agents are trained in: the exits and costs of the demo, funding of 1 bp."""

PARTS_KEPT = timedelta(days=1)
"""How long half-written files stay: nobody writes for so long, nor do clocks differ by so much."""

NOT_MODELLED = ("Smaller sizes in volatile markets: every trade counts at its nominal size.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A challenger that was made: its policy, its card, where the files lie, what it measured."""

    policy: Policy
    card: PolicyCard
    page: Path
    artifact: Path
    is_new: bool
    metrics: BacktestMetrics
    walked: Walked

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "policy": self.policy.name,
            "sha": self.policy.sha,
            "verdict": self.card.verdict.value,
            "headline": self.card.headline,
            "trial": self.card.subject.trial,
            "page": str(self.page),
            "artifact": str(self.artifact),
            "new": self.is_new,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """A challenger that is made and not yet known: what it was, did, and is, since when."""

    plan: ChallengerPlan
    workshop: Workshop
    walked: Walked
    artifact: Artifact
    began: datetime


def learn(
    app: App,
    *,
    name: PolicyName,
    family: str,
    plan: ChallengerPlan,
    series: Sequence[Candles],
    rule: BacktestRule,
    report: Callable[[TrainingEvent], None],
    actor: str,
    parent: PolicyName | None = None,
) -> Learned:
    """Make a challenger from candles, and register it.

    It is measured walking forward and recorded as a trial, whatever comes of it; then trained on
    the newest bars and stored below `home`. Made again, only its card changes: that counts all
    trials made since. `parent` is the policy that it was made anew of.

    Raises `Conflict` where the name belongs to another policy, or the policy has another name,
    `DataPaused` while candles are rolled back, `ExtraMissing` where nothing that trains is
    installed, `InvalidInput` for candles that are too few, and as `learners.reinforcement.train`.
    """
    data_runs.require_whole(app.engine)
    versions(_packages(plan))  # or nothing is begun
    subject = subject_of(plan, series, family=family)
    checked_name(name)
    _require_free(app, name, subject)
    began = app.clock.now()
    workshop = _workshop(app, plan, series, report=report)
    try:
        walked = workshop.walked()
        artifact = workshop.newest(artifact_home(app.settings))
    except (DeadlinePassed, ForecastTooLong, TrainingFailed) as error:
        record_failure(app, subject, str(error), began=began, actor=actor)
        raise
    made = Made(plan=plan, workshop=workshop, walked=walked, artifact=artifact, began=began)
    return enrolled(
        app, name=name, subject=subject, made=made, rule=rule, actor=actor, parent=parent
    )


def enrolled(
    app: App,
    *,
    name: PolicyName,
    subject: TrialSubject,
    made: Made,
    rule: BacktestRule,
    actor: str,
    parent: PolicyName | None = None,
) -> Learned:
    """Record the trial of a challenger that was made, write its card, and register it."""
    plan, walked, workshop, artifact = made.plan, made.walked, made.workshop, made.artifact
    trial, backtest = recorded(
        app, subject, plan=plan, walked=walked, rule=rule, began=made.began, actor=actor
    )
    card = card_of(
        name,
        trial,
        backtest,
        search=trials.searched(app.engine, trial),
        rule=rule,
        markets=walked.markets,
        feature_names=workshop.markets[0].features.names,
        folds=len(workshop.splits),
        not_modelled=NOT_MODELLED,
        now=app.clock.now(),
        entries=CardEntries(confidence_min=plan.acting.confidence_min, **asdict(walked.entries)),
        looks=_looks(artifact),
    )
    policy, is_new = _registered(app, card, artifact, parent=parent, actor=actor)
    return Learned(
        policy=policy,
        card=card,
        page=_written(app, card, artifact),
        artifact=artifact_home(app.settings) / artifact.sha,
        is_new=is_new,
        metrics=backtest.metrics,
        walked=walked,
    )


def recorded(
    app: App,
    subject: TrialSubject,
    *,
    plan: ChallengerPlan,
    walked: Walked,
    rule: BacktestRule,
    began: datetime,
    actor: str,
) -> tuple[BacktestTrial, Backtest]:
    """Measure what a challenger did on bars it had not seen, and record it as a trial, once."""
    backtest = measure(
        walked.markets,
        walked.trades,
        fee_ratio=plan.environment.costs.fee_ratio,
        slippage_ratio=plan.environment.costs.slippage_ratio,
        rng=np.random.default_rng(plan.training.seed),
    )
    judgement = _judged(app, subject, backtest, rule=rule, began=began)
    return _record(app, judgement, actor=actor), backtest


def record_failure(
    app: App, subject: TrialSubject, reason: str, *, began: datetime, actor: str
) -> None:
    """Record a trial that came to nothing: it was tried all the same."""
    ended = app.clock.now()
    failed = BacktestTrial(
        subject=subject,
        started_at=began,
        finished_at=ended,
        metrics=None,
        verdict=Verdict.FAIL,
        failure=reason[:1000],
    )
    _record(app, failed, actor=actor)


def _workshop(
    app: App,
    plan: ChallengerPlan,
    series: Sequence[Candles],
    *,
    report: Callable[[TrainingEvent], None],
) -> Workshop:
    folder = training_folder(app.settings, now=app.clock.now())
    return Workshop(plan, series, folder=folder, clock=monotonic, report=report)


def training_folder(settings: Settings, *, now: datetime) -> Path:
    """Return where trainings lie, rid of what runs that were killed left half-written."""
    folder = state_home(settings) / "training"
    for written in (folder, artifact_home(settings)):
        forget_parts(written, before=now - PARTS_KEPT)
    return folder


def subject_of(plan: ChallengerPlan, series: Sequence[Candles], *, family: str) -> TrialSubject:
    """Return what `learn` would try, under which its trial is recorded."""
    return TrialSubject(
        family=family,
        kind=_kind(plan),
        spec=plan.digest,
        data=data_digest(series),
        features=plan.features.digest,
        window_first=min(candles.opening(0) for candles in series),
        window_last=max(candles.closing(len(candles) - 1) for candles in series),
        seed=plan.training.seed,
        steps=plan.training.steps,
    )


def _looks(artifact: Artifact) -> dict[str, float]:
    reference = artifact.reference
    if reference is None or reference.importance is None:
        return {}
    found = reference.importance
    return dict(zip(found.names, found.parts.tolist(), strict=True))


def _packages(plan: ChallengerPlan) -> tuple[str, ...]:
    is_classifier = isinstance(plan.training, ClassifierPlan)
    return fitting.PACKAGES if is_classifier else reinforcement.PACKAGES


def _kind(plan: ChallengerPlan) -> PolicyKind:
    if not isinstance(plan.training, ClassifierPlan):
        return PolicyKind.REINFORCEMENT
    return PolicyKind.TABNET if plan.training.forest is None else PolicyKind.ENSEMBLE


def made_before(app: App, name: PolicyName, subject: TrialSubject) -> Policy | None:
    """Return the policy of this name, if `learn` made it of this subject."""
    try:
        held = policies.find(app.engine, name).policy
    except UnknownName:
        return None
    is_this = held.name == name and held.metadata.get("trial") == subject.trial_id()
    return held if is_this else None


def _require_free(app: App, name: PolicyName, subject: TrialSubject) -> None:
    """Refuse what could not be registered, before an hour of training."""
    trial = subject.trial_id()
    for held in (record.policy for record in policies.listed(app.engine)):
        if held.name == name and held.metadata.get("trial") != trial:
            rule = "made otherwise; a policy never changes"
            raise Conflict(f"policy {name!r} is another one, {rule}")
        if held.name != name and held.metadata.get("trial") == trial:
            rule = "asked for in the same way, of the same candles"
            raise Conflict(f"policy {held.name!r} is this one already: {rule}")


def _judged(
    app: App, subject: TrialSubject, backtest: Backtest, *, rule: BacktestRule, began: datetime
) -> BacktestTrial:
    trial = BacktestTrial(
        subject=subject,
        started_at=began,
        finished_at=app.clock.now(),
        metrics=backtest.metrics,
        verdict=Verdict.INCONCLUSIVE,
    )
    reasons = judged(
        backtest.metrics,
        buy_and_hold=backtest.buy_and_hold.total_return,
        search=trials.searched(app.engine, trial),
        rule=rule,
    )
    return replace(trial, verdict=verdict_of(reasons))


def _record(app: App, trial: BacktestTrial, *, actor: str) -> BacktestTrial:
    stored, _ = trials.record(app.engine, trial, now=app.clock.now(), actor=actor)
    return stored


def _registered(
    app: App, card: PolicyCard, artifact: Artifact, *, parent: PolicyName | None, actor: str
) -> tuple[Policy, bool]:
    policy = Policy(
        name=PolicyName(card.policy),
        kind=card.subject.kind,
        sha=artifact.sha,
        data_cutoff=artifact.spec.training.data_to,
        parent=parent,
        metadata={"artifact": dict(artifact.manifest), "trial": card.subject.trial},
    )
    _, is_new = policies.register(app.engine, policy, now=app.clock.now(), actor=actor)
    return policy, is_new


def _written(app: App, card: PolicyCard, artifact: Artifact) -> Path:
    """Write the card as JSON and as a page; return where the page lies."""
    cards = state_home(app.settings) / "cards"
    cards.mkdir(exist_ok=True)
    write_whole(cards / f"{artifact.sha}.json", card.to_json())
    page = cards / f"{artifact.sha}.md"
    write_whole(page, page_of(card).encode())
    return page
