"""What a training says while it runs and when it ends; the words between worker and parent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from bandit.core.errors import BanditError


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The worker starts to learn, after `steps` that an earlier run has done."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointUnfit:
    """A checkpoint was refused and set aside; `reason` names the file and the rule."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten:
    """A checkpoint is on disk."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How long the whole training will take by its first seconds, counted from its start."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the training is; the mean return (ratio) of the last episodes, if any has ended."""

    steps: int
    steps_total: int
    steps_per_second: float
    episode_return_mean: float | None
    seconds_left: float


TrainingEvent = Begun | CheckpointUnfit | CheckpointWritten | Forecast | Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The worker has done all steps; tensors and as many observations follow.

    `resumed_steps` are those it found done; `temperature` is that of `learners.network`.
    """

    steps: int
    resumed_steps: int
    inputs: int
    actions: int
    temperature: float
    observations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The worker has passed over all rows as often as it should; the tensors follow.

    The losses are the mean cross entropies of the first epoch and of the last one.
    """

    batches: int
    resumed_batches: int
    loss_first: float
    loss_last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfTime:
    """The worker stopped by its deadline, after a checkpoint."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLong:
    """The worker stopped because its forecast is past its deadline, after a checkpoint."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The worker could not begin, or what it computed cannot be used."""

    reason: str


Ending = Trained | Fitted | OutOfTime | TooLong | Refused

_KINDS = {
    kind.__name__: kind
    for kind in (
        Begun,
        CheckpointUnfit,
        CheckpointWritten,
        Forecast,
        Progress,
        Trained,
        Fitted,
        OutOfTime,
        TooLong,
        Refused,
    )
}


def encoded(said: TrainingEvent | Ending) -> bytes:
    """Return an event as the worker sends it.

    >>> decoded(encoded(Forecast(seconds=12.5)))
    Forecast(seconds=12.5)
    """
    return json.dumps([type(said).__name__, asdict(said)]).encode()


def decoded(sent: bytes) -> TrainingEvent | Ending:
    """Return the event that was sent."""
    kind, values = json.loads(sent)
    event: TrainingEvent | Ending = _KINDS[kind](**values)
    return event


class ForecastTooLong(BanditError):
    """A training would not end by its deadline; nearly nothing of it was run.

    >>> str(ForecastTooLong(forecast_seconds=91.0, deadline_seconds=60.0))
    'training would take 91 s, its deadline is 60 s'
    """

    code = "forecast_too_long"

    def __init__(self, *, forecast_seconds: float, deadline_seconds: float) -> None:
        super().__init__(
            f"training would take {forecast_seconds:.3g} s, its deadline is {deadline_seconds:g} s"
        )
        self.forecast_seconds = forecast_seconds
        self.deadline_seconds = deadline_seconds


class DeadlinePassed(BanditError):
    """A training did not end by its deadline; begun again it goes on at its last checkpoint.

    `killed` tells a worker that had to be ended from one that stopped by itself.
    """

    code = "deadline_passed"

    def __init__(self, *, deadline_seconds: float, steps: int, killed: bool) -> None:
        how = "was killed" if killed else "stopped"
        super().__init__(
            f"training {how} at its deadline of {deadline_seconds:g} s; "
            f"it goes on after {steps} steps when begun again"
        )
        self.deadline_seconds = deadline_seconds
        self.steps = steps
        self.killed = killed


class TrainingFailed(BanditError):
    """A worker ended without a policy; `reason` says how."""

    code = "training_failed"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"training failed: {reason}")
        self.reason = reason
