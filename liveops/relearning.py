"""Challengers made by recipe: once because a person asked, and anew because they aged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from bandit.core.backtest import BacktestRule
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicyName, PolicySha
from bandit.core.tunables import parsed_parameters
from bandit.service import learner_jobs
from config.settings import Settings
from learners.boosting_plan import BoostingPlan
from learners.challenger import ChallengerPlan
from learners.classifier_plan import ClassifierPlan, EncoderPlan
from learners.market.candles import Candles, load_candles, shipped_candles
from learners.market.features import FeatureSpec
from learners.network import Algorithm
from learners.training_events import TrainingEvent
from learners.training_plan import TrainingPlan
from learners.tuned_plan import tuned_plan
from liveops.candle_import import candle_store, stored_candles
from liveops.learning import ENVIRONMENT, Learned, learn
from liveops.recipes import Learner, Recipe
from liveops.wiring import App, acting_rules_of


def candles_of(
    settings: Settings,
    files: Sequence[Path],
    instruments: Sequence[str],
    *,
    source: str | None,
    interval: str | None,
) -> list[Candles]:
    """Return the candles that the options of a command name; the shipped ones for none."""
    if instruments and files:
        rule = "must not go with --candles"
        raise InvalidInput(field="--instrument", rule=rule, found=instruments[0])
    if instruments:
        store = candle_store(settings)
        return stored_candles(store, instruments, source=source, interval=interval)
    for option, given in (("--source", source), ("--interval", interval)):
        if given is not None:
            raise InvalidInput(field=option, rule="must go with --instrument", found=given)
    if not files:
        return [shipped_candles()]
    return [load_candles(file, instrument=None, allow_gaps=True) for file in files]


def recipe_candles(settings: Settings, recipe: Recipe) -> list[Candles]:
    """Return the candles that there are now of those that a recipe names."""
    asked = recipe.arguments()
    return candles_of(
        settings,
        asked["candles"] or [],
        asked.get("instruments") or [],
        source=asked.get("source"),
        interval=asked.get("interval"),
    )


def known_before(series: Sequence[Candles], day: date) -> list[Candles]:
    """Return the bars that were complete when a day began, the same whenever in it this is asked.

    >>> [found] = known_before([shipped_candles()], date(2018, 1, 1))
    >>> found.closing(len(found) - 1).isoformat()
    '2018-01-01T00:00:00+00:00'
    """
    start = np.datetime64(day, "us")
    found = []
    for candles in series:
        closed = candles.opened_at + np.timedelta64(candles.interval)
        found.append(candles.until(int(np.searchsorted(closed, start, side="right"))))
    return found


def training_of(
    recipe: Recipe, settings: Settings, *, refreshed: PolicySha | None = None
) -> TrainingPlan | ClassifierPlan:
    """Return the training that a recipe asks for, under the settings in force.

    `refreshed` is the encoder that a classifier goes on from. Raises `InvalidInput` for an
    algorithm that is not known.
    """
    asked = recipe.options
    if recipe.learner is Learner.AGENT:
        known = [member.value for member in Algorithm]
        if asked["algorithm"] not in known:
            rule = f"must be one of {', '.join(known)}"
            raise InvalidInput(field="--algorithm", rule=rule, found=asked["algorithm"])
        return TrainingPlan(
            algorithm=Algorithm(asked["algorithm"]),
            seed=asked["seed"],
            total_steps=asked["steps"],
            deadline_seconds=asked["deadline"],
        )
    model, wanted = settings.model, asked.get("with_forest")
    wants_forest = model.use_ensemble if wanted is None else wanted
    weight = model.ensemble_xgb_weight if wants_forest else 0.0
    named = {"horizon_bars": asked.get("horizon"), "epochs": asked.get("epochs")}
    return ClassifierPlan(
        seed=asked["seed"],
        encoder=EncoderPlan() if asked["with_encoder"] else None,
        forest=BoostingPlan() if weight else None,
        forest_weight=weight,
        refreshed=refreshed,
        deadline_seconds=asked["deadline"],
        **{name: value for name, value in named.items() if value is not None},
    )


def recipe_plan(
    recipe: Recipe,
    settings: Settings,
    series: Sequence[Candles],
    *,
    refreshed: PolicySha | None = None,
) -> ChallengerPlan:
    """Return how a recipe makes a challenger of these candles, and measures it."""
    training = training_of(recipe, settings, refreshed=refreshed)
    return plan_of(settings, training, recipe.options, series)


def plan_of(
    settings: Settings,
    training: TrainingPlan | ClassifierPlan,
    asked: Mapping[str, Any],
    series: Sequence[Candles],
) -> ChallengerPlan:
    """Return the plan that the options of a recipe ask for, tuned where they say so."""
    plan = ChallengerPlan(
        features=FeatureSpec(interval=series[0].interval),
        environment=ENVIRONMENT,
        training=training,
        acting=acting_rules_of(
            settings, confidence_min=asked["confidence"], allow_ranging=asked["allow_ranging"]
        ),
        train_bars=asked["train_bars"],
        test_bars=asked["test_bars"],
    )
    return tuned_plan(plan, parsed_parameters(asked.get("tuned") or []), series)


def learn_by(
    app: App,
    recipe: Recipe,
    name: PolicyName,
    *,
    plan: ChallengerPlan,
    series: Sequence[Candles],
    parent: PolicyName | None,
    report: Callable[[TrainingEvent], None],
    actor: str,
) -> Learned:
    """Make a challenger as a recipe says, and keep the recipe; raises as `learn`."""
    learned = learn(
        app,
        name=name,
        family=recipe.options["family"],
        plan=plan,
        series=series,
        rule=BacktestRule(),
        parent=parent,
        report=report,
        actor=actor,
    )
    learner_jobs.keep_recipe(app.engine, name, recipe.to_json(), now=app.clock.now())
    return learned
