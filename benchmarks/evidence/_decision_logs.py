"""Seeded decision logs of two arms in a market whose truth is known, many at a time.

An arm with profit factor F and win rate w earns F / (1 + F) from winners and loses 1 / (1 + F) to
losers per trade, in units of the mean size of a return. A trade wins when a state that all arms
share, and its own luck, fall below the quantile of w; sizes are Student-t times a volatility that
all arms share, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from bandit.core.decision_log import DecisionLog, Floats, Integers

NIGHT = 20
CALM, TURBULENT_SHARE, DWELL = 5, 0.2, 100
SHARE_MIN, SHARE_MAX, STEP_UP = 0.02, 0.60, 1.5
RETURN_DEVIATION = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """How outcomes hang together: share and memory of the common state, tails, volatilities."""

    common: float
    memory: float
    freedom: float
    volatilities: tuple[float, float]


MARKETS = {
    "iid4": Market(common=0.0, memory=0.0, freedom=4.0, volatilities=(1.0, 1.0)),
    "real": Market(common=0.15, memory=0.95, freedom=4.0, volatilities=(0.8, 1.8)),
    "hard": Market(common=0.30, memory=0.99, freedom=3.0, volatilities=(0.7, 2.2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """An arm by its long-run numbers."""

    profit_factor: float
    win_rate: float

    @property
    def mean(self) -> float:
        """What it earns per trade, in units of the mean size of a return."""
        return (self.profit_factor - 1.0) / (self.profit_factor + 1.0)


CHAMPION = Arm(profit_factor=1.3, win_rate=0.50)


def simulated(
    market: Market,
    challenger: Arm,
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
    earned, agree = _potential(market, challenger, logs, decisions, agreement, rng)
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
    market: Market,
    challenger: Arm,
    logs: int,
    decisions: int,
    agreement: float,
    rng: np.random.Generator,
) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Return what each arm would earn at each decision, and where both would do the same."""
    shape = (logs, decisions)
    state, volatility = _common(market, logs, decisions, rng)
    by_arm = []
    for arm in (CHAMPION, challenger):
        luck = rng.standard_normal(shape)
        latent = math.sqrt(market.common) * state + math.sqrt(1.0 - market.common) * luck
        win = latent < ndtri(arm.win_rate)
        tails = np.abs(rng.standard_t(market.freedom, shape)) / _mean_size(market.freedom)
        loss = 1.0 / (1.0 + arm.profit_factor)
        gain = arm.profit_factor * loss
        by_arm.append(
            np.where(win, gain / arm.win_rate, -loss / (1.0 - arm.win_rate)) * tails * volatility
        )
    agree = rng.random(shape) < agreement
    by_arm[0] = np.where(agree, by_arm[1], by_arm[0])
    return np.stack(by_arm, axis=-1), agree


def _common(
    market: Market, logs: int, decisions: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return what all arms share: an AR(1) state and a volatility with two levels."""
    state, volatility = np.empty((logs, decisions)), np.empty((logs, decisions))
    level, turbulent = rng.standard_normal(logs), rng.random(logs) < TURBULENT_SHARE
    fresh = math.sqrt(1.0 - market.memory**2)
    enters = TURBULENT_SHARE / (1.0 - TURBULENT_SHARE) / DWELL
    for t in range(decisions):
        state[:, t] = level
        volatility[:, t] = np.where(turbulent, market.volatilities[1], market.volatilities[0])
        level = market.memory * level + fresh * rng.standard_normal(logs)
        chance = rng.random(logs)
        turbulent = np.where(turbulent, chance >= 1.0 / DWELL, chance < enters)
    return state, volatility


def _mean_size(freedom: float) -> float:
    """Return the mean of |t| with so many degrees of freedom."""
    gammas = math.lgamma((freedom + 1.0) / 2.0) - math.lgamma(freedom / 2.0)
    return 2.0 * math.sqrt(freedom / math.pi) * math.exp(gammas) / (freedom - 1.0)


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
