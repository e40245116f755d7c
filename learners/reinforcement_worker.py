"""The process that trains: agents of Stable-Baselines3 and sb3-contrib, on one thread."""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast

import numpy as np
import torch
import torch._dynamo  # every optimiser needs it: imported late, each worker would wait seconds
from numpy.typing import NDArray
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnvWrapper
from torch import nn

from bandit.core.errors import BanditError, InvalidInput
from learners import tensor_file
from learners.checkpoints import read_checkpoint, set_aside, stored_steps, write_checkpoint
from learners.network import (
    TEMPERATURE_MAX,
    TEMPERATURE_MIN,
    Activation,
    Algorithm,
    evaluate,
    from_stable_baselines,
)
from learners.reinforcement import Order, network_of
from learners.sealed_files import ArtifactRefused
from learners.training_events import (
    Begun,
    CheckpointUnfit,
    CheckpointWritten,
    Ending,
    Refused,
    Trained,
    encoded,
)
from learners.training_pace import Pace
from learners.training_plan import DISCOUNT, REPLAY_MAX, RolloutSettings, TrainingPlan
from learners.training_state import (
    Agent,
    ResumableVecEnv,
    contents_of,
    replay_of,
    restore,
    sizes_max,
    state_of,
)

REWARD_SCALE = 100.0
"""Agents are told per cent of the capital: a ratio of a bar is too small for Huber losses."""

GOLDEN_MAX = 64

_TORCH = {Activation.TANH: nn.Tanh, Activation.RELU: nn.ReLU}
_EPISODES = 100
_GAPS_MAX = 4_096


class _PerCent(VecEnvWrapper):
    """The same market with rewards in per cent."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards * REWARD_SCALE, dones, infos


def agent_of(plan: TrainingPlan, market: ResumableVecEnv) -> Agent:
    """Return an agent that has learned nothing yet, with an empty memory, seeded by its plan."""
    settings = plan.settings
    layers = {"net_arch": list(plan.layers), "activation_fn": _TORCH[plan.activation]}
    common: dict[str, Any] = {
        "policy": "MlpPolicy",
        "env": _PerCent(market),
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch,
        "gamma": DISCOUNT,
        "seed": plan.seed,
        "device": "cpu",
        "policy_kwargs": layers,
    }
    rows = plan.round_steps // plan.environments
    agent: Agent
    if isinstance(settings, RolloutSettings):
        agent = PPO(**common, n_steps=rows, n_epochs=settings.epochs)
    else:
        common |= {
            "buffer_size": min(REPLAY_MAX, plan.steps),
            "learning_starts": settings.warm_up,
            "train_freq": rows,
            "gradient_steps": max(1, settings.updates * plan.round_steps // settings.collect),
            "target_update_interval": settings.target_every,
            "exploration_fraction": settings.exploration_share,
            "exploration_final_eps": settings.exploration_end,
        }
        if plan.algorithm is Algorithm.QR_DQN:
            layers["n_quantiles"] = settings.quantiles
        agent = (QRDQN if plan.algorithm is Algorithm.QR_DQN else DQN)(**common)
    agent.set_logger(Logger(folder=None, output_formats=[]))
    return agent


def work(pipe: Connection, order: Order) -> None:
    """Train as ordered, and say how it goes and ends; ends early where nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this process
    torch.set_num_threads(1)
    try:
        try:
            messages = _train(pipe, order)
        except BanditError as error:
            messages = [encoded(Refused(reason=str(error)))]
        for message in messages:
            pipe.send_bytes(message)
    except BrokenPipeError:
        return


def _train(pipe: Connection, order: Order) -> list[bytes]:
    agent, market = _begun(pipe, order)
    pipe.send_bytes(encoded(Begun(steps=agent.num_timesteps)))
    resumed = agent.num_timesteps
    left = order.plan.steps - resumed
    watch = _Watch(pipe, order, market)
    if left > 0:
        learner: Any = agent  # whose stub knows no learning without a log
        learner.learn(left, callback=watch, log_interval=None, reset_num_timesteps=resumed == 0)
        if watch.ended is not None:
            return [encoded(watch.ended)]
        watch.keep()
    return _policy(agent, order.plan, resumed=resumed)


