"""A market to train in: many episodes at once, filled as the paper market fills.

An action, taken at the close of a bar, names the position wanted: flat, long or short. It fills at
the open of the next bar, at a price that slipped and with the taker fee. An open position keeps the
bracket it was opened with: asking for the side that is held lets it be and does not renew it, flat
closes it at the next open, the other side closes it and opens the other at that open, and both pay.
Stop, take-profit, gaps, time and funding are those of `learners.market.paper_market`, on purpose
with the same comparisons of the same numbers, so that a trade here and one there are one trade.

A reward is the change of the marked equity over the step, as a ratio of the capital at the start
of the episode: an open position is marked as if it were closed at the bar's close, costs included.
So the costs of a round trip are paid in the step that opens it, and the rewards of an episode sum
to its net trade results plus the last mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import Side
from learners.environment_spec import EnvironmentSpec, Target
from learners.generator_state import generator_words, restore_generator
from learners.market.candles import Candles
from learners.market.paper_market import ExitReason
from learners.market.validation import Floats
from learners.position_table import (
    END_AT_OPEN,
    END_INSIDE,
    END_VALUE,
    FIRST_VALUE,
    HELD,
    MARK,
    OFFSET,
    ROW,
    SHARE,
    SIDES,
    SLOPE,
    TARGET,
    TERMS,
    position_table,
)

Bars = NDArray[np.intp]
Flags = NDArray[np.bool_]
Observations = NDArray[np.float32]

OWN_COLUMNS = 3
"""The columns after the features: position, unrealised return, share of the longest holding."""


class Step(NamedTuple):
    """What one step of all episodes gave; one entry an episode where nothing else is said.

    `observations` are those to act on next: of a new window where the episode ended. `rewards` are
    ratios of the starting capital. An episode that is `terminated` in the last bar of its window is
    not `truncated`. `ended` are the episodes that ended, in order, and `final_observations` what
    each of them saw last.
    """

    observations: Observations
    rewards: Floats
    terminated: Flags
    truncated: Flags
    ended: Bars
    final_observations: Observations


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeTrade:
    """A position that an episode closed; `return_ratio` is net, over its value at entry."""

    episode: int
    side: Side
    entry_bar: int
    exit_bar: int
    exit_reason: ExitReason
    return_ratio: float


class MarketEnvironment:
    """`count` episodes side by side on one instrument, each begun anew when it ends.

    `features` has a row a bar, what is known at its close; an observation is the row, then the
    position (-1, 0, 1), what closing it now would return on its value at entry, and its bars since
    entry over `holding_bars_max`, all float32. Windows of `episode_bars` steps are drawn evenly
    from `bars` by a generator of `seed`; no price or feature outside `bars` is ever read. `funding`
    has one rate a bar, in place of the one of the spec. Raises `InvalidInput` where features or
    rates do not fit or are not finite, or `bars` hold no window.
    """

    def __init__(
        self,
        candles: Candles,
        features: NDArray[np.floating],
        spec: EnvironmentSpec,
        *,
        count: int,
        bars: range,
        seed: int,
        funding: Floats | None = None,
    ) -> None:
        if count < 1:
            raise InvalidInput(field="count", rule="must be 1 or more", found=count)
        _require_bars(candles, bars, episode_bars=spec.episode_bars)
        _require_features(candles, features, bars)
        rates = spec.funding_ratio if funding is None else funding
        self.spec = spec
        self.count = count
        self.bars = bars
        self._rows = _rows(features, bars)
        self._table = position_table(candles, spec, bars=bars, rates=rates)
        self._actions_end = len(spec.targets)
        self._bar = np.zeros(count, dtype=np.intp)
        self._last_bar = np.zeros(count, dtype=np.intp)
        self._row = np.zeros(count, dtype=np.intp)  # of the table: what is held, at this bar
        self._terms = np.zeros((count, len(TERMS)))
        self._equity = np.ones(count)
        self._closures: list[_Closures] = []
        self.reset(seed=seed)

    @property
    def observation_width(self) -> int:
        """Return how many numbers an observation has."""
        return int(self._rows.shape[1])

    @property
    def start_bars(self) -> Bars:
        """Return the bar at whose close each episode took its first decision."""
        return self._last_bar - (self.spec.episode_bars - self.bars.start)

    def reset(self, *, seed: int | None = None) -> Observations:
        """Begin every episode in a new window, drawn by a new generator where a seed is given."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._closures = []
        self._begin(np.arange(self.count))
        return self._rows.take(self._bar, axis=0)

    def step(self, actions: NDArray[np.integer]) -> Step:
        """Act at the closes of the current bars and go on to the closes of the next.

        `actions` are numbers of `Target`, one an episode; raises `InvalidInput` for others.
        """
        rewards = self._trade(self._targets(actions))
        self._equity += rewards
        observations = self._observed()
        terminated = self._equity <= self.spec.equity_ratio_min
        at_end = self._bar == self._last_bar
        ended = (terminated | at_end).nonzero()[0]
        if len(ended) == 0:
            return Step(observations, rewards, terminated, at_end, ended, observations[:0])
        final = observations.take(ended, axis=0)
        self._begin(ended)
        observations[ended] = self._rows.take(self._bar[ended], axis=0)
        return Step(observations, rewards, terminated, at_end & ~terminated, ended, final)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that the next steps depend on, the generator included."""
        return {
            "generator": generator_words(self._rng),
            "bar": self._bar.copy(),
            "last_bar": self._last_bar.copy(),
            "terms": self._terms.copy(),
            "equity": self._equity.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on as the environment that gave `state`; what it closed last is forgotten.

        Raises `InvalidInput` for a state that no environment of these bars and rules can be in.
        """
        bar, last_bar, targets = state["bar"], state["last_bar"], state["terms"][:, TARGET]
        if ((bar < 0) | (bar >= last_bar) | (last_bar >= len(self.bars))).any():
            rule = f"must be in a window of {len(self.bars)} bars"
            raise InvalidInput(field="bar", rule=rule, found=bar)
        if not np.isin(targets, self.spec.targets).all():
            raise InvalidInput(field="terms", rule="must be of a target", found=targets)
        restore_generator(self._rng, state["generator"])
        self._bar, self._last_bar = bar.copy(), last_bar.copy()
        self._row = targets.astype(np.intp) * len(self.bars) + bar
        self._terms, self._equity = state["terms"].copy(), state["equity"].copy()
        self._closures = []

    def closed_trades(self) -> list[EpisodeTrade]:
        """Return what the last step closed, by decision or by the bracket; what is open is not."""
        first, table = self.bars.start, self._table
        trades = []
        for episodes, end, terms, bars, returns in self._closures:
            rows, expired = terms[:, ROW].astype(np.intp), terms[:, end] == bars
            held = terms[:, TARGET] != Target.FLAT
            columns = (column[held].tolist() for column in (episodes, rows, bars, expired, returns))
            for episode, row, bar, by_bracket, value in zip(*columns, strict=True):
                target, entry_bar = divmod(row, len(self.bars))
                trade = EpisodeTrade(
                    episode=episode,
                    side=SIDES[Target(target)],
                    entry_bar=first + entry_bar,
                    exit_bar=first + bar,
                    exit_reason=table.reason(row) if by_bracket else ExitReason.DECISION,
                    return_ratio=value,
                )
                trades.append(trade)
        return trades

    def _trade(self, targets: Bars) -> Floats:
        """Live through the next bar and return the rewards."""
        bar, row, terms, table = self._bar, self._row, self._terms, self._table
        bar += 1
        row += 1
        mark = terms[:, MARK].copy()
        value = terms[:, SLOPE] * table.closes.take(row) - terms[:, OFFSET]

        # What leaves at this open, and what fills at it; flat is a row of the table too.
        other = targets != terms[:, TARGET]
        leaves = (other | (terms[:, END_AT_OPEN] == bar)).nonzero()[0]
        before, now = terms.take(leaves, axis=0), bar[leaves]
        left = before[:, SLOPE] * table.opens.take(row[leaves]) - before[:, OFFSET]
        entry = (targets * other)[leaves] * len(self.bars) + now
        after = table.terms.take(entry, axis=0)
        row[leaves] = entry
        terms[leaves] = after
        value[leaves] = after[:, FIRST_VALUE]
        at_open = _Closures(leaves, END_AT_OPEN, before, now, left)

        # What its bracket ends inside this bar, be it a moment after the entry.
        ends = (terms[:, END_INSIDE] == bar).nonzero()[0]
        before, now = terms.take(ends, axis=0), bar[ends]
        value[ends] = before[:, END_VALUE]
        inside = _Closures(ends, END_INSIDE, before, now, before[:, END_VALUE])

        rewards = value - mark
        rewards[leaves] += left
        rewards *= self.spec.position_ratio
        terms[:, MARK] = value
        terms[:, HELD] += terms[:, SHARE]
        row[ends] = now
        terms[ends] = 0.0
        self._closures = [at_open, inside]
        return rewards

    def _observed(self) -> Observations:
        rows = self._rows.take(self._bar, axis=0)
        rows[:, -OWN_COLUMNS:] = self._terms[:, -OWN_COLUMNS:]
        return rows

    def _begin(self, episodes: Bars) -> None:
        windows = len(self.bars) - self.spec.episode_bars
        start = self._rng.integers(windows, size=len(episodes))
        self._bar[episodes] = start
        self._last_bar[episodes] = start + self.spec.episode_bars
        self._equity[episodes] = 1.0
        self._row[episodes] = start
        self._terms[episodes] = 0.0

    def _targets(self, actions: NDArray[np.integer]) -> Bars:
        if actions.shape != (self.count,) or actions.dtype.kind not in "iu":
            rule = f"must be {self.count} integers"
            raise InvalidInput(field="actions", rule=rule, found=f"{actions.dtype} {actions.shape}")
        end = self._actions_end
        targets = actions.astype(np.intp)
        # Read without a sign, what is below zero is large.
        if targets.view(np.uintp).max() >= end:
            found = actions[(actions < 0) | (actions >= end)][0]
            raise InvalidInput(field="actions", rule=f"must be in [0, {end})", found=found)
        return targets


