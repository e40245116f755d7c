"""A challenger made from candles: what it is made of, and how it plays bars.

It is measured walking forward, on bars that it was not made from (`learners.workshop`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandit.core.acting import ActingRules
from bandit.core.errors import InvalidInput
from learners.backtest import BacktestTrade
from learners.canonical_json import canonical
from learners.classifier_plan import ClassifierPlan
from learners.entries import Entries
from learners.environment import OWN_COLUMNS, EpisodeTrade, MarketEnvironment
from learners.environment_spec import EnvironmentSpec, Target
from learners.market.candles import Candles
from learners.market.features import Features, FeatureSpec, features_of
from learners.market.paper_market import (
    ClosedPosition,
    ExitReason,
    funding_charges,
    open_position,
    settle,
)
from learners.opportunities import NO_RUIN, decided, target_of
from learners.serving import ServedPolicy
from learners.sight import Sight
from learners.training_plan import TrainingPlan

NOTIONAL: Final = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengerPlan:
    """How a challenger is made and measured.

    A fold trains on `train_bars` rows and is measured on the `test_bars` after them, `embargo_bars`
    and the longest holding apart; the policy itself is trained on the newest `train_bars`.
    """

    features: FeatureSpec
    environment: EnvironmentSpec
    training: TrainingPlan | ClassifierPlan
    acting: ActingRules
    train_bars: int
    test_bars: int
    embargo_bars: int = 24

    @property
    def reach_bars(self) -> int:
        """Return how many bars after a decision its trade, or its label, may still read."""
        reach = self.environment.holding_bars_max
        if isinstance(self.training, ClassifierPlan):
            reach = max(reach, self.training.horizon_bars)
        return reach + 1

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all that decides what is made, but for the candles."""
        bars = [self.train_bars, self.test_bars, self.embargo_bars]
        rules = {name: getattr(self.acting, name) for name in self.acting.__slots__}
        content = [
            *(self.features.to_json(), self.environment.to_json()),
            *(self.training.decisive(), rules, bars),
        ]
        return hashlib.sha256(canonical(content)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Market:
    """One instrument with its features."""

    candles: Candles
    features: Features


def markets_of(series: Sequence[Candles], spec: FeatureSpec) -> list[Market]:
    """Compute the features of several instruments, which must share their bars.

    Raises `InvalidInput` where they do not, an instrument comes twice, or there is none.
    """
    instruments = [candles.instrument for candles in series]
    if not series or len(set(instruments)) < len(instruments):
        rule = "must be one or more instruments, each once"
        raise InvalidInput(field="candles", rule=rule, found=instruments)
    for candles in series:
        if not np.array_equal(candles.opened_at, series[0].opened_at):
            rule = f"must have the bars of {instruments[0]}"
            raise InvalidInput(field=candles.instrument, rule=rule, found=f"{len(candles)} bars")
    return [Market(candles=each, features=features_of(each, spec)) for each in series]


def data_digest(series: Sequence[Candles]) -> str:
    """Return the SHA-256 that names the candles of all instruments."""
    return hashlib.sha256(canonical([candles.digest for candles in series])).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a policy closed of some bars, at nominal size, and how often it wanted in."""

    closed: list[ClosedPosition]
    entries: Entries


def played(
    policy: ServedPolicy, market: Market, sight: Sight, plan: ChallengerPlan, bars: range
) -> Played:
    """Let a policy trade bars, from flat to flat.

    It is asked at the close of each bar but the last two, which end what it holds; where the
    features are not known it may only close.
    """
    # One window, which is all of the bars, and no ruin: what is measured goes on to its end.
    spec = replace(plan.environment, episode_bars=len(bars) - 1, equity_ratio_min=NO_RUIN)
    rows, features = sight.of(market.features)
    environment = MarketEnvironment(market.candles, rows, spec, count=1, bars=bars, seed=0)
    charges = funding_charges(market.candles, spec.funding_ratio)
    seen, closed, entries = environment.reset()[0], list[ClosedPosition](), Entries()
    for bar in bars[:-1]:
        target = Target.FLAT
        if bar < bars[-2]:
            action = decided(policy, seen, features, bar, rules=plan.acting)
            target = target_of(action)
            if not seen[-OWN_COLUMNS]:
                entries += Entries.of(action)
        step = environment.step(np.array([target]))
        seen = step.observations[0]
        closed += [
            settled(market.candles, trade, spec, charges) for trade in environment.closed_trades()
        ]
        if step.terminated[0]:
            break
    return Played(closed=closed, entries=entries)


def settled(
    candles: Candles,
    trade: EpisodeTrade,
    spec: EnvironmentSpec,
    charges: NDArray[np.float64],
) -> ClosedPosition:
    """Live a trade of the environment again in the paper market, exact and with its times."""
    position = open_position(
        candles,
        bar=trade.entry_bar - 1,
        proposal=spec.proposal(trade.side),
        notional=NOTIONAL,
        costs=spec.costs,
    )
    assert position is not None
    left_at = trade.exit_bar - 1 if trade.exit_reason is ExitReason.DECISION else None
    closed = settle(candles, position, left_at=left_at, funding=charges)
    assert closed is not None
    assert closed.exit_reason is trade.exit_reason
    return closed


def trade_of(market: Market, closed: ClosedPosition) -> BacktestTrade:
    """Return a closed position as a backtest counts it."""
    return BacktestTrade(
        instrument=market.candles.instrument,
        opened_at=closed.opened_at,
        closed_at=closed.closed_at,
        return_ratio=float(closed.return_ratio),
    )
