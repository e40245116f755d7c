"""Train a policy by reinforcement: in a process of its own, with a deadline, resumable, repeatable.

The worker is begun anew for every training and its memory starts empty: everything an agent
replays, it did in the market it is given. The same plan, market, seed and package versions give the
same weights, bit by bit, however often the training was killed and begun again on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, assert_never

from bandit.core.errors import ExtraMissing
from learners import tensor_file
from learners.artifact_spec import TrainingRecord
from learners.canonical_json import canonical
from learners.network import Algorithm, Network
from learners.tensor_file import Tensor
from learners.training_events import (
    Begun,
    CheckpointWritten,
    DeadlinePassed,
    Ending,
    ForecastTooLong,
    OutOfTime,
    Refused,
    TooLong,
    Trained,
    TrainingEvent,
    TrainingFailed,
    decoded,
)
from learners.training_plan import ReplaySettings, TrainingPlan

if TYPE_CHECKING:
    from learners.training_state import ResumableVecEnv

PACKAGES = ("gymnasium", "numpy", "sb3-contrib", "stable-baselines3", "torch")
GRACE_SECONDS = 10.0

_TERM_SECONDS = 2.0
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


def installed_packages() -> dict[str, str]:
    """Return the versions of what trains, without importing any of it.

    Raises `ExtraMissing` where only what serves is installed.
    """
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise ExtraMissing(f"{error.name} is not installed: make learners") from error


def run_digest(plan: TrainingPlan, market: TrainingMarket) -> str:
    """Return the SHA-256 of all that decides the weights: plan, settings, market and packages."""
    planned = plan.to_json()
    for limit in ("deadline_seconds", "checkpoint_every_steps"):  # they decide nothing
        del planned[limit]
    made_by = {"plan": planned, "settings": asdict(plan.settings), "market": market.digest}
    return hashlib.sha256(canonical({**made_by, "packages": installed_packages()})).hexdigest()


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
    # A server that has imported torch once forks every worker: each begins in a fresh process, and
    # none of a command's trainings but the first waits for the import.
    context = get_context("forkserver")
    context.set_forkserver_preload([_WORKER])
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(theirs, order), daemon=True)
    heard = _Heard(ours, order, report, order.deadline_at + grace_seconds)
    try:
        worker.start()
        theirs.close()
        trained = heard.ending(worker)
        tensors, observations = heard.policy(trained)
        worker.join(_TERM_SECONDS)
    finally:
        _end(worker)
        ours.close()
    return TrainedPolicy(
        plan=plan,
        network=network_of(plan, trained),
        tensors=tensors,
        observations=observations,
        record=TrainingRecord(
            seed=plan.seed,
            steps=trained.steps,
            data_digest=market.digest,
            data_from=market.data_from,
            data_to=market.data_to,
            packages=installed_packages(),
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


class _Heard:
    """The parent's end of the pipe; nothing is waited for beyond `until`."""

    def __init__(
        self,
        pipe: Connection,
        order: Order,
        report: Callable[[TrainingEvent], None],
        until: float,
    ) -> None:
        self._pipe = pipe
        self._order = order
        self._report = report
        self._until = until
        self._steps_kept = 0

    def ending(self, worker: BaseProcess) -> Trained:
        """Pass events on until the worker ends with a policy; raise where it ends otherwise."""
        try:
            while isinstance(said := decoded(self._received()), TrainingEvent):
                if isinstance(said, CheckpointWritten | Begun):
                    self._steps_kept = said.steps
                self._report(said)
        except EOFError:
            worker.join(_TERM_SECONDS)
            reason = f"its worker ended with exit code {worker.exitcode}"
            raise TrainingFailed(reason=reason) from None
        return self._trained(said)

    def policy(self, trained: Trained) -> tuple[Mapping[str, Tensor], Tensor]:
        """Return the tensors and observations that follow the ending."""
        plan = self._order.plan
        observed = {"observations": (trained.observations, trained.inputs)}
        network = network_of(plan, trained)
        tensors = tensor_file.decoded(self._received(), network.shapes(), file="tensors")
        seen = tensor_file.decoded(self._received(), observed, file="observations")
        return tensors, seen["observations"]

    def _trained(self, said: Ending) -> Trained:
        seconds = self._order.plan.deadline_seconds
        match said:
            case Trained():
                return said
            case OutOfTime():
                raise DeadlinePassed(deadline_seconds=seconds, steps=said.steps, killed=False)
            case TooLong():
                raise ForecastTooLong(forecast_seconds=said.seconds, deadline_seconds=seconds)
            case Refused():
                raise TrainingFailed(reason=said.reason)
            case _:
                assert_never(said)

    def _received(self) -> bytes:
        if not self._pipe.poll(max(0.0, self._until - self._order.clock())):
            seconds = self._order.plan.deadline_seconds
            raise DeadlinePassed(deadline_seconds=seconds, steps=self._steps_kept, killed=True)
        return self._pipe.recv_bytes()


def _work(pipe: Connection, order: Order) -> None:
    # Only the worker imports torch.
    import_module(_WORKER).work(pipe, order)


def _end(worker: BaseProcess) -> None:
    """End the worker, whatever it does."""
    if worker.is_alive():
        worker.terminate()
        worker.join(_TERM_SECONDS)
    if worker.is_alive():
        worker.kill()
    if worker.pid is not None:
        worker.join()
