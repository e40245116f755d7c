"""The batched environment beside a plain one, beside the paper market, and beside its own sums."""

from __future__ import annotations

import numpy as np
from environments import (
    actions_of,
    assert_like_paper,
    assert_like_plain,
    features_of,
    markets,
    specs,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from learners.environment import MarketEnvironment
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import Candles
from learners.market.paper_market import funding_charges

seeds = st.integers(0, 2**32 - 1)
changes = st.sampled_from([0.1, 0.4, 1.0])


@settings(deadline=None)  # each lives through whole episodes bar by bar
@given(markets(), specs(), seeds, changes)
def test_the_batch_agrees_with_a_plain_environment_step_by_step(
    candles: Candles, spec: EnvironmentSpec, seed: int, change: float
) -> None:
    features = features_of(candles)
    environment = MarketEnvironment(
        candles, features, spec, count=3, bars=range(1, len(candles)), seed=seed
    )
    actions = actions_of(environment, steps=25, seed=seed, change=change)
    assert_like_plain(environment, candles, features, actions)


@settings(deadline=None)  # each lives through whole episodes bar by bar
@given(markets(), specs(), seeds, st.lists(st.integers(-99, 99), min_size=40, max_size=40))
def test_the_batch_agrees_under_funding_that_changes(
    candles: Candles, spec: EnvironmentSpec, seed: int, rates: list[int]
) -> None:
    features = features_of(candles)
    funding = np.array(rates[: len(candles)]) / 1000
    environment = MarketEnvironment(
        candles, features, spec, count=3, bars=range(len(candles)), seed=seed, funding=funding
    )
    actions = actions_of(environment, steps=20, seed=seed, change=0.3)
    charges = funding_charges(candles, funding)
    assert_like_plain(environment, candles, features, actions, charges=charges)


@settings(deadline=None)  # each lives through whole episodes bar by bar
@given(markets(), specs(), seeds, changes)
def test_every_trade_is_that_of_the_paper_market_and_rewards_sum_to_the_trades(
    candles: Candles, spec: EnvironmentSpec, seed: int, change: float
) -> None:
    environment = MarketEnvironment(
        candles, features_of(candles), spec, count=3, bars=range(len(candles)), seed=seed
    )
    actions = actions_of(environment, steps=25, seed=seed, change=change)
    assert_like_paper(environment, candles, actions)


@settings(deadline=None)  # each lives through whole episodes bar by bar
@given(markets(), specs(), seeds, st.integers(1, 10))
def test_nothing_outside_the_allowed_bars_is_read(
    candles: Candles, spec: EnvironmentSpec, seed: int, cut: int
) -> None:
    bars = range(cut, min(len(candles) - 1, cut + 1 + spec.episode_bars))
    assume(len(bars) > spec.episode_bars)
    features = features_of(candles)
    outside = np.ones(len(candles), dtype=np.bool_)
    outside[bars.start : bars.stop] = False
    other_features = np.where(outside[:, None], np.nan, features)
    numbers = {name: np.where(outside, 1.0, v) for name, v in candles.numbers().items()}
    other = Candles(instrument="OTHER", opened_at=candles.opened_at, **numbers)
    one, two = (
        MarketEnvironment(c, f, spec, count=2, bars=bars, seed=seed)
        for c, f in ((candles, features), (other, other_features))
    )
    for action in actions_of(one, steps=15, seed=seed, change=0.5):
        ours, theirs = one.step(action), two.step(action)
        for mine, its in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, its)
