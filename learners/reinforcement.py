"""Train a policy by reinforcement: in a process of its own, with a deadline, resumable, repeatable.

The worker is begun anew for every training and its memory starts empty: everything an agent
replays, it did in the market it is given. The same plan, market, seed and package versions give the
same weights, bit by bit, however often the training was killed and begun again on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from learners import tensor_file
from learners.artifact_spec import TrainingRecord
from learners.canonical_json import canonical
from learners.installed import versions
from learners.network import Algorithm, Network
from learners.tensor_file import Tensor
from learners.training_events import Trained, TrainingEvent
from learners.training_plan import ReplaySettings, TrainingPlan
from learners.training_process import GRACE_SECONDS, working

if TYPE_CHECKING:
    from learners.training_state import ResumableVecEnv

PACKAGES = ("gymnasium", "numpy", "sb3-contrib", "stable-baselines3", "torch")
_WORKER = "learners.reinforcement_worker"


class TrainingMarket(Protocol):
    """What is trained in; it is sent to the worker, so it has to be picklable.

    `digest` (SHA-256) names all of it: equal digests, equal markets. Its bars reach from
    `data_from` to `data_to`.
    """

    @property
    def digest(self) -> str:
        """Return the SHA-256 of data, features and rules."""
        ...

    @property
    def data_from(self) -> datetime:
        """Return when the first bar opens."""
        ...

    @property
    def data_to(self) -> datetime:
        """Return when the last bar closes."""
        ...

    def environments(self, count: int, *, seed: int) -> ResumableVecEnv:
        """Return `count` episodes side by side, drawn by `seed`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedPolicy:
    """What a training gave: the tensors that act, and what it takes to store them.

    `observations` (n, inputs) are some that the agent met; `seconds` is how long this call took,
    which is less than the whole training where it went on after `resumed_steps`.
    """

    plan: TrainingPlan
    network: Network
    tensors: Mapping[str, Tensor]
    observations: Tensor
    record: TrainingRecord
    seconds: float
    resumed_steps: int

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the tensors: equal digests, equal weights."""
        return hashlib.sha256(tensor_file.encoded(self.tensors)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the worker is told: the plan, where checkpoints lie, and when to have ended.

    `deadline_at` is a time of `clock`, which has to be the same clock in every process.
    """

    plan: TrainingPlan
    market: TrainingMarket
    run: str
    folder: Path
    deadline_at: float
    clock: Callable[[], float]

    @property
    def deadline_seconds(self) -> float:
        """Return how long all of it may take."""
        return self.plan.deadline_seconds


def run_digest(plan: TrainingPlan, market: TrainingMarket) -> str:
    """Return the SHA-256 of all that decides the weights: plan, settings, market and packages."""
    made_by = {**plan.decisive(), "market": market.digest}
    return hashlib.sha256(canonical({**made_by, "packages": versions(PACKAGES)})).hexdigest()


def train(
    plan: TrainingPlan,
    market: TrainingMarket,
    *,
    folder: Path,
    clock: Callable[[], float],
    report: Callable[[TrainingEvent], None],
    grace_seconds: float = GRACE_SECONDS,
) -> TrainedPolicy:
    """Train by a plan, in a worker process, and return the policy.

    Checkpoints lie below `folder`, apart for each run (`run_digest`): begun again, a training goes
    on at its newest sound checkpoint. `clock` gives the seconds of a monotonic clock of the whole
    machine. `report` hears of progress. The worker stops by itself at the deadline; one that does
    not is killed `grace_seconds` later. Raises `ForecastTooLong`, `DeadlinePassed`, or
    `TrainingFailed` where the worker dies or the market refuses.
    """
    began = clock()
    run = run_digest(plan, market)
    order = Order(
        plan=plan,
        market=market,
        run=run,
        folder=folder / run[:16],
        deadline_at=began + plan.deadline_seconds,
        clock=clock,
    )
    with working(_WORKER, order, report=report, grace_seconds=grace_seconds) as heard:
        trained = heard.ending(Trained)
        network = network_of(plan, trained)
        observed = {"observations": (trained.observations, trained.inputs)}
        tensors = tensor_file.decoded(heard.received(), network.shapes(), file="tensors")
        seen = tensor_file.decoded(heard.received(), observed, file="observations")
    return TrainedPolicy(
        plan=plan,
        network=network,
        tensors=tensors,
        observations=seen["observations"],
        record=TrainingRecord(
            seed=plan.seed,
            steps=trained.steps,
            data_digest=market.digest,
            data_from=market.data_from,
            data_to=market.data_to,
            packages=versions(PACKAGES),
        ),
        seconds=clock() - began,
        resumed_steps=trained.resumed_steps,
    )


def network_of(plan: TrainingPlan, trained: Trained) -> Network:
    """Return the form of the network that a plan trains."""
    settings = plan.settings
    return Network(
        algorithm=plan.algorithm,
        inputs=trained.inputs,
        hidden=plan.layers,
        activation=plan.activation,
        actions=trained.actions,
        quantiles=settings.quantiles if isinstance(settings, ReplaySettings) else 1,
        temperature=1.0 if plan.algorithm is Algorithm.PPO else trained.temperature,
    )
