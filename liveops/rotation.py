"""Models made anew: who is due, what is trained, what it has to show, and where it goes (G6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from bandit.core.errors import BanditError, InvalidInput
from bandit.core.model import PolicyName, Verdict
from bandit.core.rotation import (
    Contest,
    Placing,
    RotationRule,
    gates,
    is_due,
    successor_names,
    triggers,
)
from bandit.core.verdicts import Reason, overall
from bandit.service import policies, rotating
from bandit.service.rotating import ModelRecord
from bandit.storage.locks import LockClass, leased
from bandit.storage.rotations import Rotation
from config.settings import Settings
from learners.artifact import read
from learners.challenger import ChallengerPlan
from learners.contest import contest
from learners.market.candles import Candles
from learners.sealed_files import ArtifactRefused
from learners.training_events import TrainingEvent
from liveops.deciders import artifact_home
from liveops.learning import Learned, subject_of
from liveops.recipes import Recipe
from liveops.relearning import known_before, learn_by, recipe_candles, recipe_plan
from liveops.wiring import App


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """A model on a day: its triggers, and what is done about it.

    `series` are the candles that it would learn from; `why_not` says why nothing is done, None
    where it is made anew, and `done` is what was made of it on that day already.
    """

    record: ModelRecord
    recipe: Recipe
    triggers: tuple[Reason, ...]
    new: PolicyName
    series: tuple[Candles, ...]
    why_not: str | None
    done: Rotation | None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "policy": self.record.model.policy,
            "experiments": list(self.record.experiments),
            "triggers": [reason.to_json() for reason in self.triggers],
            "new": self.new,
            "why_not": self.why_not,
            "done": None if self.done is None else self.done.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A model that could not be made anew, and why."""

    policy: PolicyName
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {"policy": self.policy, "reason": self.reason}


def rotation_rule_of(settings: Settings) -> RotationRule:
    """Return when models are due here, and what the next ones must show."""
    chosen = settings.operations.model_rotation
    return RotationRule(
        age_max=timedelta(days=chosen.retrain_frequency_days),
        win_rate_min=chosen.min_win_rate,
        sharpe_min=chosen.min_sharpe_ratio,
        profit_factor_min=chosen.min_profit_factor,
        drawdown_max_percent=100.0 * chosen.max_drawdown_threshold,
        trades_min=chosen.min_trades,
        outperforms=chosen.require_outperformance,
    )


def planned(app: App, *, day: date, symbols: Sequence[str]) -> list[ModelPlan]:
    """Say of every model what a day does about it; `symbols` leaves those of others alone.

    It learns from bars that had closed when the day began, so that the day makes the same whenever
    it is asked. Of models that one training would make anew, the first is, and the others are left
    alone. Raises `InvalidInput` for a symbol that no model trades.
    """
    records = rotating.models(app.engine, day=day)
    known = {record.model.policy: _candles(app, record, day=day) for record in records}
    traded = {candles.instrument for each in known.values() for candles in each or ()}
    for symbol in symbols:
        if symbol not in traded:
            rule = f"must be traded by a model: {', '.join(sorted(traded)) or 'there is none'}"
            raise InvalidInput(field="--symbols", rule=rule, found=symbol)
    named = _named(app, records, day=day)
    found = _once_each(
        app,
        [
            _planned(
                app, record, known[record.model.policy], new=named[record.model.policy], day=day
            )
            for record in records
        ],
    )
    if not symbols:
        return found
    return [p for p in found if {candles.instrument for candles in p.series} & set(symbols)]


def _candles(app: App, record: ModelRecord, *, day: date) -> tuple[Candles, ...] | None:
    """Return the bars that a model would learn from; None where they are gone."""
    try:
        series = recipe_candles(app.settings, Recipe.from_json(record.recipe))
        return tuple(known_before(series, day))
    except (BanditError, OSError):
        return None


def _named(app: App, records: Sequence[ModelRecord], *, day: date) -> dict[PolicyName, PolicyName]:
    """Name what the day makes of every model, also of those that are left alone today."""
    held = {record.policy.name: record.policy for record in policies.listed(app.engine)}
    return successor_names(
        {record.model.policy: held[record.model.policy].sha for record in records},
        day,
        taken={name: policy.parent for name, policy in held.items()},
    )


def _planned(
    app: App,
    record: ModelRecord,
    series: tuple[Candles, ...] | None,
    *,
    new: PolicyName,
    day: date,
) -> ModelPlan:
    reasons = triggers(record.model, rule=rotation_rule_of(app.settings), now=app.clock.now())
    name = record.model.policy
    done = rotating.done(app.engine, day=day, policy=name)
    why_not = record.left_alone
    if done is not None:
        why_not = f"made anew on this day already, as {done.new}"
    elif series is None:
        why_not = "the candles that it was made from are not there, or none is that old"
    elif why_not is None and not is_due(reasons):
        why_not = "not due"
    elif why_not is None and series[0].closing(len(series[0]) - 1) <= record.model.knows_until:
        why_not = "there are no newer bars than it knows"
    return ModelPlan(
        record=record,
        recipe=Recipe.from_json(record.recipe),
        triggers=reasons,
        new=new,
        series=series or (),
        why_not=why_not,
        done=done,
    )


