"""Hypothetical arms in a hypothetical market, for questions that real trades answer too slowly.

A trade wins when a standard normal, part of it the market's own mood, falls below the quantile of
its arm's win rate; what it wins or loses is Student-t distributed, scaled by the market's
volatility of the moment. So wins come in clusters, and arms share good and bad times. Every draw
comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import gamma, ndtri

from bandit.core.errors import InvalidInput

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a market misbehaves.

    `clustering` is the part of a trade's luck that the market's mood decides, `persistence` how
    much of a mood the next opportunity inherits, `tail` the degrees of freedom of Student's t,
    `volatility` that of calm and of turbulent times; these fill a fifth of all opportunities, and
    one spell lasts `dwell` of them on average.
    """

    name: str
    clustering: float = 0.0
    persistence: float = 0.0
    tail: float = 4.0
    volatility: tuple[float, float] = (1.0, 1.0)
    turbulent: float = 0.2
    dwell: float = 100.0

    def __post_init__(self) -> None:
        """Refuse settings that no market can have."""
        for name in ("clustering", "persistence"):
            if not 0.0 <= getattr(self, name) < 1.0:
                rule = "must be at least 0 and below 1"
                raise InvalidInput(field=name, rule=rule, found=getattr(self, name))
        if not self.tail > 2.0:
            raise InvalidInput(field="tail", rule="must be above 2", found=self.tail)
        if not 0.0 < self.turbulent < 1.0:
            rule = "must lie between 0 and 1"
            raise InvalidInput(field="turbulent", rule=rule, found=self.turbulent)
        if not self.dwell >= 1.0:
            raise InvalidInput(field="dwell", rule="must be at least 1", found=self.dwell)
        if not 0.0 < min(self.volatility) <= max(self.volatility) < math.inf:
            rule = "must be positive and finite"
            raise InvalidInput(field="volatility", rule=rule, found=self.volatility)


IID = Setting(name="iid4")
REAL = Setting(name="real", clustering=0.15, persistence=0.95, volatility=(0.8, 1.8))
HARD = Setting(name="hard", clustering=0.3, persistence=0.99, tail=3.0, volatility=(0.7, 2.2))
SETTINGS = {setting.name: setting for setting in (IID, REAL, HARD)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HypotheticalArm:
    """What an arm is worth in truth: its profit factor, win rate and mean |return| of a trade."""

    profit_factor: float
    win_rate: float = 0.5
    size: float = 0.005

    def __post_init__(self) -> None:
        """Refuse an arm that no trades can belong to."""
        if not 0.0 < self.profit_factor < math.inf:
            rule = "must be positive and finite"
            raise InvalidInput(field="profit_factor", rule=rule, found=self.profit_factor)
        if not 0.0 < self.win_rate < 1.0:
            rule = "must lie between 0 and 1"
            raise InvalidInput(field="win_rate", rule=rule, found=self.win_rate)
        if not 0.0 < self.size < math.inf:
            raise InvalidInput(field="size", rule="must be positive and finite", found=self.size)

    @property
    def mean_win(self) -> float:
        """Mean return of a winner."""
        share = self.profit_factor / (1.0 + self.profit_factor)
        return self.size * share / self.win_rate

    @property
    def mean_loss(self) -> float:
        """Mean size of a loser's return."""
        return self.size / (1.0 + self.profit_factor) / (1.0 - self.win_rate)

    @property
    def mean(self) -> float:
        """Mean return of a trade.

        >>> round(HypotheticalArm(profit_factor=1.3).mean, 6)
        0.000652
        """
        return self.size * (self.profit_factor - 1.0) / (self.profit_factor + 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The mood and volatility that all arms share: arrays of shape (runs, opportunities)."""

    setting: Setting
    mood: Floats
    volatility: Floats

    @classmethod
    def drawn(
        cls, setting: Setting, *, runs: int, opportunities: int, rng: np.random.Generator
    ) -> Market:
        """Draw `runs` independent histories of `opportunities` each."""
        shape = (runs, opportunities)
        return cls(
            setting=setting,
            mood=_moods(setting, shape, rng),
            volatility=_volatilities(setting, shape, rng),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Luck:
    """What befalls one arm beside the market: arrays shaped as the market's."""

    normal: Floats
    size: Floats

    @classmethod
    def drawn(cls, market: Market, rng: np.random.Generator) -> Luck:
        """Draw the luck of one arm."""
        shape, tail = market.mood.shape, market.setting.tail
        drawn = np.abs(rng.standard_t(tail, shape)) / _mean_size(tail)
        return cls(normal=rng.standard_normal(shape), size=drawn)

    def shared_with(self, other: Luck, *, share: float, rng: np.random.Generator) -> Luck:
        """Return a luck that is `self` on a random `share` of the opportunities, else `other`."""
        common = rng.random(self.normal.shape) < share
        return Luck(
            normal=np.where(common, self.normal, other.normal),
            size=np.where(common, self.size, other.size),
        )


def returns(arm: HypotheticalArm, market: Market, luck: Luck) -> Floats:
    """Return what the arm earns at every opportunity, in the shape of the market."""
    weight = market.setting.clustering
    wins = math.sqrt(weight) * market.mood + math.sqrt(1.0 - weight) * luck.normal < ndtri(
        arm.win_rate
    )
    return np.where(wins, arm.mean_win, -arm.mean_loss) * luck.size * market.volatility


def _moods(setting: Setting, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    noise = rng.standard_normal(shape)
    phi = setting.persistence
    first = noise[:, :1] * phi
    moods, _ = lfilter(
        [math.sqrt(1.0 - phi * phi)], [1.0, -phi], rng.standard_normal(shape), zi=first
    )
    return np.asarray(moods)


def _volatilities(setting: Setting, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Draw spells of geometric length: turbulent ones last `dwell`, calm ones as much longer."""
    calm, turbulent = setting.volatility
    if calm == turbulent:
        return np.full(shape, calm)
    share = setting.turbulent
    ends = (share / (1.0 - share) / setting.dwell, 1.0 / setting.dwell)
    drawn = rng.random(shape)
    state = rng.random(shape[0]) < share
    found = np.empty(shape)
    for i in range(shape[1]):
        found[:, i] = np.where(state, turbulent, calm)
        state ^= drawn[:, i] < np.where(state, ends[1], ends[0])
    return found


def _mean_size(tail: float) -> float:
    """Return E|t| of Student's t with `tail` degrees of freedom."""
    half = (tail + 1.0) / 2.0
    return float(
        2.0 * math.sqrt(tail) * gamma(half) / ((tail - 1.0) * math.sqrt(math.pi) * gamma(tail / 2))
    )
