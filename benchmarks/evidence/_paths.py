"""Evidence of many simulated comparisons at once, through the functions that the ledger calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core import evidence, simulation
from bandit.core.evidence import Floats, Terms
from bandit.core.simulation import HypotheticalArm, Luck, Market, Setting

CHAMPION = HypotheticalArm(profit_factor=1.3)
TERMS = Terms(
    unit=CHAMPION.size, baseline=CHAMPION.mean / CHAMPION.size, profit_factor=CHAMPION.profit_factor
)
DAY = 20
"""Opportunities a day."""

RUNS_AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is simulated: a challenger beside the champion, for so many opportunities.

    `share` is the challenger's part of the traffic; None lets it chase what looks good, night by
    night, between 5 and 60 %. With `common`, results on paper are paired instead: on that part of
    the opportunities both arms have the same luck.
    """

    setting: Setting
    challenger: HypotheticalArm
    champion: HypotheticalArm = CHAMPION
    share: float | None = 0.5
    common: float | None = None
    opportunities: int = 20_000


def paths(comparison: Comparison, *, runs: int, seed: int) -> Iterator[Floats]:
    """Simulate `runs` comparisons and yield the log e-values of some at a time.

    After every opportunity: shape (runs, opportunities, forms, directions).
    """
    for found in scored(comparison, runs=runs, seed=seed):
        yield evidence.log_e_values(np.cumsum(evidence.log_factors(found.scores), axis=1))


class Scored(NamedTuple):
    """Decisions of some runs: their scores, whether the challenger took each, whether it won.

    Shapes (runs, opportunities, forms), and (runs, opportunities) twice.
    """

    scores: Floats
    chosen: NDArray[np.bool_]
    won: NDArray[np.bool_]


def scored(comparison: Comparison, *, runs: int, seed: int) -> Iterator[Scored]:
    """Simulate `runs` comparisons and yield the decisions of some at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, runs, RUNS_AT_ONCE):
        yield _some(comparison, min(RUNS_AT_ONCE, runs - start), rng)


def first_time(reached: np.ndarray) -> Floats:
    """Return after how many looks each run was there for the first time; infinite where never."""
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, math.inf)


def _some(comparison: Comparison, runs: int, rng: np.random.Generator) -> Scored:
    market = Market.drawn(
        comparison.setting, runs=runs, opportunities=comparison.opportunities, rng=rng
    )
    luck = Luck.drawn(market, rng)
    other = Luck.drawn(market, rng)
    if comparison.common is not None:
        other = luck.shared_with(other, share=comparison.common, rng=rng)
    champion = simulation.returns(comparison.champion, market, luck)
    challenger = simulation.returns(comparison.challenger, market, other)
    theirs, ours = (evidence.rewards(r / TERMS.unit, TERMS) for r in (champion, challenger))
    draws = rng.random(champion.shape)
    share = _shares(comparison, champion, challenger, draws)
    chosen = draws < share
    won = np.where(chosen, challenger, champion) > 0.0
    if comparison.common is not None:
        return Scored(evidence.paired_scores(ours, theirs), chosen, won)
    rewarded = np.where(chosen[..., None], ours, theirs)
    return Scored(evidence.routed_scores(rewarded, chosen, share), chosen, won)


def _shares(comparison: Comparison, champion: Floats, challenger: Floats, draws: Floats) -> Floats:
    """Return the challenger's part of the traffic at every opportunity."""
    if comparison.share is not None:
        return np.full(champion.shape, comparison.share)
    shares = np.empty(champion.shape)
    now = np.full(len(champion), 0.1)
    sums = np.zeros((2, len(champion)))
    for start in range(0, champion.shape[1], DAY):
        day = slice(start, start + DAY)
        shares[:, day] = now[:, None]
        routed = draws[:, day] < shares[:, day]
        # What each arm earned on the traffic it got, forgotten within weeks.
        earned = np.stack(
            [
                (challenger[:, day] * routed).sum(axis=1) / now,
                (champion[:, day] * ~routed).sum(axis=1) / (1.0 - now),
            ]
        )
        sums = 0.97 * sums + earned
        now = np.clip(np.where(sums[0] >= sums[1], now * 1.5, now / 1.5), 0.05, 0.6)
    return shares
