"""The training environment as one would write it first: one episode, one bar after the other.

Tests hold `learners.environment` against it step by step; its speed is the yardstick of the batch.
It shares no code with the batch beyond the spec and the levels of a bracket.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core.paper_fills import Side
from learners.environment_spec import EnvironmentSpec, Target
from learners.market.candles import Candles


@dataclass(slots=True)
class Position:
    """What is held, per 1 of its value at entry."""

    sign: int
    entry_bar: int
    entry_price: float
    stop: float
    take_profit: float
    paid: float = 0.0


class PlainStep(NamedTuple):
    """What one step gave."""

    observation: NDArray[np.float32]
    reward: float
    terminated: bool
    truncated: bool


class PlainEnvironment:
    """One episode from `start_bar` on; `charges` are the funding ratios of the bars."""

    def __init__(
        self,
        candles: Candles,
        features: NDArray[np.floating],
        spec: EnvironmentSpec,
        charges: NDArray[np.float64],
    ) -> None:
        self.open: list[float] = candles.open.tolist()
        self.high: list[float] = candles.high.tolist()
        self.low: list[float] = candles.low.tolist()
        self.close: list[float] = candles.close.tolist()
        self.features = features.astype(np.float32)
        self.charges: list[float] = charges.tolist()
        self.spec = spec
        self.proposals = {1: spec.proposal(Side.LONG), -1: spec.proposal(Side.SHORT)}

    def reset(self, start_bar: int) -> NDArray[np.float32]:
        """Begin an episode whose first decision is taken at the close of this bar."""
        self.start_bar = self.bar = start_bar
        self.position: Position | None = None
        self.mark = 0.0
        self.equity = 1.0
        return self.observation()

    def step(self, action: int) -> PlainStep:
        """Act at the close of the bar and go on to the close of the next."""
        wanted = Target(action).sign
        self.bar += 1
        earned = -self.mark
        held = 0 if self.position is None else self.position.sign
        self.charge_funding()
        if self.position is not None and (self.ends_at_open() or wanted != held):
            earned += self.leave(self.open[self.bar])
        if wanted not in (0, held):
            self.position = self.enter(wanted)
        exit_price = self.exit_price()
        if exit_price is not None:
            earned += self.leave(exit_price)
        self.mark = 0.0 if self.position is None else self.value(self.close[self.bar])
        earned += self.mark
        reward = self.spec.position_ratio * earned
        self.equity += reward
        terminated = self.equity <= self.spec.equity_ratio_min
        at_end = self.bar == self.start_bar + self.spec.episode_bars
        return PlainStep(self.observation(), reward, terminated, at_end and not terminated)

    def enter(self, sign: int) -> Position:
        """Open a position at the open of this bar."""
        price = self.open[self.bar]
        stop, take_profit = self.proposals[sign].levels(Decimal(repr(price)))
        return Position(sign, self.bar, price, float(stop), float(take_profit))

    def charge_funding(self) -> None:
        """Pay for what was held into this open, at its value there."""
        position, charge = self.position, self.charges[self.bar]
        if position is not None and charge != 0:
            size = 1 / self.fill_price(position.entry_price, position.sign)
            position.paid += position.sign * charge * size * self.open[self.bar]

    def ends_at_open(self) -> bool:
        """Say whether the position is out of time, or the bar opens beyond its stop."""
        position, opening = self.position, self.open[self.bar]
        assert position is not None
        if self.bar == position.entry_bar + self.spec.holding_bars_max:
            return True
        return opening <= position.stop if position.sign > 0 else opening >= position.stop

    def exit_price(self) -> float | None:
        """Return where the position leaves inside this bar: at the stop if both are touched."""
        position, high, low = self.position, self.high[self.bar], self.low[self.bar]
        if position is None:
            return None
        if position.sign > 0:
            stopped, taken = low <= position.stop, high >= position.take_profit
        else:
            stopped, taken = high >= position.stop, low <= position.take_profit
        if stopped:
            return position.stop
        return position.take_profit if taken else None

    def leave(self, price: float) -> float:
        """Close the position and return what it earned."""
        earned = self.value(price)
        self.position = None
        return earned

    def value(self, price: float) -> float:
        """Return what closing at this market price leaves of 1 put in."""
        position, fee = self.position, self.spec.costs.fee_ratio
        assert position is not None
        entered = self.fill_price(position.entry_price, position.sign)
        left = self.fill_price(price, -position.sign)
        gross = position.sign * (left - entered) / entered
        return gross - fee - fee * left / entered - position.paid

    def fill_price(self, price: float, sign: int) -> float:
        """Return what an order that buys (1) or sells (-1) pays at a market price."""
        return price * (1 + sign * self.spec.costs.slippage_ratio)

    def observation(self) -> NDArray[np.float32]:
        """Return the features, then position, unrealised return and share of its time."""
        position, sign, share = self.position, 0, 0.0
        if position is not None:
            sign = position.sign
            share = (self.bar - position.entry_bar + 1) / self.spec.holding_bars_max
        own = np.array([sign, self.mark, share], dtype=np.float32)
        return np.concatenate([self.features[self.bar], own])
