"""Steps a second of the batched training environment, beside a plain one in the same run.

Both live through the same episodes on the same actions, and have to earn the same.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import QUICK, Target, alternated, claim, paired, progress
from benchmarks.learners._plain_environment import PlainEnvironment
from learners.environment import MarketEnvironment
from learners.environment_spec import EnvironmentSpec
from learners.market.candles import shipped_candles
from learners.market.paper_market import PERPETUAL_TAKER, funding_charges

STEPS = 100 if QUICK else 500
ROUNDS = 2 if QUICK else 20
FEATURES = 32
# One in twenty actions asks for something new: a position is kept for hours, not for one bar.
CHANGE = 0.05
SPEC = EnvironmentSpec(
    costs=PERPETUAL_TAKER,
    stop_ratio=0.02,
    take_profit_ratio=0.03,
    holding_bars_max=24,
    shorts_allowed=True,
    position_ratio=0.5,
    funding_ratio=0.0001,
    episode_bars=STEPS,
    equity_ratio_min=0.01,
)
# What one plain environment does in the time of fifty must not take longer in a batch of 256, and
# a million steps a second make the environment a small part of any training.
PLAIN_TARGET = 50.0
RATE_MIN = 1e6

Actions = NDArray[np.intp]


def actions_of(count: int) -> Actions:
    """Targets of `count` episodes, a row a step."""
    rng = np.random.default_rng(7)
    actions = rng.integers(len(SPEC.targets), size=(STEPS, count))
    kept = rng.random(actions.shape) >= CHANGE
    for step in range(1, STEPS):
        actions[step] = np.where(kept[step], actions[step - 1], actions[step])
    return actions


def environments(count: int) -> tuple[MarketEnvironment, PlainEnvironment]:
    """Make a batch and a plain environment of the same market."""
    candles = shipped_candles()
    features = np.random.default_rng(1).normal(size=(len(candles), FEATURES))
    bars = range(len(candles))
    batch = MarketEnvironment(candles, features, SPEC, count=count, bars=bars, seed=1)
    charges = funding_charges(candles, SPEC.funding_ratio)
    return batch, PlainEnvironment(candles, features, SPEC, charges)


def measure(count: int) -> tuple[list[float], list[float]]:
    """Return the seconds that each round took us, and the plain environment."""
    batch, plain = environments(count)
    actions = actions_of(count)
    batch.reset(seed=2)
    starts = batch.start_bars.tolist()
    earned = {"ours": 0.0, "plain": 0.0}

    def ours() -> None:
        batch.reset(seed=2)
        earned["ours"] = sum(float(batch.step(action).rewards.sum()) for action in actions)

    def one_by_one() -> None:
        columns = actions.T.tolist()
        earned["plain"] = sum(episode(plain, *each) for each in zip(starts, columns, strict=True))

    work: dict[str, Callable[[], None]] = {"ours": ours, "plain": one_by_one}
    progress(f"{count} episodes of {STEPS} steps, {ROUNDS} rounds")
    seconds = alternated(work, rounds=ROUNDS)
    assert abs(earned["ours"] - earned["plain"]) < 1e-8, earned
    return seconds["ours"], seconds["plain"]


def episode(plain: PlainEnvironment, start_bar: int, actions: list[int]) -> float:
    """Live through one episode and return the sum of its rewards."""
    plain.reset(start_bar)
    return sum(plain.step(action).reward for action in actions)


def main() -> None:
    """Print the claims."""
    for count in (256, 1024):
        ours, plain = measure(count)
        rate = count * STEPS / median(ours)
        claim(
            f"learners.environment.{count}.beside_plain",
            ours=f"{rate:.0f}/s",
            yardstick=f"{count * STEPS / median(plain):.0f}/s",
            ratio=paired(plain, ours),
            side=Target.AT_LEAST,
            target=PLAIN_TARGET,
        )
        claim(
            f"learners.environment.{count}.rate",
            ours=f"{rate:.0f}/s",
            yardstick=f"{RATE_MIN:.0f}/s",
            ratio=rate / RATE_MIN,
            side=Target.AT_LEAST,
            target=1.0,
        )


if __name__ == "__main__":
    main()
