"""The whole state of an agent of Stable-Baselines3 between two rounds, as plain arrays, and back.

What is restored goes on bit by bit as if it had never stopped: weights, target network, optimiser,
replay buffer, the market's own state, and every generator that is drawn from. Left out is what is
empty between rounds (the rollout buffer) and what only statistics read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv

from bandit.core.errors import InvalidInput
from learners.array_file import Arrays, Form, forms_of, size_max
from learners.checkpoints import ARRAYS, TENSORS, Checkpoint, Contents, Counters
from learners.generator_state import generator_words, restore_generator
from learners.sealed_files import ArtifactRefused
from learners.tensor_file import Shapes

Agent = PPO | DQN | QRDQN

_REPLAYED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_MOMENTS = ("exp_avg", "exp_avg_sq")
_KEYS = 624  # of a Mersenne twister


class ResumableVecEnv(VecEnv):
    """A `VecEnv` to train in: it can give its state as arrays, and take it back."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that the next steps depend on."""

    @abstractmethod
    def restore(self, state: Arrays) -> None:
        """Go on as the one that gave `state`; `InvalidInput` for one it could never be in."""


def state_of(agent: Agent, market: ResumableVecEnv, *, run: str) -> Checkpoint:
    """Return the state of an agent between two rounds."""
    replay = replay_of(agent)
    rows = 0 if replay is None else replay.size()
    arrays = {**_generators(agent), **_named("market", market.state())}
    arrays["last_observations"] = np.asarray(agent._last_obs)
    arrays["last_episode_starts"] = np.asarray(agent._last_episode_starts)
    if replay is not None:
        arrays |= _named("replay", {name: getattr(replay, name)[:rows] for name in _REPLAYED})
    return Checkpoint(
        counters=Counters(
            run=run,
            steps=agent.num_timesteps,
            updates=agent._n_updates,
            remembered=rows,
            next_row=0 if replay is None else replay.pos,
        ),
        tensors=_tensors(agent),
        arrays=arrays,
    )


def contents_of(agent: Agent, market: ResumableVecEnv, counters: Counters) -> Contents:
    """Return what a checkpoint with these counters holds, by an agent that has not learned yet.

    Raises `InvalidInput` for more remembered rows than the agent remembers.
    """
    replay = replay_of(agent)
    rows_max = 0 if replay is None else replay.buffer_size
    if counters.remembered > rows_max:
        rule = f"must be at most {rows_max}"
        raise InvalidInput(field="remembered", rule=rule, found=counters.remembered)
    forms = forms_of({**_generators(agent), **_named("market", market.state())})
    seen = (agent.n_envs, *cast(tuple[int, ...], agent.observation_space.shape))
    forms["last_observations"] = Form(np.dtype(np.float32), seen)
    forms["last_episode_starts"] = Form(np.dtype(np.bool_), (agent.n_envs,))
    for name in _REPLAYED if replay is not None else ():
        whole: NDArray[Any] = getattr(replay, name)
        forms[f"replay.{name}"] = Form(whole.dtype, (counters.remembered, *whole.shape[1:]))
    return Contents(tensors=_shapes(agent, learned=counters.updates > 0), arrays=forms)


def sizes_max(agent: Agent, market: ResumableVecEnv) -> dict[str, int]:
    """Return a bound of the bytes of each file of a checkpoint of this agent."""
    replay = replay_of(agent)
    rows = 0 if replay is None else replay.buffer_size
    fullest = Counters(run="0" * 64, steps=1, updates=1, remembered=rows, next_row=0)
    contents = contents_of(agent, market, fullest)
    values = sum(int(np.prod(shape, dtype=np.int64)) for shape in contents.tensors.values())
    headers = 1_024 * (len(contents.tensors) + 1)
    return {TENSORS: 4 * values + headers, ARRAYS: size_max(contents.arrays)}


def restore(
    agent: Agent, market: ResumableVecEnv, checkpoint: Checkpoint, *, steps_total: int
) -> None:
    """Bring an agent that has not learned yet to where `state_of` was taken.

    Raises `ArtifactRefused` where values cannot be; the agent is of no use then.
    """
    counters, arrays = checkpoint.counters, checkpoint.arrays
    try:
        _restore_tensors(agent, checkpoint.tensors)
        _restore_replay(agent, counters, arrays)
        market.restore(_unnamed("market", arrays))
        agent._last_obs = arrays["last_observations"]
        agent._last_episode_starts = arrays["last_episode_starts"]
        agent.num_timesteps = counters.steps
        agent._n_updates = counters.updates
        agent._update_current_progress_remaining(counters.steps, steps_total)
        if not isinstance(agent, PPO):
            agent._n_calls = counters.steps // agent.n_envs
            agent.exploration_rate = agent.exploration_schedule(agent._current_progress_remaining)
        _restore_generators(agent, arrays)
    except InvalidInput as error:
        rule = f"{error.field} {error.rule}"
        raise ArtifactRefused(file=ARRAYS, rule=rule, found=error.found) from error
    except (RuntimeError, ValueError, TypeError) as error:  # what torch and numpy say of states
        raise ArtifactRefused(file=ARRAYS, rule="must restore", found=error) from error


