"""What a challenger is made and measured with: one plan, shared bars, and the paper market."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from made_up_candles import part, random_walk
from made_up_policy import ENVIRONMENT, FEATURES, network_of, spec_of

from bandit.core.acting import ActingRules
from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import Side
from learners.artifact import write
from learners.artifact_spec import ActionSpec
from learners.challenger import NOTIONAL, ChallengerPlan, Market, Played, markets_of, played
from learners.entries import Entries
from learners.market.candles import Candles
from learners.market.features import FeatureSpec
from learners.market.paper_market import (
    ClosedPosition,
    ExitReason,
    funding_charges,
    open_position,
    settle,
)
from learners.market.scaler import Scaler
from learners.network import Algorithm
from learners.serving import ServedPolicy
from learners.sight import Sight
from learners.training_plan import TrainingPlan

PLAN = ChallengerPlan(
    features=FEATURES,
    environment=ENVIRONMENT,
    training=TrainingPlan(algorithm=Algorithm.PPO, seed=1),
    acting=ActingRules(confidence_min=0.0, allow_ranging=True),
    train_bars=100,
    test_bars=50,
)
BARS = range(100, 160)
ACTIONS = (
    ActionSpec(name="flat", position=0.0),
    ActionSpec(name="long", position=1.0),
    ActionSpec(name="short", position=-1.0),
)


def wanting(tmp_path: Path, column: int | None, inputs: int) -> ServedPolicy:
    """A policy that is long where a column of its observation is above 0, else short; or flat."""
    weights, bias = np.zeros((3, inputs), np.float32), np.zeros(3, np.float32)
    if column is None:
        bias[0] = 1.0
    else:
        weights[1, column], weights[2, column] = 1.0, -1.0
        bias[0] = -100.0
    network = network_of(Algorithm.PPO, inputs=inputs, hidden=())
    spec = replace(spec_of(network, golden=1), actions=ACTIONS)
    tensors = {"layer.0.weight": weights, "layer.0.bias": bias}
    return ServedPolicy(write(tmp_path, spec, tensors, observations=np.zeros((1, inputs))))


def market_of(candles: Candles) -> tuple[Market, Sight]:
    [market] = markets_of([candles], FEATURES)
    return market, Sight(spec=FEATURES, scaler=Scaler.fit(market.features.values[:100]))


def bar_of(candles: Candles, trade: ClosedPosition) -> int:
    return next(bar for bar in BARS if candles.opening(bar) == trade.opened_at)


def test_played_trades_are_those_of_the_paper_market(tmp_path: Path) -> None:
    candles = random_walk(200, seed=3)
    market, sight = market_of(candles)
    column = market.features.names.index("return_1")
    policy = wanting(tmp_path, column, len(market.features.names) + 3)

    found = played(policy, market, sight, PLAN, BARS)
    closed = found.closed

    assert {trade.side for trade in closed} == set(Side)
    assert {trade.exit_reason for trade in closed} >= {ExitReason.DECISION, ExitReason.STOP}
    charges = funding_charges(candles, 0.0001)
    signs = np.sign(sight.scaler.apply(market.features.values)[:, column])
    for trade in closed:
        entry = bar_of(candles, trade)
        side = Side.LONG if signs[entry - 1] > 0 else Side.SHORT
        assert trade.side is side
        # It leaves at the first close at which it wants the other side, or has to be flat.
        position = open_position(
            candles,
            bar=entry - 1,
            proposal=ENVIRONMENT.proposal(side),
            notional=NOTIONAL,
            costs=ENVIRONMENT.costs,
        )
        assert position is not None
        leaving = [b for b in range(entry, 159) if signs[b] != side.sign] + [158]
        left_at = leaving[0] if leaving[0] >= entry else None
        assert trade == settle(candles, position, left_at=left_at, funding=charges)
    assert found.entries.wanted == found.entries.asked  # never flat by its own will
    assert min(trade.opened_at for trade in closed) >= candles.opening(101)
    assert max(trade.closed_at for trade in closed) <= candles.opening(159)


def test_who_wants_nothing_trades_nothing(tmp_path: Path) -> None:
    market, sight = market_of(random_walk(200, seed=3))
    policy = wanting(tmp_path, None, len(market.features.names) + 3)
    assert played(policy, market, sight, PLAN, BARS) == Played(
        closed=[], entries=Entries(asked=len(BARS) - 2)
    )


def test_the_regime_filter_stands_before_the_policy(tmp_path: Path) -> None:
    market, sight = market_of(random_walk(200, seed=3))
    column = market.features.names.index("return_1")
    policy = wanting(tmp_path, column, len(market.features.names) + 3)
    strict = replace(PLAN, acting=ActingRules(confidence_min=0.0, adx_min=100.0))
    kept_out = len(BARS) - 2
    assert played(policy, market, sight, strict, BARS) == Played(
        closed=[], entries=Entries(asked=kept_out, wanted=kept_out, off_regime=kept_out)
    )
    usual = replace(PLAN, acting=ActingRules(confidence_min=0.0))
    for trade in played(policy, market, sight, usual, BARS).closed:
        entry = bar_of(market.candles, trade)
        assert market.features.regime(entry - 1).trend == trade.side.sign


def test_what_is_not_known_is_entered_by_nobody(tmp_path: Path) -> None:
    market, sight = market_of(random_walk(200, seed=3))
    column = market.features.names.index("return_1")
    policy = wanting(tmp_path, column, len(market.features.names) + 3)
    lawless = replace(PLAN, acting=ActingRules(confidence_min=0.0, filters_regime=False))
    closed = played(policy, market, sight, lawless, range(len(market.candles))).closed
    first = market.candles.opening(market.features.warm_up + 1)
    assert min(trade.opened_at for trade in closed) == first


def test_what_comes_after_the_bars_changes_nothing(tmp_path: Path) -> None:
    candles = random_walk(200, seed=3)
    market, sight = market_of(candles)
    column = market.features.names.index("return_1")
    policy = wanting(tmp_path, column, len(market.features.names) + 3)
    cut, _ = market_of(part(candles, 0, 160))
    assert played(policy, cut, sight, PLAN, BARS) == played(policy, market, sight, PLAN, BARS)


def test_instruments_must_share_their_bars() -> None:
    one, other = random_walk(60, seed=1), random_walk(60, seed=2)
    assert len(markets_of([one], FEATURES)) == 1
    for series, field in (
        ([], "candles"),
        ([one, other], "candles"),  # the same instrument twice
        ([one, renamed(part(other, 1, 60))], "ETHUSD"),
    ):
        with pytest.raises(InvalidInput, match=f"^{field}: "):
            markets_of(series, FEATURES)
    assert len(markets_of([one, renamed(other)], FEATURES)) == 2


def renamed(candles: Candles) -> Candles:
    return Candles(instrument="ETHUSD", opened_at=candles.opened_at, **candles.numbers())


def test_the_digest_names_what_decides_and_nothing_else() -> None:
    same = replace(PLAN.training, deadline_seconds=1.0, checkpoint_every_steps=1)
    assert replace(PLAN, training=same).digest == PLAN.digest
    others = [
        replace(PLAN, training=replace(PLAN.training, seed=2)),
        replace(PLAN, features=FeatureSpec(interval=timedelta(hours=1))),
        replace(PLAN, environment=replace(ENVIRONMENT, stop_ratio=0.03)),
        replace(PLAN, acting=ActingRules()),
        replace(PLAN, train_bars=101),
        replace(PLAN, test_bars=51),
        replace(PLAN, embargo_bars=1),
    ]
    assert len({PLAN.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_another_release_with_other_settings_makes_another_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, settings = PLAN.digest, PLAN.training.settings
    slower = replace(settings, learning_rate=settings.learning_rate / 2)
    monkeypatch.setattr(TrainingPlan, "settings", property(lambda _: slower))
    assert PLAN.digest != before
