"""Policies for tests of the purge: in words, and at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
from ledger import NOON

from bandit.core.model import ArmRole, ArmStatus, PolicyName, Profile
from bandit.core.profit_factor import ProfitFactor
from bandit.core.purging import KnownArm, KnownPolicy

NOW = NOON + timedelta(days=365)
STATUSES = [*ArmStatus]
PROFILES = [*Profile]


def factor(value: float, *, n: int = 60, n_losses: int | None = None) -> ProfitFactor:
    """A profit factor of `n` trades, half of which lost unless said otherwise."""
    losses = n // 2 if n_losses is None else n_losses
    lost = float(losses)
    won = value * lost if losses else float(n)
    return ProfitFactor(gross_profit=won, gross_loss=lost, n=n, n_losses=losses)


def arm(
    value: float = 2.0,
    *,
    high: float | None = None,
    n: int = 60,
    role: ArmRole = ArmRole.CHALLENGER,
    status: ArmStatus = ArmStatus.ACTIVE,
    profile: Profile = Profile.GUARDED,
    experiment: str = "btc",
    replaced_hours_ago: float | None = None,
    returns: bool = False,
) -> KnownArm:
    ago = replaced_hours_ago
    return KnownArm(
        experiment=experiment,
        role=role,
        status=status,
        profile=profile,
        profit_factor=factor(value, n=n),
        high=value * 1.5 if high is None else high,
        trades_min=30,
        replaced_at=None if ago is None else NOW - timedelta(hours=ago),
        returns=returns,
    )


def policy(
    name: str,
    *arms: KnownArm,
    days: float = 10,
    parent: str | None = None,
    needed_for: tuple[str, ...] = (),
) -> KnownPolicy:
    return KnownPolicy(
        name=PolicyName(name),
        since=NOW - timedelta(days=days),
        parent=None if parent is None else PolicyName(parent),
        arms=arms,
        needed_for=needed_for,
    )


def population(rng: np.random.Generator) -> list[KnownPolicy]:
    """Up to twelve policies in up to three experiments, each with one champion."""
    names = [f"p{i:02}" for i in range(int(rng.integers(1, 13)))]
    experiments = [f"e{i}" for i in range(int(rng.integers(0, 4)))]
    champions = {e: names[int(rng.integers(len(names)))] for e in experiments}
    made = []
    for i, name in enumerate(names):
        arms = [_random_arm(rng, e, champions[e] == name) for e in experiments]
        parent = names[int(rng.integers(i))] if i and rng.random() < 0.4 else None
        known = policy(
            name,
            *(found for found in arms if found is not None),
            days=float(rng.choice([1, 59.9, 60, 60.1, 61, 200])),
            parent=parent,
            needed_for=("a job",) if rng.random() < 0.05 else (),
        )
        made.append(known)
    return made


def _random_arm(rng: np.random.Generator, experiment: str, is_champion: bool) -> KnownArm | None:
    if not is_champion and rng.random() < 0.4:
        return None
    status = STATUSES[int(rng.integers(len(STATUSES)))]
    made = arm(
        float(rng.choice([0.5, 1.0, 1.19, 1.2, 1.5, 3.0])),
        n=int(rng.choice([0, 10, 29, 30, 150])),
        role=ArmRole.CHAMPION if is_champion else ArmRole.CHALLENGER,
        status=ArmStatus.ACTIVE if is_champion else status,
        profile=PROFILES[int(rng.integers(len(PROFILES)))],
        experiment=experiment,
        replaced_hours_ago=float(rng.choice([1, 23.9, 24, 30])) if rng.random() < 0.1 else None,
        returns=rng.random() < 0.1,
    )
    # Without an interval, and without a loss, nothing is known.
    made = replace(made, high=None) if rng.random() < 0.1 else made
    lucky = factor(0.0, n=made.profit_factor.n, n_losses=0)
    return replace(made, profit_factor=lucky, high=None) if rng.random() < 0.1 else made


def names_of(found: Sequence[KnownPolicy]) -> set[PolicyName]:
    return {known.name for known in found}
