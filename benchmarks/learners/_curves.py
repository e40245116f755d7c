"""How well an agent acts as it learns: trained in this process, measured at several points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time

import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.callbacks import BaseCallback

from learners.network import Network, from_stable_baselines
from learners.reinforcement import TrainingMarket, network_of
from learners.reinforcement_worker import agent_of
from learners.tensor_file import Tensor
from learners.training_events import Trained
from learners.training_plan import TrainingPlan

Score = Callable[[Network, dict[str, Tensor]], float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Scores after so many steps, and what the training took without the scoring."""

    steps: tuple[int, ...]
    scores: tuple[float, ...]
    wall_seconds: float
    cpu_seconds: float


class _Points(BaseCallback):
    def __init__(self, plan: TrainingPlan, score: Score, points: int) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.scores: list[float] = []
        self.wall = self.cpu = 0.0
        self._plan, self._score = plan, score
        self._every = plan.steps / points

    def measure(self) -> None:
        wall, cpu = perf_counter(), process_time()
        seen, actions = self.model.observation_space, self.model.action_space
        assert isinstance(seen, Box)
        assert isinstance(actions, Discrete)
        policy = {name: value.numpy() for name, value in self.model.policy.state_dict().items()}
        trained = Trained(
            steps=self.model.num_timesteps,
            resumed_steps=0,
            inputs=seen.shape[0],
            actions=int(actions.n),
            temperature=1.0,
            observations=0,
        )
        network = network_of(self._plan, trained)
        self.steps.append(self.model.num_timesteps)
        self.scores.append(self._score(network, from_stable_baselines(network, policy)))
        self.wall += perf_counter() - wall
        self.cpu += process_time() - cpu

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= len(self.steps) * self._every:
            self.measure()

    def _on_step(self) -> bool:
        return True


def curve(plan: TrainingPlan, market: TrainingMarket, score: Score, *, points: int) -> Curve:
    """Train by `plan`; score the policy at the beginning, at `points` later ones and the end."""
    torch.set_num_threads(1)
    agent = agent_of(plan, market.environments(plan.environments, seed=plan.seed))
    watch = _Points(plan, score, points)
    wall, cpu = perf_counter(), process_time()
    agent.learn(plan.steps, callback=watch, log_interval=1_000_000)
    wall, cpu = perf_counter() - wall - watch.wall, process_time() - cpu - watch.cpu
    watch.measure()
    return Curve(
        steps=tuple(watch.steps),
        scores=tuple(watch.scores),
        wall_seconds=wall,
        cpu_seconds=cpu,
    )