def replay_of(agent: Agent) -> ReplayBuffer | None:
    """Return what the agent remembers; PPO remembers nothing between two rounds."""
    return None if isinstance(agent, PPO) else agent.replay_buffer


def _tensors(agent: Agent) -> dict[str, NDArray[np.float32]]:
    stored = {f"policy.{name}": value for name, value in agent.policy.state_dict().items()}
    for i, state in agent.policy.optimizer.state_dict()["state"].items():
        stored |= {f"optimiser.{i}.{name}": value for name, value in state.items()}
    return {name: value.detach().cpu().numpy().copy() for name, value in stored.items()}


def _shapes(agent: Agent, *, learned: bool) -> Shapes:
    state = agent.policy.state_dict()
    shapes: dict[str, tuple[int, ...]] = {
        f"policy.{name}": tuple(value.shape) for name, value in state.items()
    }
    if learned:
        for i, weights in enumerate(_weights(agent)):
            shapes[f"optimiser.{i}.step"] = ()
            shapes |= {f"optimiser.{i}.{name}": tuple(weights.shape) for name in _MOMENTS}
    return shapes


def _weights(agent: Agent) -> list[torch.Tensor]:
    return list(agent.policy.optimizer.param_groups[0]["params"])


def _restore_tensors(agent: Agent, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    held = {name: torch.from_numpy(values.copy()) for name, values in tensors.items()}
    agent.policy.load_state_dict(_unnamed("policy", held), strict=True)
    optimiser = agent.policy.optimizer
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _unnamed("optimiser", held).items():
        i, _, part = name.partition(".")
        if part != "exp_avg" and (value < 0).any():
            raise InvalidInput(field=name, rule="must not be negative", found=value.min().item())
        state.setdefault(int(i), {})[part] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _restore_replay(agent: Agent, counters: Counters, arrays: Arrays) -> None:
    replay = replay_of(agent)
    if replay is None:
        return
    rows = counters.remembered
    full = rows == replay.buffer_size
    if counters.next_row >= replay.buffer_size or not (full or counters.next_row == rows):
        rule = "must be the row after the last one"
        raise InvalidInput(field="next_row", rule=rule, found=counters.next_row)
    actions = arrays["replay.actions"]
    end = int(agent.action_space.n)  # type: ignore[attr-defined]  # the market's are discrete
    if ((actions < 0) | (actions >= end)).any():
        raise InvalidInput(field="replay.actions", rule=f"must be in [0, {end})", found="another")
    for name in _REPLAYED:
        getattr(replay, name)[:rows] = arrays[f"replay.{name}"]
    replay.pos, replay.full = counters.next_row, full


def _generators(agent: Agent) -> dict[str, NDArray[Any]]:
    """Return the states of numpy's and torch's global generators, and of random actions."""
    # As Stable-Baselines3 draws: batches from numpy's, PPO's actions from torch's.
    _, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "numpy.keys": np.asarray(keys),
        "numpy.place": np.array([place, has_gauss], dtype=np.int64),
        "numpy.gauss": np.array([gauss], dtype=np.float64),
        "torch": torch.get_rng_state().numpy().copy(),
        "random_actions": generator_words(agent.action_space.np_random),
    }


def _restore_generators(agent: Agent, arrays: Arrays) -> None:
    place, has_gauss = arrays["numpy.place"].tolist()
    if not 0 <= place <= _KEYS or has_gauss not in (0, 1):  # numpy itself would read beyond
        raise InvalidInput(field="numpy.place", rule=f"must be in [0, {_KEYS}]", found=place)
    gauss = float(arrays["numpy.gauss"][0])
    np.random.set_state(("MT19937", arrays["numpy.keys"], place, has_gauss, gauss))
    torch.set_rng_state(torch.from_numpy(arrays["torch"].copy()))
    restore_generator(agent.action_space.np_random, arrays["random_actions"])


def _named(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _unnamed(prefix: str, named: Mapping[str, Any]) -> dict[str, Any]:
    start = f"{prefix}."
    return {name.removeprefix(start): v for name, v in named.items() if name.startswith(start)}
