"""Seeded decision logs of two arms in a market whose truth is known, many at a time."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from bandit.core import simulation
from bandit.core.decision_log import DecisionLog, Floats, Integers
from bandit.core.simulation import HypotheticalArm, Luck, Market, Setting

NIGHT = 20
CALM = 5
SHARE_MIN, SHARE_MAX, STEP_UP = 0.02, 0.60, 1.5
RETURN_DEVIATION = 1.5


def arm(profit_factor: float, win_rate: float = 0.5) -> HypotheticalArm:
    """An arm that earns in units of the mean size of a return."""
    return HypotheticalArm(profit_factor=profit_factor, win_rate=win_rate, size=1.0)


CHAMPION = arm(1.3)


def simulated(
    setting: Setting,
    challenger: HypotheticalArm,
    *,
    logs: int,
    decisions: int,
    share: float,
    adaptive: bool,
    agreement: float,
    rng: np.random.Generator,
) -> list[DecisionLog]:
    """Draw logs of champion (column 0) and challenger (column 1).

    `share` is the challenger's propensity; where `adaptive` it moves every night with what both
    earned so far. On the share `agreement` of decisions both propose the same and would earn what
    the challenger earns.
    """
    market = Market.drawn(setting, runs=logs, opportunities=decisions, rng=rng)
    earned, agree = _potential(market, challenger, agreement, rng)
    shares, chosen = _routed(earned, share=share, adaptive=adaptive, rng=rng)
    propensities = np.stack([1.0 - shares, shares], axis=-1)
    rewards = np.take_along_axis(earned, chosen[..., None], axis=-1)[..., 0]
    strata = rng.integers(0, 4, (logs, decisions))
    proposed = np.where(agree[..., None], 0, np.array([1, 2]))
    ids = [f"{i:06}" for i in range(decisions)]
    return [
        DecisionLog(
            decisions=ids,
            propensities=propensities[i],
            chosen=chosen[i],
            rewards=rewards[i],
            strata=strata[i],
            proposed=proposed[i] if agreement > 0.0 else None,
        )
        for i in range(logs)
    ]


def _potential(
    market: Market, challenger: HypotheticalArm, agreement: float, rng: np.random.Generator
) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Return what each arm would earn at each decision, and where both would do the same."""
    ours, theirs = (
        simulation.returns(one, market, Luck.drawn(market, rng)) for one in (CHAMPION, challenger)
    )
    agree = rng.random(ours.shape) < agreement
    return np.stack([np.where(agree, theirs, ours), theirs], axis=-1), agree


def _routed(
    earned: Floats, *, share: float, adaptive: bool, rng: np.random.Generator
) -> tuple[Floats, Integers]:
    """Return the challenger's propensity at each decision, and the arm that was drawn."""
    logs, decisions, _ = earned.shape
    shares, chosen = np.empty((logs, decisions)), np.empty((logs, decisions), dtype=np.int64)
    sums, counts = np.zeros((logs, 2)), np.zeros((logs, 2))
    now, every = np.full(logs, share), np.arange(logs)
    for t in range(decisions):
        if adaptive and t % NIGHT == 0 and t >= CALM * NIGHT:
            now = _next_share(now, sums, counts)
        drawn = (rng.random(logs) < now).astype(np.int64)
        shares[:, t], chosen[:, t] = now, drawn
        sums[every, drawn] += earned[every, t, drawn]
        counts[every, drawn] += 1.0
    return shares, chosen


def _next_share(now: Floats, sums: Floats, counts: Floats) -> Floats:
    """Move to the probability that the challenger is better: down freely, up by half at most."""
    means = sums / np.maximum(counts, 1.0)
    spread = RETURN_DEVIATION * np.sqrt((1.0 / (counts + 5.0)).sum(axis=1))
    better = ndtr((means[:, 1] - means[:, 0]) / spread)
    lawful: Floats = np.minimum(np.clip(better, SHARE_MIN, SHARE_MAX), now * STEP_UP)
    return lawful
