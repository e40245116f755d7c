"""Models and what follows them: who is due, and the place of the one that was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.errors import InvalidAllocation, InvalidInput, InvalidTransition, Killed
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmMode, PolicyName, Verdict, checked_instant, checked_text
from bandit.core.performance import win_rate
from bandit.core.rotation import REST_DAYS, Model, Placing, placing
from bandit.core.verdicts import Reason
from bandit.service import promoting
from bandit.service.experiments import add_arm, change_arm
from bandit.storage import audit, experiments, learner_jobs, outcomes, policies, rotations
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ArmRecord, ExperimentRecord
from bandit.storage.rotations import Rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A model, how it was asked for, where it has arms, and why it is left alone, if it is."""

    model: Model
    recipe: Mapping[str, Any]
    experiments: tuple[str, ...]
    left_alone: str | None


def models(engine: Engine, *, day: date) -> list[ModelRecord]:
    """Return every policy that was learned here and has an arm, in the order of their names.

    Left alone is one that was made anew within `REST_DAYS` before `day`, or whose successor is
    still on trial.
    """
    with snapshot(engine) as connection:
        found = [experiments.load(connection, name) for name in experiments.names(connection)]
        held: dict[PolicyName, list[tuple[ExperimentRecord, ArmRecord]]] = {}
        for record in found:
            for arm in record.kept_arms:
                held.setdefault(arm.place.policy, []).append((record, arm))
        made = [_model(connection, name, held, day=day) for name in sorted(held)]
    return [model for model in made if model is not None]


def _model(
    connection: Connection,
    name: PolicyName,
    held: Mapping[PolicyName, Sequence[tuple[ExperimentRecord, ArmRecord]]],
    *,
    day: date,
) -> ModelRecord | None:
    stored = policies.by_name(connection, name)
    recipe = learner_jobs.recipe_of(connection, stored.id)
    if recipe is None:
        return None
    results = [
        trade.result
        for record, arm in held[name]
        for trade in outcomes.newest_trades(connection, arm.id, record.rules.checklist.long_window)
    ]
    return ModelRecord(
        model=Model(
            policy=name,
            knows_until=stored.policy.data_cutoff or stored.registered_at,
            trades=len(results),
            win_rate=win_rate(results),
        ),
        recipe=recipe,
        experiments=tuple(sorted(record.experiment.name for record, _ in held[name])),
        left_alone=_left_alone(rotations.of_policy(connection, name), held, day=day),
    )


def _left_alone(
    before: Sequence[Rotation], held: Mapping[PolicyName, Any], *, day: date
) -> str | None:
    for rotation in before:
        if 0 < (day - rotation.day).days < REST_DAYS:
            return f"made anew on {rotation.day}, as {rotation.new}"
        joined = any(placed is not Placing.KEPT_OUT for placed in rotation.placings.values())
        if rotation.day < day and joined and rotation.new in held:
            return f"its successor {rotation.new} is on trial"
    return None


def done(engine: Engine, *, day: date, policy: PolicyName) -> Rotation | None:
    """Return what was made of a model on a day; None where nothing was."""
    with snapshot(engine) as connection:
        return rotations.of_day(connection, day, policy)


def newest(engine: Engine, *, most: int = 20) -> list[Rotation]:
    """Return the newest rotations, the newest first."""
    with snapshot(engine) as connection:
        return rotations.newest(connection, most=most)


def place(
    engine: Engine,
    *,
    name: str,
    present: PolicyName,
    new: PolicyName,
    verdict: Verdict,
    replaces: bool,
    now: datetime,
    actor: str,
) -> tuple[Placing, str]:
    """Give a new model its place in an experiment of the present one; say which, and why.

    Again changes nothing. Where the limits leave no room it is kept out, and says so.
    """
    with snapshot(engine) as connection:
        profile = experiments.load(connection, name).experiment.profile
    placed = placing(verdict, profile=profile, replaces=replaces)
    if placed is Placing.KEPT_OUT:
        why = f"the profile is {profile}" if verdict is Verdict.PASS else f"its gates: {verdict}"
        return placed, why
    try:
        add_arm(engine, name=name, policy=new, mode=ArmMode.LIVE, now=now, actor=actor)
    except (InvalidAllocation, InvalidInput, InvalidTransition, Killed) as error:
        return Placing.KEPT_OUT, str(error)
    if placed is Placing.REPLACED:
        try:
            _replace(engine, name, present, new, now=now, actor=actor)
        except (InvalidAllocation, InvalidTransition, Killed) as error:
            return Placing.JOINED, str(error)
    return placed, f"the profile is {profile}"


def _replace(
    engine: Engine, name: str, present: PolicyName, new: PolicyName, *, now: datetime, actor: str
) -> None:
    """Give the new model the place of the present one, who stays for a rollback where it led."""
    reason = f"{new} was made anew of {present} and passed every gate of its rotation"
    if _leads(engine, name, present):
        promoting.promote(engine, name=name, policy=new, reason=reason, now=now, actor=actor)
    elif not _leads(engine, name, new):  # else it took that place before
        verb = ArmVerb.RETIRE
        change_arm(
            engine, name=name, policy=present, verb=verb, reason=reason, now=now, actor=actor
        )


def _leads(engine: Engine, name: str, policy: PolicyName) -> bool:
    with snapshot(engine) as connection:
        return experiments.load(connection, name).experiment.champion == policy


def record(
    engine: Engine,
    *,
    day: date,
    policy: PolicyName,
    new: PolicyName,
    verdict: Verdict,
    triggers: Sequence[Reason],
    gates: Sequence[Reason],
    placings: Mapping[str, Placing],
    now: datetime,
    actor: str,
) -> Rotation:
    """Write down what became of a model on a day; once: return what stands written there."""
    made = Rotation(
        day=day,
        policy=policy,
        new=new,
        verdict=verdict,
        triggers=[reason.to_json() for reason in triggers],
        gates=[reason.to_json() for reason in gates],
        placings=dict(placings),
        recorded_at=checked_instant(now, field="now"),
    )
    with transaction(engine) as connection:
        old_id, new_id = (policies.by_name(connection, each).id for each in (policy, new))
        if not rotations.insert(connection, made, policy_id=old_id, new_id=new_id):
            return rotations.of_day(connection, day, policy) or made
        audit.append(
            connection,
            now=now,
            actor=checked_text(actor, field="actor", length_max=200),
            action="model_rotated",
            subject=policy,
            details={
                "new": new,
                "day": day.isoformat(),
                "verdict": verdict.value,
                "placings": {name: placed.value for name, placed in placings.items()},
                "gates": made.gates,
            },
        )
    return made
