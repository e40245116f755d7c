"""Derive the nights of an experiment again from what their rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from sqlalchemy import Engine

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicyName, Ppm
from bandit.core.rederivation import Rederived, StoredAction, StoredNight, rederived
from bandit.storage import decisions, experiments
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import snapshot

Versions = Mapping[int, Mapping[PolicyName, Ppm]]


def rederive(engine: Engine, name: str, *, day: date | None = None) -> list[Rederived]:
    """Derive every night of an experiment again, or that of `day`; oldest first.

    Raises `UnknownName` for the experiment, `InvalidInput` for a day without a night.
    """
    found = []
    with snapshot(engine) as connection:
        record = experiments.load(connection, name)
        versions = {made.version: made.ppm for made, _ in decisions.allocations(connection, name)}
        actions: list[DecisionRecord] = []
        for decision in decisions.nights(connection, record.id, name=name, day=day):
            if decision.trading_day is None:
                actions.append(decision)
                continue
            stored = _stored(decision, decision.trading_day, actions, versions)
            found.append(
                rederived(stored, limits=record.limits, rules=record.rules, salt=record.salt)
            )
            actions = []
    if day is not None and not found:
        rule = f"must be a night that {name} has decided"
        raise InvalidInput(field="night", rule=rule, found=day)
    return found


def _stored(
    decision: DecisionRecord, day: date, actions: Sequence[DecisionRecord], versions: Versions
) -> StoredNight:
    return StoredNight(
        day=day,
        decided_at=decision.decided_at,
        kind=decision.kind,
        profile=decision.profile,
        strategy=decision.strategy,
        seed=decision.seed,
        code_version=decision.code_version,
        inputs=decision.inputs,
        inputs_digest=decision.inputs_digest,
        reasons=decision.reasons,
        actions=[
            StoredAction(kind=made.kind, policy=made.inputs["policy"], reasons=made.reasons)
            for made in actions
            if _is_of(made, decision)
        ],
        allocation=None if decision.version is None else versions[decision.version],
    )


def _is_of(made: DecisionRecord, night: DecisionRecord) -> bool:
    """Say whether the night did this: a guard of the same moment reads one arm, a person none."""
    read = night.inputs.get("readings")
    return read is not None and made.inputs.get("readings") == read
