"""What a reinforcement learner is asked to do; a frozen value that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, assert_never

from bandit.core.errors import InvalidInput
from learners.network import LAYERS_MAX, Activation, Algorithm, require_count

STEPS_MAX = 100_000_000
ENVIRONMENTS_MAX = 1024
LAYER_WIDTH_MAX = 1024
SEED_MAX = 2**32 - 1
DEADLINE_SECONDS_MAX = 7 * 86_400.0
DISCOUNT = 0.99
REPLAY_MAX = 1_000_000


class Profile(StrEnum):
    """How often a learner updates, and on how much.

    `TEXTBOOK` are the defaults of Stable-Baselines3 and sb3-contrib, but for 50 quantiles in place
    of 200; `LARGE_BATCH` reaches the same in fewer and larger updates.
    """

    TEXTBOOK = "textbook"
    LARGE_BATCH = "large_batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """PPO: learn from `rollout` steps in `epochs` passes of batches, then forget them."""

    rollout: int
    batch: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """DQN and QR-DQN: after every `collect` steps, `updates` batches drawn from what is remembered.

    Nothing is learned in the first `warm_up` steps, which are random. Then the share of random
    steps falls from 1 to `exploration_end` over `exploration_share` of the training. The target
    network is renewed every `target_every` steps. DQN has one quantile: the mean.
    """

    collect: int
    updates: int
    batch: int
    learning_rate: float
    warm_up: int
    target_every: int
    exploration_share: float
    exploration_end: float
    quantiles: int


Settings = RolloutSettings | ReplaySettings

_LARGE_REPLAY = ReplaySettings(
    collect=256,
    updates=8,
    batch=512,
    learning_rate=3e-4,
    warm_up=1024,
    target_every=4096,
    exploration_share=0.3,
    exploration_end=0.05,
    quantiles=1,
)
_SETTINGS: Mapping[tuple[Algorithm, Profile], Settings] = {
    (Algorithm.PPO, Profile.TEXTBOOK): RolloutSettings(
        rollout=2048, batch=64, epochs=10, learning_rate=3e-4
    ),
    (Algorithm.PPO, Profile.LARGE_BATCH): RolloutSettings(
        rollout=8192, batch=1024, epochs=10, learning_rate=1e-3
    ),
    (Algorithm.DQN, Profile.TEXTBOOK): ReplaySettings(
        collect=4,
        updates=1,
        batch=32,
        learning_rate=1e-4,
        warm_up=100,
        target_every=10_000,
        exploration_share=0.1,
        exploration_end=0.05,
        quantiles=1,
    ),
    (Algorithm.DQN, Profile.LARGE_BATCH): _LARGE_REPLAY,
    (Algorithm.QR_DQN, Profile.TEXTBOOK): ReplaySettings(
        collect=4,
        updates=1,
        batch=32,
        learning_rate=5e-5,
        warm_up=100,
        target_every=10_000,
        exploration_share=0.005,
        exploration_end=0.01,
        quantiles=50,
    ),
    (Algorithm.QR_DQN, Profile.LARGE_BATCH): replace(_LARGE_REPLAY, quantiles=25),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """One training: an algorithm, its budget and its limits.

    `total_steps` are steps of the market, of all `environments` together; they are rounded up to
    whole rounds of learning. `layers` are the widths of the hidden layers. A checkpoint is written
    every `checkpoint_every_steps` and at the end; by `deadline_seconds` the training has ended, or
    is ended. Raises `InvalidInput` for what cannot be meant.

    >>> plan = TrainingPlan(algorithm=Algorithm.DQN, seed=7)
    >>> plan.settings.batch, TrainingPlan.from_json(plan.to_json()) == plan
    (512, True)
    """

    algorithm: Algorithm
    seed: int
    profile: Profile = Profile.LARGE_BATCH
    total_steps: int = 250_000
    environments: int = 256
    layers: tuple[int, ...] = (64, 64)
    checkpoint_every_steps: int = 50_000
    deadline_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Refuse numbers outside their bounds."""
        require_count("seed", self.seed, 0, SEED_MAX)
        require_count("total_steps", self.total_steps, 1, STEPS_MAX)
        require_count("checkpoint_every_steps", self.checkpoint_every_steps, 1, STEPS_MAX)
        require_count("environments", self.environments, 1, ENVIRONMENTS_MAX)
        if self.environments & (self.environments - 1):
            rule = "must be a power of two, so that rollouts and batches divide evenly"
            raise InvalidInput(field="environments", rule=rule, found=self.environments)
        require_count("hidden layers", len(self.layers), 1, LAYERS_MAX)
        for width in self.layers:
            require_count("layers", width, 1, LAYER_WIDTH_MAX)
        seconds: object = self.deadline_seconds
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 < self.deadline_seconds <= DEADLINE_SECONDS_MAX:
            rule = f"must be in (0, {DEADLINE_SECONDS_MAX:g}]"
            raise InvalidInput(field="deadline_seconds", rule=rule, found=self.deadline_seconds)

    @property
    def settings(self) -> Settings:
        """Return the numbers of the profile."""
        return _SETTINGS[self.algorithm, self.profile]

    @property
    def activation(self) -> Activation:
        """Return the function between the layers: the default of the algorithm's policy."""
        match self.algorithm:
            case Algorithm.PPO:
                return Activation.TANH
            case Algorithm.DQN | Algorithm.QR_DQN:
                return Activation.RELU
            case _:
                assert_never(self.algorithm)

    @property
    def round_steps(self) -> int:
        """Return the steps between two updates: what a training is made of."""
        settings = self.settings
        once = settings.rollout if isinstance(settings, RolloutSettings) else settings.collect
        return max(once, self.environments)

    @property
    def steps(self) -> int:
        """Return how many steps a whole training takes: `total_steps` in whole rounds."""
        return math.ceil(self.total_steps / self.round_steps) * self.round_steps

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "algorithm": self.algorithm.value,
            "seed": self.seed,
            "profile": self.profile.value,
            "total_steps": self.total_steps,
            "environments": self.environments,
            "layers": list(self.layers),
            "checkpoint_every_steps": self.checkpoint_every_steps,
            "deadline_seconds": self.deadline_seconds,
        }

    def decisive(self) -> dict[str, Any]:
        """Return all that decides what is trained: no limit does, the profile's numbers do."""
        planned = self.to_json()
        for limit in ("deadline_seconds", "checkpoint_every_steps"):
            del planned[limit]
        return {"plan": planned, "settings": asdict(self.settings)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TrainingPlan:
        """Return the plan that `to_json` gave; raises `InvalidInput` for anything else."""
        names = sorted(field.name for field in fields(cls))
        found = sorted(stored) if isinstance(stored, Mapping) else type(stored).__name__
        if found != names:
            raise InvalidInput(field="plan", rule=f"must have exactly {names}", found=found)
        if type(stored["layers"]) is not list:
            raise InvalidInput(field="layers", rule="must be a list", found=stored["layers"])
        chosen = {"algorithm": Algorithm, "profile": Profile}
        for name, kind in chosen.items():
            known = [member.value for member in kind]
            if stored[name] not in known:
                rule = f"must be one of {', '.join(known)}"
                raise InvalidInput(field=name, rule=rule, found=stored[name])
        return cls(
            **{
                **stored,
                "algorithm": Algorithm(stored["algorithm"]),
                "profile": Profile(stored["profile"]),
                "layers": tuple(stored["layers"]),
            }
        )
