"""The challengers that `liveops run` trains on the bars before those that it replays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bandit.core.acting import ActingRules
from bandit.core.backtest import BacktestRule
from bandit.core.errors import InvalidInput
from bandit.core.model import Policy, PolicyName
from bandit.service import learner_jobs
from learners.artifact import read
from learners.challenger import ChallengerPlan
from learners.classifier_plan import ClassifierPlan, EncoderPlan
from learners.market.candles import Candles
from learners.market.features import FeatureSpec
from learners.network import Algorithm
from learners.opportunities import OpportunityTaker
from learners.training_events import TrainingEvent
from learners.training_plan import TrainingPlan
from liveops.deciders import artifact_home
from liveops.learning import ENVIRONMENT, Learned, learn, made_before, subject_of
from liveops.recipes import Learner, Recipe
from liveops.replay_arms import LearnedArm
from liveops.replay_plan import ACTOR
from liveops.wiring import App, acting_rules_of

FAMILY: Final = "demo"
AGENT: Final = TrainingPlan(
    algorithm=Algorithm.DQN, seed=1, total_steps=100_000, deadline_seconds=60.0
)
CLASSIFIER: Final = ClassifierPlan(
    seed=1, encoder=EncoderPlan(epochs=3), epochs=8, deadline_seconds=60.0
)
TRAININGS: Final = (AGENT, CLASSIFIER)
"""A fraction of what `liveops learn` takes: each is to be made and measured within a minute."""

RETRAINING_SECONDS: Final = 600.0
"""What one training may take when a challenger of the demo is made anew."""

BARS_MIN: Final = 2_000
_TRAIN_BARS_MAX = 8_000


def trained_arm(
    app: App,
    candles: Candles,
    bars: range,
    training: TrainingPlan | ClassifierPlan,
    *,
    file: Path | None,
    begin: Callable[[PolicyName], None],
    report: Callable[[TrainingEvent], None],
) -> tuple[LearnedArm, Learned | None]:
    """Return a challenger that has seen no bar of `bars`, and how it was made if it was made now.

    One that was made before is taken as it is; `begin` hears the name of one that is not. `file` is
    where the candles came from, None for the shipped ones: there it is made anew from later. Raises
    `InvalidInput` where too few bars come before, `ArtifactRefused` for one that was changed since,
    and as `learn`.
    """
    if bars.start < BARS_MIN:
        rule = f"must have {BARS_MIN:,} bars before those that are replayed, to train on"
        raise InvalidInput(field="candles", rule=rule, found=f"{bars.start:,}")
    series = [candles.until(bars.start)]
    plan = _plan(candles, bars, training, rules=acting_rules_of(app.settings))
    subject = subject_of(plan, series, family=FAMILY)
    kind = training.algorithm.value if isinstance(training, TrainingPlan) else "tabnet"
    name = PolicyName(f"{kind}-{subject.trial_id()[:8]}")
    policy, learned = made_before(app, name, subject), None
    if policy is None:
        begin(name)
        learned = learn(
            app,
            name=name,
            family=FAMILY,
            plan=plan,
            series=series,
            rule=BacktestRule(),
            report=report,
            actor=ACTOR,
        )
        policy = learned.policy
    recipe = _recipe(plan, file=file)
    learner_jobs.keep_recipe(app.engine, policy.name, recipe.to_json(), now=app.clock.now())
    return _arm(app, policy, candles, rules=plan.acting), learned


def _plan(
    candles: Candles,
    bars: range,
    training: TrainingPlan | ClassifierPlan,
    *,
    rules: ActingRules,
) -> ChallengerPlan:
    # In the market of the replay, which has no funding; the whole within a minute.
    train_bars = min(_TRAIN_BARS_MAX, bars.start // 2)
    return ChallengerPlan(
        features=FeatureSpec(interval=candles.interval),
        environment=replace(ENVIRONMENT, funding_ratio=0.0),
        training=training,
        acting=rules,
        train_bars=train_bars,
        test_bars=train_bars // 4,
    )


def _recipe(plan: ChallengerPlan, *, file: Path | None) -> Recipe:
    """Return the command of `liveops learn` that makes such a challenger of all bars there are."""
    training = plan.training
    candles = None if file is None else [file]
    shared: dict[str, Any] = {
        "instruments": None,
        "source": None,
        "interval": None,
        "seed": training.seed,
        "deadline": RETRAINING_SECONDS,
        "train_bars": plan.train_bars,
        "test_bars": plan.test_bars,
        "confidence": None,
        "allow_ranging": None,
        "family": FAMILY,
    }
    if isinstance(training, TrainingPlan):
        algorithm, steps = training.algorithm.value, training.total_steps
        return Recipe.of(Learner.AGENT, candles=candles, algorithm=algorithm, steps=steps, **shared)
    return Recipe.of(
        Learner.CLASSIFIER,
        candles=candles,
        horizon=training.horizon_bars,
        epochs=training.epochs,
        with_encoder=True,
        **shared,
    )


def learned_arm(app: App, policy: Policy, candles: Candles) -> LearnedArm:
    """Return a challenger that was made before, on the candles that it is to decide on.

    Raises `ArtifactRefused` for one that is gone or was changed since.
    """
    return _arm(app, policy, candles, rules=acting_rules_of(app.settings))


def _arm(app: App, policy: Policy, candles: Candles, *, rules: ActingRules) -> LearnedArm:
    artifact = read(artifact_home(app.settings), policy.sha)
    return LearnedArm(policy=policy, taker=OpportunityTaker(artifact, candles, rules=rules))