def _once_each(app: App, plans: Sequence[ModelPlan]) -> list[ModelPlan]:
    """Leave those alone whose training is that of one before them, or was done under a name."""
    listed = [record.policy for record in policies.listed(app.engine)]
    known = {str(held.metadata["trial"]): held.name for held in listed if "trial" in held.metadata}
    found = []
    for plan in plans:
        trial = None if plan.why_not is not None else _trial_of(app, plan)
        same = plan.new if trial is None else known.setdefault(trial, plan.new)
        why_not = plan.why_not if same == plan.new else f"made anew as {same}, of the same recipe"
        found.append(replace(plan, why_not=why_not))
    return found


def _trial_of(app: App, plan: ModelPlan) -> str | None:
    """Return the trial that making a model anew would be; None where it is told why it cannot."""
    recipe = plan.recipe
    try:
        made_by = recipe_plan(recipe, app.settings, plan.series)
        return subject_of(made_by, plan.series, family=recipe.options["family"]).trial_id()
    except BanditError:
        return None


def rotated(
    app: App,
    *,
    day: date,
    symbols: Sequence[str],
    report: Callable[[TrainingEvent], None],
    actor: str,
) -> tuple[list[ModelPlan], list[Rotation], list[Failed]]:
    """Make every model anew that is due on a day: what was planned, made, and what failed.

    One process at a time: two would train in the same folders. Raises `LockHeldElsewhere` while
    another does it, and as `planned`.
    """
    made: list[Rotation] = []
    failed: list[Failed] = []
    with leased(app.engine, LockClass.ROTATION, 0, doing="rotation") as require_lease:
        plans = planned(app, day=day, symbols=symbols)
        for plan in plans:
            if plan.why_not is not None:
                continue
            try:
                made.append(
                    rotate(
                        app,
                        plan,
                        day=day,
                        require_lease=require_lease,
                        report=report,
                        actor=actor,
                    )
                )
            except BanditError as error:
                failed.append(Failed(policy=plan.record.model.policy, reason=str(error)))
    return plans, made, failed


def rotate(
    app: App,
    plan: ModelPlan,
    *,
    day: date,
    require_lease: Callable[[], None],
    report: Callable[[TrainingEvent], None],
    actor: str,
) -> Rotation:
    """Make a model anew, hold it against its gates, and give it its place; all of it once a day.

    `require_lease` raises where another process may be at it; it is asked at each step of the
    training, which writes in a folder that both would share. Raises as `learn`, and as that.
    """

    def heard(event: TrainingEvent) -> None:
        require_lease()
        report(event)

    require_lease()
    present = plan.record.model.policy
    made_by = recipe_plan(plan.recipe, app.settings, plan.series)
    learned = learn_by(
        app,
        plan.recipe,
        plan.new,
        plan=made_by,
        series=plan.series,
        parent=present,
        report=heard,
        actor=actor,
    )
    require_lease()
    held = gates(
        learned.metrics,
        _contest(app, present, learned, made_by),
        rule=rotation_rule_of(app.settings),
    )
    verdict = overall(held)
    return rotating.record(
        app.engine,
        day=day,
        policy=present,
        new=plan.new,
        verdict=verdict,
        triggers=plan.triggers,
        gates=held,
        placings=_placed(app, plan, verdict, actor=actor),
        now=app.clock.now(),
        actor=actor,
    )


def _placed(app: App, plan: ModelPlan, verdict: Verdict, *, actor: str) -> dict[str, Placing]:
    """Give a new model its place in each experiment of the present one."""
    found: dict[str, Placing] = {}
    for name in plan.record.experiments:
        found[name], _ = rotating.place(
            app.engine,
            name=name,
            present=plan.record.model.policy,
            new=plan.new,
            verdict=verdict,
            replaces=app.settings.operations.model_rotation.enabled,
            now=app.clock.now(),
            actor=actor,
        )
    return found


def _contest(
    app: App, present: PolicyName, learned: Learned, plan: ChallengerPlan
) -> Contest | None:
    """Let the present model play what the new one was measured on; None where it is gone."""
    held = policies.find(app.engine, present)
    try:
        artifact = read(artifact_home(app.settings), held.policy.sha)
    except ArtifactRefused:
        return None
    until = held.policy.data_cutoff or held.registered_at
    return contest(learned.walked, artifact, plan, known_until=until)
