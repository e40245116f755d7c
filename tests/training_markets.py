"""Small markets to train in, with and without an edge, and some that misbehave."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.array_file import Arrays
from learners.generator_state import generator_words, restore_generator
from learners.training_state import ResumableVecEnv

EPISODE = 16
POSITIONS = np.array([0.0, 1.0, -1.0])  # flat, long, short
EDGE = 0.01


class SignalVecEnv(ResumableVecEnv):
    """The next return is `EDGE` times the sign that is seen; next to it something without use.

    Who always follows the sign earns `EDGE` a step, who acts at random nothing on average.
    """

    render_mode = None

    def __init__(self, count: int, *, seed: int) -> None:
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        super().__init__(count, box, spaces.Discrete(len(POSITIONS)))
        self._rng = np.random.default_rng(seed)
        self._step = np.zeros(count, dtype=np.int64)
        self._seen = np.zeros((count, 2), dtype=np.float32)
        self._actions: NDArray[np.int64] = np.zeros(count, dtype=np.int64)

    def reset(self) -> NDArray[np.float32]:
        self._step[:] = 0
        self._draw()
        return self._seen.copy()

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        noise = 0.2 * EDGE * self._rng.standard_normal(self.num_envs)
        rewards = POSITIONS[self._actions] * (EDGE * self._seen[:, 0] + noise)
        self._draw()
        self._step += 1
        dones = self._step == EPISODE
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in dones.nonzero()[0]:
            infos[i] = {"terminal_observation": self._seen[i].copy(), "TimeLimit.truncated": True}
        self._step[dones] = 0
        return self._seen.copy(), rewards.astype(np.float32), dones, infos

    def state(self) -> dict[str, NDArray[Any]]:
        return {"rng": generator_words(self._rng), "step": self._step, "seen": self._seen}

    def restore(self, state: Arrays) -> None:
        if ((state["step"] < 0) | (state["step"] >= EPISODE)).any():
            raise InvalidInput(field="step", rule="must be in the episode", found=state["step"])
        restore_generator(self._rng, state["rng"])
        self._step, self._seen = state["step"].copy(), state["seen"].copy()

    def _draw(self) -> None:
        self._seen[:, 0] = self._rng.choice([-1.0, 1.0], size=self.num_envs)
        self._seen[:, 1] = self._rng.standard_normal(self.num_envs)

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, *_: Any) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, *_: Any) -> None:
        raise NotImplementedError

    def env_method(self, *_: Any, **__: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, *_: Any) -> list[bool]:
        return [False] * self.num_envs


@dataclass(frozen=True)
class SignalMarket:
    """`SignalVecEnv` as something to train in."""

    digest: str = "a" * 64
    data_from: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    data_to: datetime = datetime(2024, 2, 1, tzinfo=UTC)

    def environments(self, count: int, *, seed: int) -> ResumableVecEnv:
        return SignalVecEnv(count, seed=seed)


class _HangingVecEnv(SignalVecEnv):
    def step_wait(self) -> Any:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60.0)


@dataclass(frozen=True)
class HangingMarket(SignalMarket):
    """Its first step never ends, and no polite request ends it."""

    def environments(self, count: int, *, seed: int) -> ResumableVecEnv:
        return _HangingVecEnv(count, seed=seed)


class _SlowVecEnv(SignalVecEnv):
    def step_wait(self) -> Any:
        time.sleep(0.02)
        return super().step_wait()


@dataclass(frozen=True)
class SlowMarket(SignalMarket):
    """A step takes 20 ms and more."""

    def environments(self, count: int, *, seed: int) -> ResumableVecEnv:
        return _SlowVecEnv(count, seed=seed)


class _BrokenVecEnv(SignalVecEnv):
    def step_wait(self) -> Any:
        observations, rewards, dones, infos = super().step_wait()
        return observations, rewards * np.nan, dones, infos


@dataclass(frozen=True)
class BrokenMarket(SignalMarket):
    """What is earned in it is no number."""

    def environments(self, count: int, *, seed: int) -> ResumableVecEnv:
        return _BrokenVecEnv(count, seed=seed)


@dataclass(frozen=True)
class RefusingMarket(SignalMarket):
    """It has too few bars."""

    def environments(self, *_: Any, **__: Any) -> ResumableVecEnv:
        raise InvalidInput(field="bars", rule="must be more than the 500 of an episode", found=3)


@dataclass
class HaltingClock:
    """A second a look, but in the process that made it, and after some looks far too many."""

    looks: int
    seconds: float = 0.0
    made_in: int = field(default_factory=os.getpid)

    def __call__(self) -> float:
        if os.getpid() != self.made_in:
            self.looks -= 1
            self.seconds += 1.0 if self.looks > 0 else 1e6
        return self.seconds


@dataclass
class HastyClock:
    """Every look at it takes `tick_seconds`, but in the process that made it, where it stands."""

    tick_seconds: float
    seconds: float = 0.0
    made_in: int = field(default_factory=os.getpid)

    def __call__(self) -> float:
        if os.getpid() != self.made_in:
            self.seconds += self.tick_seconds
        return self.seconds
