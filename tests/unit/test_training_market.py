"""Candles as something to train in: shared evenly, named by content, and resumable to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from benchmarks.learners._planted import SPEC, planted
from learners.network import Algorithm
from learners.position_table import TARGET
from learners.reinforcement import TrainedPolicy, train
from learners.training_events import DeadlinePassed
from learners.training_market import CandleMarket, TrainingWindow
from learners.training_plan import Profile, TrainingPlan
from liveops.clock import monotonic
from tests.training_markets import HastyClock

BARS = 600


def window(seed: int, bars: range = range(500)) -> TrainingWindow:
    candles, features = planted(bars=BARS, edge=0.001, seed=seed)
    return TrainingWindow(candles=candles, features=features, bars=bars)


def market_of(*windows: TrainingWindow) -> CandleMarket:
    return CandleMarket(windows=windows, spec=replace(SPEC, episode_bars=30))


def test_a_restored_market_goes_on_as_the_one_it_was_taken_from() -> None:
    market = market_of(window(1), window(2))
    ours, other = (market.environments(6, seed=seed) for seed in (3, 4))
    actions = np.random.default_rng(5).integers(3, size=(200, 6))
    ours.reset()
    for action in actions[:45]:
        ours.step(action)
    other.reset()
    other.restore({name: array.copy() for name, array in ours.state().items()})
    for action in actions[45:]:
        expected, found = ours.step(action), other.step(action)
        for one, another in zip(expected[:3], found[:3], strict=True):
            np.testing.assert_array_equal(one, another)


def change(name: str, value: float, *, at: int = 0) -> Callable[[dict[str, NDArray[Any]]], None]:
    def changed(state: dict[str, NDArray[Any]]) -> None:
        state[name].flat[at] = value

    return changed


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (change("0.bar", -1), "bar"),
        (change("0.bar", 500), "bar"),
        (change("0.last_bar", 500), "bar"),
        (change("0.last_bar", 0), "bar"),
        (change("1.terms", 0.5, at=TARGET), "terms"),
        (change("1.generator", 2, at=3), "generator"),  # an even increment
    ],
)
def test_a_state_that_cannot_be_is_refused(
    changed: Callable[[dict[str, NDArray[Any]]], None], field: str
) -> None:
    environments = market_of(window(1), window(2)).environments(4, seed=3)
    environments.reset()
    state = {name: array.copy() for name, array in environments.state().items()}
    changed(state)
    with pytest.raises(InvalidInput) as refused:
        environments.restore(state)
    assert refused.value.field == field


def test_windows_share_the_episodes() -> None:
    environments = market_of(window(1), window(2)).environments(8, seed=3)
    assert environments.num_envs == 8
    assert environments.get_attr("count") == [4] * 8
    with pytest.raises(InvalidInput, match="count: must be 1 or more"):
        market_of(window(1), window(2)).environments(1, seed=3)
    with pytest.raises(InvalidInput, match="windows: must be 1 or more"):
        market_of()


def test_the_digest_names_everything_that_is_trained_in() -> None:
    base = window(1)
    known = market_of(base)
    features = base.features.copy()
    features[7, 1] += 1e-9
    others = [
        market_of(base, window(2)),
        market_of(window(2)),
        market_of(window(1, range(1, 500))),
        market_of(replace(base, features=features)),
        CandleMarket(windows=(base,), spec=SPEC),
    ]
    assert market_of(window(1)).digest == known.digest
    assert len({known.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_a_market_reaches_from_its_first_bar_to_the_close_of_its_last() -> None:
    made = market_of(window(1, range(24, 500)), window(2, range(48, 501)))
    # Hourly from 2024-01-01: bar 24 opens a day later, bar 500 closes 501 hours after the start.
    assert made.data_from.isoformat() == "2024-01-02T00:00:00+00:00"
    assert made.data_to.isoformat() == "2024-01-21T21:00:00+00:00"


def test_a_training_on_candles_goes_on_where_it_stopped(tmp_path: Path) -> None:
    market = market_of(window(1), window(2))
    plan = TrainingPlan(
        algorithm=Algorithm.PPO,
        profile=Profile.TEXTBOOK,
        seed=9,
        total_steps=4_096,
        environments=32,
        layers=(8,),
        checkpoint_every_steps=1,
        deadline_seconds=500.0,
    )
    whole = trained(plan, market, tmp_path / "whole")
    with pytest.raises(DeadlinePassed) as stopped:  # 400 at the start, 600 after a round
        trained(plan, market, tmp_path / "stopped", clock=HastyClock(tick_seconds=200.0))
    assert stopped.value.steps == 2_048
    resumed = trained(plan, market, tmp_path / "stopped")
    assert (whole.resumed_steps, resumed.resumed_steps) == (0, 2_048)
    assert resumed.digest == whole.digest
    assert resumed.record.data_digest == market.digest


def trained(
    plan: TrainingPlan,
    market: CandleMarket,
    folder: Path,
    *,
    clock: Callable[[], float] = monotonic,
) -> TrainedPolicy:
    return train(plan, market, folder=folder, clock=clock, report=lambda _: None)
