"""A stored policy meets each opportunity flat, and trades it as the paper market would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_candles import part, random_walk
from made_up_policy import ENVIRONMENT, FEATURES, trading

from bandit.core.acting import ActingRules
from bandit.core.errors import InvalidInput
from bandit.core.paper_fills import Side
from learners.artifact import Artifact
from learners.challenger import NOTIONAL, ChallengerPlan, Market, markets_of, played
from learners.market.candles import Candles
from learners.market.paper_market import (
    ClosedPosition,
    ExitReason,
    funding_charges,
    open_position,
    settle,
)
from learners.market.scaler import Scaler
from learners.network import Algorithm
from learners.opportunities import Intention, OpportunityTaker
from learners.serving import ServedPolicy
from learners.sight import Sight
from learners.training_plan import TrainingPlan

PLAN = ChallengerPlan(
    features=FEATURES,
    environment=ENVIRONMENT,
    training=TrainingPlan(algorithm=Algorithm.PPO, seed=1),
    acting=ActingRules(confidence_min=0.0, allow_ranging=True, volatility_max=1e6),
    train_bars=100,
    test_bars=50,
)
CANDLES = random_walk(200, seed=3)


def market_of(candles: Candles) -> Market:
    [market] = markets_of([candles], FEATURES)
    return market


def scaler() -> Scaler:
    return Scaler.fit(market_of(CANDLES).features.values[:100])


def artifact(root: Path) -> Artifact:
    return trading(root, FEATURES, scaler(), ENVIRONMENT)


def taker(
    root: Path, *, candles: Candles = CANDLES, rules: ActingRules = PLAN.acting
) -> OpportunityTaker:
    return OpportunityTaker(artifact(root), candles, rules=rules)


def lived(bar: int, intention: Intention) -> ClosedPosition | None:
    position = open_position(
        CANDLES, bar=bar, proposal=intention.proposal, notional=NOTIONAL, costs=ENVIRONMENT.costs
    )
    assert position is not None
    charges = funding_charges(CANDLES, ENVIRONMENT.funding_ratio)
    return settle(CANDLES, position, left_at=intention.left_at, funding=charges)


def test_every_opportunity_is_traded_as_a_backtest_that_begins_there(tmp_path: Path) -> None:
    asked = taker(tmp_path)
    policy, market = ServedPolicy(artifact(tmp_path)), market_of(CANDLES)
    reasons: set[ExitReason | None] = set()
    for bar in range(100, 190):
        # Long enough that being flat at its end ends nothing.
        bars = range(bar, bar + ENVIRONMENT.holding_bars_max + 3)
        sight = Sight(spec=FEATURES, scaler=scaler())
        trades = played(policy, market, sight, PLAN, bars).closed
        intention = asked.intention(bar)
        if intention is None:
            assert not trades or trades[0].opened_at > CANDLES.opening(bar + 1)
            assert not trades or trades[0].opened_at > CANDLES.opening(bar + 1)
            reasons.add(None)
            reasons.add(None)
            continue
            continue
        assert lived(bar, intention) == trades[0]
        assert intention.share == 1.0
        reasons.add(trades[0].exit_reason)
    assert reasons >= {None, ExitReason.DECISION, ExitReason.STOP, ExitReason.TAKE_PROFIT}


def test_what_the_rules_forbid_is_declined(tmp_path: Path) -> None:
    features = market_of(CANDLES).features
    strict = taker(tmp_path, rules=replace(PLAN.acting, allow_ranging=False))
    taken = 0
    for bar in range(100, 160):
        regime, intention = features.regime(bar), strict.intention(bar)
        assert regime.adx is not None
        if intention is not None:
            taken += 1
            assert regime.adx >= 25.0
            assert intention.proposal.side is (Side.LONG if regime.trend > 0 else Side.SHORT)
    assert 0 < taken < 60


def test_guards_make_it_smaller_or_stop_it(tmp_path: Path) -> None:
    asked = taker(tmp_path)
    whole = asked.intention(120)
    half = asked.intention(120, size_multiplier=0.5)
    assert whole is not None
    assert half == replace(whole, share=0.5)
    assert asked.intention(120, size_multiplier=0.0) is None
    unsure = taker(tmp_path, rules=replace(PLAN.acting, confidence_min=0.4))
    assert unsure.intention(120) is not None
    assert unsure.intention(120, confidence_bump=0.6) is None


def test_volatile_markets_halve_it(tmp_path: Path) -> None:
    features = market_of(CANDLES).features
    asked = taker(tmp_path, rules=replace(PLAN.acting, volatility_max=1.2))
    shares = set()
    for bar in range(100, 130):
        intention, regime = asked.intention(bar), features.regime(bar)
        if intention is not None:
            assert regime.volatility is not None
            assert intention.share == (0.5 if regime.volatility > 1.2 else 1.0)
            shares.add(intention.share)
    assert shares == {0.5, 1.0}


def test_the_end_of_the_candles_leaves_the_end_of_the_trade_to_them(tmp_path: Path) -> None:
    asked = taker(tmp_path)
    assert asked.intention(199) is None, "there is no bar to enter at"
    taken = {bar: asked.intention(bar) for bar in range(180, 199)}
    open_ends = [i for bar, i in taken.items() if i is not None and lived(bar, i) is None]
    assert open_ends
    assert {intention.left_at for intention in open_ends} <= {None, 199}


def test_what_comes_after_its_end_changes_nothing(tmp_path: Path) -> None:
    whole, cut = taker(tmp_path), taker(tmp_path, candles=part(CANDLES, 0, 150))
    for bar in range(100, 143):
        assert whole.intention(bar) == cut.intention(bar)


def test_bars_of_another_length_are_refused(tmp_path: Path) -> None:
    days = np.datetime64("2024-01-01", "us") + np.arange(200) * np.timedelta64(1, "D")
    daily = Candles(instrument="BTCUSD", opened_at=days, **CANDLES.numbers())
    with pytest.raises(InvalidInput, match="must have a bar every 1:00:00"):
        taker(tmp_path, candles=daily)
