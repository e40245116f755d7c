"""What every player of a regret benchmark meets: arms, results, and who knows what when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bandit.core import simulation
from bandit.core.simulation import REAL, HypotheticalArm, Luck, Market
from bandit.core.trial_plan import SCALE, Fate

DAY = 20
"""Opportunities a day; whoever plays learns and shares anew each night."""

DELAY_DAYS = 1
"""How many days after its own a result is told, before that day's night."""

CHAMPION = HypotheticalArm(profit_factor=1.3)
SWAP = 2_500
"""After so many opportunities the challengers of `switching` swap their edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Challengers by their profit factors; in `switching` ones the next edge is the next one's."""

    name: str
    factors: tuple[float, ...]
    switching: bool = False

    @property
    def arms(self) -> int:
        """How many arms there are; the champion is arm 0."""
        return 1 + len(self.factors)


SCENARIOS = (
    Scenario(name="1_good", factors=(1.7,)),
    Scenario(name="1_bad", factors=(0.9,)),
    Scenario(name="3_mixed", factors=(1.7, 1.1, 0.9)),
    Scenario(name="3_bad", factors=(1.1, 1.0, 0.9)),
    Scenario(name="switching", factors=(1.7, 0.9), switching=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """One run: what each arm would earn at each opportunity, and its mean, in units.

    `draws` and `salt` are the chance that routes, alike for every player, so that two of them
    differ by what they do.
    """

    results: NDArray[np.float64]
    means: NDArray[np.float64]
    draws: NDArray[np.float64]
    salt: bytes

    @classmethod
    def drawn(cls, scenario: Scenario, *, opportunities: int, seed: Sequence[int]) -> Tape:
        """Draw a run."""
        rng = np.random.default_rng(seed)
        market = Market.drawn(REAL, runs=1, opportunities=opportunities, rng=rng)
        lucks = [Luck.drawn(market, rng) for _ in range(scenario.arms)]
        arms = [CHAMPION, *(HypotheticalArm(profit_factor=f) for f in scenario.factors)]
        # Row: an edge; column: what it earns with the luck of each place.
        earned = np.stack(
            [
                np.stack([simulation.returns(arm, market, luck)[0] for luck in lucks], axis=1)
                for arm in arms
            ]
        )
        at, places = np.arange(opportunities), np.arange(scenario.arms)
        edges = np.tile(places, (opportunities, 1))
        if scenario.switching:
            edges[:, 1:] = (places[1:] - 1 + at[:, None] // SWAP) % len(scenario.factors) + 1
        return cls(
            results=earned[edges, at[:, None], places] / CHAMPION.size,
            means=np.array([arm.mean for arm in arms])[edges] / CHAMPION.size,
            draws=rng.random(opportunities),
            salt=rng.bytes(32),
        )

    @property
    def fate(self) -> Fate:
        """The same run as the fate of a trial, whose champion comes last."""
        steps = np.rint(np.roll(self.results, -1, axis=1) * CHAMPION.size * SCALE)
        days = steps.T.astype(np.int64).reshape(steps.shape[1], -1, DAY)
        return Fate(salt=self.salt, results=days)


class Trade(NamedTuple):
    """An outcome as a player hears of it: in units, with the propensity of its decision."""

    arm: int
    result: float
    propensity: float


class Player(Protocol):
    """Whoever decides which arm an opportunity goes to."""

    def learn(self, trades: Sequence[Trade]) -> None:
        """Hear of the trades that have closed since last night, oldest first."""
        ...

    def pick(self, draws: Sequence[float]) -> tuple[list[int], list[float]]:
        """Return an arm and its propensity for each opportunity of the day, one draw each."""
        ...


def played(tape: Tape, player: Player, *, on_paper: bool) -> NDArray[np.int64]:
    """Let a player loose on a run, night by night, and return the arms it picked.

    `on_paper` tells it of every arm what that earned or would have, beyond doubt.
    """
    count, arms = tape.results.shape
    picked, chances = np.zeros(count, np.int64), np.ones(count)
    for start in range(0, count, DAY):
        told = np.arange(max(0, start - (DELAY_DAYS + 1) * DAY), max(0, start - DELAY_DAYS * DAY))
        seen, chance = picked[told], chances[told]
        if on_paper:
            told, seen = np.repeat(told, arms), np.tile(np.arange(arms), len(told))
            chance = np.ones(len(told))
        heard = seen.tolist(), tape.results[told, seen].tolist(), chance.tolist()
        player.learn([Trade(*each) for each in zip(*heard, strict=True)])
        day = slice(start, start + DAY)
        picked[day], chances[day] = player.pick(tape.draws[day].tolist())
    return picked


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a run cost, in units; luck is left out: picks are judged by the means of their arms.

    `regret` per 1000 opportunities beside the best arm of each moment, `dip` the worst
    shortfall, of all moments, of the sum so far beside champion-only.
    """

    regret: float
    dip: float


def scored(tape: Tape, picked: NDArray[np.int64]) -> Score:
    """Judge the picks of a run."""
    got = tape.means[np.arange(len(picked)), picked]
    return Score(
        regret=float((tape.means.max(axis=1) - got).mean() * 1000.0),
        dip=float(min(0.0, np.cumsum(got - tape.means[:, 0]).min())),
    )
