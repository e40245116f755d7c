"""The training environment as gymnasium and as Stable-Baselines3 know environments.

Imports both, and with the latter torch: only what trains imports this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from bandit.core.errors import InvalidInput
from learners.environment import Bars, MarketEnvironment, Observations

Steps = tuple[Observations, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]
Indices = int | Iterable[int] | None


class GymMarket(gymnasium.Env[Observations, np.int64]):
    """One episode after the other, for whoever evaluates a policy bar by bar.

    A reset without a seed begins the next window that the environment drew. Raises `InvalidInput`
    for an environment of more episodes than one, and for a step after the end.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own attribute

    def __init__(self, environment: MarketEnvironment) -> None:
        if environment.count != 1:
            raise InvalidInput(field="count", rule="must be 1", found=environment.count)
        self.environment = environment
        self.observation_space, self.action_space = _spaces(environment)
        self.render_mode = None
        self._over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin a window; there are no options."""
        super().reset(seed=seed, options=options)
        self._over = False
        return self.environment.reset(seed=seed)[0], {}

    def step(self, action: np.int64) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        """Act at the close of a bar; the last observation of an episode is its own."""
        if self._over:
            raise InvalidInput(field="step", rule="must follow a reset", found="the end")
        step = self.environment.step(np.array([action], dtype=np.int64))
        self._over = len(step.ended) > 0
        seen = step.final_observations if self._over else step.observations
        return (
            seen[0],
            float(step.rewards[0]),
            bool(step.terminated[0]),
            bool(step.truncated[0]),
            {},
        )


class MarketVecEnv(VecEnv):
    """Environments of one or several markets as one batch, in their order.

    An episode that ends is begun anew in the same step: its `info` has `terminal_observation`, and
    `TimeLimit.truncated` says whether its window was over rather than its capital. A seed takes
    effect at the next reset, as everywhere in Stable-Baselines3. Raises `InvalidInput` where the
    markets differ in what is observed or allowed.
    """

    def __init__(self, environments: Sequence[MarketEnvironment]) -> None:
        shapes = {(one.observation_width, one.spec.targets) for one in environments}
        if len(shapes) != 1:
            rule = "must be at least one, alike in features and targets"
            raise InvalidInput(field="environments", rule=rule, found=len(environments))
        self.environments = tuple(environments)
        self._firsts = np.cumsum([0, *(one.count for one in environments)]).tolist()
        self._actions: Bars = np.zeros(0, dtype=np.intp)
        super().__init__(self._firsts[-1], *_spaces(environments[0]))

    def reset(self) -> Observations:
        """Begin every episode in a new window."""
        first_seeds = [self._seeds[first] for first in self._firsts[:-1]]
        seen = [
            environment.reset(seed=seed)
            for environment, seed in zip(self.environments, first_seeds, strict=True)
        ]
        self._reset_seeds()
        self._reset_options()
        return np.concatenate(seen)

    def step_async(self, actions: NDArray[np.integer]) -> None:
        """Take the actions; `step_wait` lives through the bar."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> Steps:
        """Return observations, rewards (float32), ends and infos."""
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        steps = []
        for environment, first in zip(self.environments, self._firsts, strict=False):
            step = environment.step(self._actions[first : first + environment.count])
            steps.append(step)
            for episode, last in zip(step.ended.tolist(), step.final_observations, strict=True):
                infos[first + episode] = {
                    "terminal_observation": last,
                    "TimeLimit.truncated": bool(step.truncated[episode]),
                }
        return (
            np.concatenate([step.observations for step in steps]),
            np.concatenate([step.rewards for step in steps]).astype(np.float32),
            np.concatenate([step.terminated | step.truncated for step in steps]),
            infos,
        )

    def close(self) -> None:
        """There is nothing to let go of."""

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute, the same for every episode of a market; nothing is rendered."""
        if attr_name == "render_mode":
            return [None] * len(list(self._get_indices(indices)))
        return [getattr(one, attr_name) for one in self._markets(indices)]

    def set_attr(
        self,
        attr_name: str,
        value: Any,
        indices: Indices = None,  # noqa: ARG002 - the signature is that of Stable-Baselines3
    ) -> None:
        """Refuse: what an episode is subject to is its spec."""
        raise InvalidInput(
            field=attr_name, rule="cannot be set, make a new environment", found=value
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ARG002 - as above
        indices: Indices = None,
        **method_kwargs: Any,  # noqa: ARG002 - as above
    ) -> list[Any]:
        """Refuse: episodes of a batch are no objects."""
        raise InvalidInput(field=method_name, rule="cannot be called on one episode", found=indices)

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],  # noqa: ARG002 - as above
        indices: Indices = None,
    ) -> list[bool]:
        """Return that no episode is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _markets(self, indices: Indices) -> list[MarketEnvironment]:
        markets = [one for one in self.environments for _ in range(one.count)]
        return [markets[i] for i in self._get_indices(indices)]


def _spaces(environment: MarketEnvironment) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    finite = np.finfo(np.float32)
    shape = (environment.observation_width,)
    observed = spaces.Box(finite.min, finite.max, shape, np.float32)
    return observed, spaces.Discrete(len(environment.spec.targets))