class _Closures(NamedTuple):
    """What one part of the last step ended: the terms it had and what it returned, flat or not.

    `end` is the term that says whether the bracket ended it.
    """

    episodes: Bars
    end: int
    terms: Floats
    bars: Bars
    returns: Floats


def _rows(features: NDArray[np.floating], bars: range) -> Observations:
    """Return what is observed at each bar without a position."""
    rows = np.zeros((len(bars), features.shape[1] + OWN_COLUMNS), dtype=np.float32)
    rows[:, :-OWN_COLUMNS] = features[bars.start : bars.stop]
    return rows


def _require_bars(candles: Candles, bars: range, *, episode_bars: int) -> None:
    if bars.step != 1 or bars.start < 0 or bars.stop > len(candles):
        rule = f"must be consecutive and within the {len(candles)} candles"
        raise InvalidInput(field="bars", rule=rule, found=bars)
    if len(bars) <= episode_bars:
        rule = f"must be more than the {episode_bars} of an episode"
        raise InvalidInput(field="bars", rule=rule, found=len(bars))


def _require_features(candles: Candles, features: NDArray[np.floating], bars: range) -> None:
    if features.ndim != 2 or len(features) != len(candles) or features.dtype.kind != "f":
        rule = f"must have a row of floats for each of {len(candles)} bars"
        raise InvalidInput(field="features", rule=rule, found=f"{features.dtype} {features.shape}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        finite = np.isfinite(features[bars.start : bars.stop].astype(np.float32)).all(axis=1)
    if not finite.all():
        bar = bars.start + int(finite.argmin())
        raise InvalidInput(field="features", rule="must be finite float32", found=f"bar {bar}")