def _begun(pipe: Connection, order: Order) -> tuple[Agent, ResumableVecEnv]:
    """Return an agent at its newest sound checkpoint, or at the beginning."""
    for name in stored_steps(order.folder):
        agent, market = _fresh(order)
        try:
            found = read_checkpoint(
                order.folder,
                name,
                run=order.run,
                contents=partial(contents_of, agent, market),
                sizes_max=sizes_max(agent, market),
            )
            restore(agent, market, found, steps_total=order.plan.steps)
        except ArtifactRefused as error:
            set_aside(order.folder, name)
            pipe.send_bytes(encoded(CheckpointUnfit(name=name, reason=str(error))))
        else:
            return agent, market
    return _fresh(order)


def _fresh(order: Order) -> tuple[Agent, ResumableVecEnv]:
    market = order.market.environments(order.plan.environments, seed=order.plan.seed)
    return agent_of(order.plan, market), market


class _Watch(BaseCallback):
    """Between two rounds: keeps checkpoints, tells progress, and stops what would be too late."""

    def __init__(self, pipe: Connection, order: Order, market: ResumableVecEnv) -> None:
        super().__init__()
        self._pace = Pace(pipe, order, steps_total=order.plan.steps)
        self._order = order
        self._market = market
        self._kept_steps: int | None = None
        self._running: NDArray[np.float64] = np.zeros(order.plan.environments)
        self._returns: deque[float] = deque(maxlen=_EPISODES)

    @property
    def ended(self) -> Ending | None:
        """Return why the training stopped before its end."""
        return self._pace.ended

    def keep(self) -> None:
        """Write a checkpoint; a training whose weights are no numbers any more ends."""
        state = state_of(cast(Agent, self.model), self._market, run=self._order.run)
        for name, values in state.tensors.items():
            if not np.isfinite(values).all():
                raise InvalidInput(field=name, rule="must stay finite", found="NaN or an infinity")
        write_checkpoint(self._order.folder, state)
        self._kept_steps = self.num_timesteps
        self._pace.say(CheckpointWritten(steps=self.num_timesteps))

    def _on_rollout_start(self) -> None:
        steps = self.num_timesteps = self.model.num_timesteps
        if self._kept_steps is None:
            self._kept_steps = steps
        every = self._order.plan.checkpoint_every_steps
        if steps // every > self._kept_steps // every:
            self.keep()
        mean = float(np.mean(self._returns)) if self._returns else None
        self._pace.round_begins(steps, is_learning=self.model._n_updates > 0, mean=mean)
        if self.ended is None and self._pace.is_late():
            if steps > self._kept_steps:
                self.keep()
            self._pace.stop_late(steps)

    def _on_step(self) -> bool:
        self._running += self.locals["rewards"]
        ended = self.locals["dones"].nonzero()[0]
        if len(ended):
            self._returns.extend((self._running[ended] / REWARD_SCALE).tolist())
            self._running[ended] = 0.0
        return self.ended is None


def _policy(agent: Agent, plan: TrainingPlan, *, resumed: int) -> list[bytes]:
    """Return the ending of a whole training, and the policy: what is sent."""
    parameters = {name: value.numpy() for name, value in agent.policy.state_dict().items()}
    seen = np.asarray(agent._last_obs, dtype=np.float32)
    golden = seen[:GOLDEN_MAX]
    trained = Trained(
        steps=agent.num_timesteps,
        resumed_steps=resumed,
        inputs=seen.shape[1],
        actions=int(agent.action_space.n),  # type: ignore[attr-defined]  # the market's are discrete
        temperature=1.0,
        observations=len(golden),
    )
    network = network_of(plan, trained)
    tensors = from_stable_baselines(network, parameters)
    replay = replay_of(agent)
    if replay is not None:
        met = replay.observations[: replay.size()].reshape(-1, network.inputs)
        scores = evaluate(network, tensors, met[-_GAPS_MAX:]).scores
        trained = replace(trained, temperature=_usual_gap(scores))
    return [
        encoded(trained),
        tensor_file.encoded(tensors),
        tensor_file.encoded({"observations": golden}),
    ]


def _usual_gap(scores: NDArray[np.float64]) -> float:
    """Return by how much the best action usually beats the second, within a temperature's bounds.

    A difference in value that is as large as the median one counts as one unit of certainty.
    """
    ranked = np.sort(scores, axis=1)
    gap = float(np.median(ranked[:, -1] - ranked[:, -2]))
    return min(max(gap, TEMPERATURE_MIN), TEMPERATURE_MAX)
