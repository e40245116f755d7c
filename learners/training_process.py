"""A training in a process of its own: what it is told, what is heard of it, and how it is ended.

A worker is a module with a function `work(pipe, order)`. It is begun anew for every training, says
events, then an ending, then what the ending announces; it watches the deadline itself, and one that
does not is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, TypeVar

from learners.training_events import (
    Begun,
    CheckpointWritten,
    DeadlinePassed,
    Ending,
    ForecastTooLong,
    OutOfTime,
    Refused,
    TooLong,
    TrainingEvent,
    TrainingFailed,
    decoded,
)

GRACE_SECONDS = 10.0

_TERM_SECONDS = 2.0

Success = TypeVar("Success")


class Order(Protocol):
    """What every worker is told; it has to be picklable.

    `run` names the training and `folder` is where its checkpoints lie. `deadline_at` is a time of
    `clock`, which has to be the same clock in every process.
    """

    @property
    def run(self) -> str:
        """Return the SHA-256 of all that decides what comes out."""
        ...

    @property
    def folder(self) -> Path:
        """Return where checkpoints lie."""
        ...

    @property
    def deadline_seconds(self) -> float:
        """Return how long all of it may take."""
        ...

    @property
    def deadline_at(self) -> float:
        """Return by when it has ended."""
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """Return the clock that the deadline is read from."""
        ...


class Heard:
    """The parent's end of the pipe; nothing is waited for beyond deadline and grace."""

    def __init__(
        self,
        pipe: Connection,
        worker: BaseProcess,
        order: Order,
        *,
        report: Callable[[TrainingEvent], None],
        grace_seconds: float,
    ) -> None:
        """Listen to what `worker` says of `order`."""
        self._pipe = pipe
        self._worker = worker
        self._order = order
        self._report = report
        self._until = order.deadline_at + grace_seconds
        self._steps_kept = 0

    def ending(self, success: type[Success]) -> Success:
        """Pass events on until the worker ends as it should; raise where it ends otherwise."""
        try:
            while isinstance(said := decoded(self.received()), TrainingEvent):
                if isinstance(said, CheckpointWritten | Begun):
                    self._steps_kept = said.steps
                self._report(said)
        except EOFError:
            self._worker.join(_TERM_SECONDS)
            reason = f"its worker ended with exit code {self._worker.exitcode}"
            raise TrainingFailed(reason=reason) from None
        if isinstance(said, success):
            return said
        raise self._failure(said)

    def received(self) -> bytes:
        """Return what the worker says next; raises `DeadlinePassed` where it says nothing."""
        if not self._pipe.poll(max(0.0, self._until - self._order.clock())):
            seconds = self._order.deadline_seconds
            raise DeadlinePassed(deadline_seconds=seconds, steps=self._steps_kept, killed=True)
        return self._pipe.recv_bytes()

    def _failure(self, said: Ending) -> Exception:
        seconds = self._order.deadline_seconds
        match said:
            case OutOfTime():
                return DeadlinePassed(deadline_seconds=seconds, steps=said.steps, killed=False)
            case TooLong():
                return ForecastTooLong(forecast_seconds=said.seconds, deadline_seconds=seconds)
            case Refused():
                return TrainingFailed(reason=said.reason)
            case _:
                raise AssertionError(f"the worker of another training answered: {said}")


@contextmanager
def working(
    worker: str,
    order: Order,
    *,
    report: Callable[[TrainingEvent], None],
    grace_seconds: float = GRACE_SECONDS,
) -> Iterator[Heard]:
    """Let the module `worker` do what `order` says while the context lasts; after it, it is ended.

    The worker stops by itself at the deadline; nobody waits for one that does not, `grace_seconds`
    later.
    """
    # A server that has imported torch once forks every worker: each begins in a fresh process, and
    # none of a command's trainings but the first waits for the import.
    context = get_context("forkserver")
    context.set_forkserver_preload([worker])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(worker, theirs, order), daemon=True)
    try:
        process.start()
        theirs.close()
        yield Heard(ours, process, order, report=report, grace_seconds=grace_seconds)
        process.join(_TERM_SECONDS)
    finally:
        _end(process)
        ours.close()


def _work(worker: str, pipe: Connection, order: Order) -> None:
    # Only the worker imports torch.
    import_module(worker).work(pipe, order)


def _end(process: BaseProcess) -> None:
    """End the worker, whatever it does."""
    if process.is_alive():
        process.terminate()
        process.join(_TERM_SECONDS)
    if process.is_alive():
        process.kill()
    if process.pid is not None:
        process.join()
