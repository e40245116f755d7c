"""Hypothetical markets have the properties they are named for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bandit.core import simulation
from bandit.core.errors import InvalidInput
from bandit.core.simulation import HARD, IID, REAL, HypotheticalArm, Luck, Market, Setting

CHAMPION = HypotheticalArm(profit_factor=1.3)


def drawn(setting: Setting, arm: HypotheticalArm, *, runs: int, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    market = Market.drawn(setting, runs=runs, opportunities=n, rng=rng)
    return simulation.returns(arm, market, Luck.drawn(market, rng))


def log_profit_factors(returns: np.ndarray) -> np.ndarray:
    gains = np.maximum(returns, 0.0).sum(axis=1)
    losses = np.maximum(-returns, 0.0).sum(axis=1)
    return np.log(gains / losses)


@pytest.mark.parametrize("setting", [IID, REAL, HARD], ids=lambda s: s.name)
@pytest.mark.parametrize(("factor", "rate"), [(1.3, 0.5), (0.9, 0.5), (1.3, 0.77), (2.4, 0.4)])
def test_arm_is_worth_what_it_says(setting: Setting, factor: float, rate: float) -> None:
    arm = HypotheticalArm(profit_factor=factor, win_rate=rate)
    returns = drawn(setting, arm, runs=400, n=2500, seed=1)
    assert (returns > 0).mean() == pytest.approx(rate, abs=0.01)
    assert np.abs(returns).mean() == pytest.approx(arm.size, rel=0.02)
    # Of a million trades; the tails of `hard` have no third moment.
    assert returns.mean() == pytest.approx(arm.mean, abs=6e-5)


@pytest.mark.parametrize(("n", "deviation", "tolerance"), [(30, 0.536, 0.01), (150, 0.231, 0.005)])
def test_spread_of_the_profit_factor_is_the_published_one(
    n: int, deviation: float, tolerance: float
) -> None:
    found = log_profit_factors(drawn(IID, CHAMPION, runs=12_000, n=n, seed=2))
    assert found.std() == pytest.approx(deviation, abs=tolerance)


def test_wins_come_in_clusters_and_volatility_in_spells() -> None:
    def echo(values: np.ndarray) -> float:
        return float(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1])

    real = drawn(REAL, CHAMPION, runs=200, n=3000, seed=3)
    plain = drawn(IID, CHAMPION, runs=200, n=3000, seed=3)
    assert 0.05 < echo(real > 0) < 0.15
    assert abs(echo(plain > 0)) < 0.01
    market = Market.drawn(REAL, runs=200, opportunities=3000, rng=np.random.default_rng(4))
    assert set(np.unique(market.volatility)) == {0.8, 1.8}
    assert (market.volatility == 1.8).mean() == pytest.approx(0.2, abs=0.03)
    changes = market.volatility[:, 1:] != market.volatility[:, :-1]
    assert 2 / changes.mean() == pytest.approx(100 + 400, rel=0.1)  # a spell of each kind
    assert market.mood.std() == pytest.approx(1.0, abs=0.02)
    assert market.mood[:, 0].std() == pytest.approx(1.0, abs=0.15)


def test_shared_luck_makes_equal_arms_earn_the_same() -> None:
    rng = np.random.default_rng(5)
    market = Market.drawn(REAL, runs=50, opportunities=1000, rng=rng)
    one, other = Luck.drawn(market, rng), Luck.drawn(market, rng)
    ours = simulation.returns(CHAMPION, market, one)
    for share in (0.0, 0.5, 1.0):
        theirs = simulation.returns(CHAMPION, market, one.shared_with(other, share=share, rng=rng))
        assert (ours == theirs).mean() == pytest.approx(share, abs=0.02)


def test_a_seed_gives_the_same_market() -> None:
    one, again, other = (drawn(HARD, CHAMPION, runs=3, n=40, seed=seed) for seed in (6, 6, 7))
    assert (one == again).all()
    assert not (one == other).any()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"clustering": 1.0}, "clustering"),
        ({"persistence": -0.1}, "persistence"),
        ({"tail": 2.0}, "tail"),
        ({"turbulent": 0.0}, "turbulent"),
        ({"dwell": 0.5}, "dwell"),
        ({"volatility": (0.0, 1.0)}, "volatility"),
        ({"volatility": (1.0, math.inf)}, "volatility"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Setting(name="x", **values)  # type: ignore[arg-type]
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"profit_factor": 0.0}, "profit_factor"),
        ({"profit_factor": math.nan}, "profit_factor"),
        ({"profit_factor": 1.0, "win_rate": 1.0}, "win_rate"),
        ({"profit_factor": 1.0, "size": 0.0}, "size"),
    ],
)
def test_impossible_arms_are_refused(values: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        HypotheticalArm(**values)
    assert refused.value.field == field
