"""Steps a second that a learner of Stable-Baselines3 gets from 256 environments.

Ours is one batch; the yardstick the plain environment, 256 times, as gymnasium environments in the
`DummyVecEnv` that Stable-Baselines3 puts them in. Both have to earn the same.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from statistics import median
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from benchmarks.claims import QUICK, Target, alternated, claim, paired, progress
from benchmarks.learners._plain_environment import PlainEnvironment
from benchmarks.learners.environment_speed import PLAIN_TARGET, STEPS, actions_of, environments
from learners.environment_interfaces import MarketVecEnv

COUNT = 256
ROUNDS = 2 if QUICK else 10


class PlainGym(gymnasium.Env[NDArray[np.float32], np.int64]):
    """The plain environment behind the interface of gymnasium, in one window."""

    render_mode = None

    def __init__(self, plain: PlainEnvironment, start_bar: int, batch: MarketVecEnv) -> None:
        self.plain, self.start_bar = plain, start_bar
        self.observation_space, self.action_space = batch.observation_space, batch.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin the window again."""
        super().reset(seed=seed, options=options)
        return self.plain.reset(self.start_bar), {}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Go on by a bar."""
        return *self.plain.step(int(action)), {}


def main() -> None:
    """Print the claim."""
    batch, first = environments(COUNT)
    ours = MarketVecEnv([batch])
    batch.reset(seed=2)
    starts = batch.start_bars.tolist()
    plain = DummyVecEnv([partial(PlainGym, copy(first), start, ours) for start in starts])
    actions, earned = actions_of(COUNT), {}

    def lived(name: str, through: VecEnv) -> None:
        through.seed(2)
        through.reset()
        earned[name] = sum(float(through.step(action)[1].sum()) for action in actions)

    progress(f"{COUNT} episodes of {STEPS} steps, {ROUNDS} rounds")
    work = {"ours": lambda: lived("ours", ours), "plain": lambda: lived("plain", plain)}
    seconds = alternated(work, rounds=ROUNDS)
    assert abs(earned["ours"] - earned["plain"]) < 1e-3, earned
    claim(
        f"learners.environment.{COUNT}.through_sb3",
        ours=f"{COUNT * STEPS / median(seconds['ours']):.0f}/s",
        yardstick=f"{COUNT * STEPS / median(seconds['plain']):.0f}/s",
        ratio=paired(seconds["plain"], seconds["ours"]),
        side=Target.AT_LEAST,
        target=PLAIN_TARGET,
    )


if __name__ == "__main__":
    main()
