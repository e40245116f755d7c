"""Where trials run: in processes of this machine, or on a cluster of Ray (SPEC H8).

Both begin the one trial function (`learners.tuning`) and pass on what it says. Who runs trials
decides when one is ended, and begins one again whose worker was lost.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from bandit.core.errors import BanditError, ExtraMissing
from learners.challenger import ChallengerPlan
from learners.market.candles import Candles
from learners.tuning import Said, TrialFailed, TrialLost, TrialMade, trial

LEAVE_SECONDS: Final = 10.0
"""How long a process is waited for after its last word, before it is ended."""


REACHED_SECONDS: Final = 5.0
"""By when a cluster has to let us in."""


class ClusterUnavailable(BanditError):
    """The cluster that trials were to run on cannot be reached, or has no place for them."""

    code = "cluster_unavailable"


class Backend(Protocol):
    """Where trials run, each under its number."""

    def begin(self, number: int, plan: ChallengerPlan) -> None:
        """Begin a trial."""
        ...

    def heard(self, seconds: float) -> list[tuple[int, Said]]:
        """Return what trials say, after `seconds` at the latest; nothing follows a last word."""
        ...

    def end(self, number: int) -> None:
        """End a trial whatever it does; nothing more is heard of it."""
        ...

    def close(self) -> None:
        """End all trials."""
        ...


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


class LocalBackend:
    """Trials in processes of their own, each with all that it starts in a group of its own.

    A group ends with its trial, and when this process ends, however that happens.
    """

    def __init__(
        self,
        series: Sequence[Candles],
        *,
        folder_of: Callable[[int], Path],
        clock: Callable[[], float],
    ) -> None:
        """Begin nothing yet; the trainings of a trial lie in `folder_of` its number."""
        self._series = tuple(series)
        self._folder_of = folder_of
        self._clock = clock
        self._workers: dict[int, _Worker] = {}

    def begin(self, number: int, plan: ChallengerPlan) -> None:
        """Begin a trial in a new process."""
        context = get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        order = (theirs, plan, self._series, self._folder_of(number), self._clock)
        process = context.Process(target=_work, args=order, name=f"trial {number}")
        process.start()
        theirs.close()
        self._workers[number] = _Worker(process, ours)

    def heard(self, seconds: float) -> list[tuple[int, Said]]:
        """Return one word of each trial that has said something."""
        by_pipe: dict[Any, int] = {worker.pipe: n for n, worker in self._workers.items()}
        if not by_pipe:
            return []
        return [(by_pipe[pipe], self._word(by_pipe[pipe])) for pipe in wait(by_pipe, seconds)]

    def _word(self, number: int) -> Said:
        worker = self._workers[number]
        try:
            said: Said = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(LEAVE_SECONDS)
            said = TrialLost(reason=f"its process ended with {worker.process.exitcode}")
        if isinstance(said, TrialMade | TrialFailed | TrialLost):
            self.end(number)
        return said

    def end(self, number: int) -> None:
        """Kill a trial with all that it started."""
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        pid = worker.process.pid
        assert pid is not None
        with suppress(ProcessLookupError):  # it is gone, or has no group of its own yet
            os.killpg(pid, signal.SIGKILL)
        worker.process.kill()
        worker.process.join()
        worker.process.close()
        worker.pipe.close()

    def close(self) -> None:
        """Kill all trials."""
        for number in list(self._workers):
            self.end(number)


def _work(
    pipe: Connection,
    plan: ChallengerPlan,
    series: Sequence[Candles],
    folder: Path,
    clock: Callable[[], float],
) -> None:
    os.setsid()  # a terminal's Ctrl-C is for who began this
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for said in trial(plan, series, folder=folder, clock=clock):
        pipe.send(said)


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


class RayBackend:
    """Trials on a cluster of Ray: it finds the place, and tells when a machine was lost.

    Every node needs this release with its learners. A trial takes one processor; its checkpoints
    lie on its node and go with it, what it made comes back.
    """

    def __init__(
        self,
        series: Sequence[Candles],
        *,
        address: str | None,
        clock: Callable[[], float],
    ) -> None:
        """Join the cluster at `address`; without one, a cluster of this machine alone.

        Raises `ExtraMissing` where Ray is not installed, `ClusterUnavailable` where nothing
        answers.
        """
        self._ray = ray = _ray()
        try:
            if address is not None:
                # Ray itself would try for many minutes before it says that nobody is there.
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=REACHED_SECONDS).close()
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterUnavailable(
                f"no cluster of Ray at {address or 'local'}: {error}"
            ) from error
        # Once to each node, not once to each trial.
        self._series = ray.put(tuple(series))
        # Whether a trial is tried again is for who runs trials: they are counted there.
        self._trial = ray.remote(num_cpus=1, max_retries=0)(_remote)
        self._clock = clock
        self._said: dict[int, Any] = {}

    def begin(self, number: int, plan: ChallengerPlan) -> None:
        """Ask the cluster for a place; the trial begins when there is one."""
        self._said[number] = self._trial.remote(plan, self._series, self._clock)

    def heard(self, seconds: float) -> list[tuple[int, Said]]:
        """Return one word of each trial that has said something."""
        numbers = {said: number for number, said in self._said.items()}
        if not numbers:
            return []
        ready, _ = self._ray.wait(list(numbers), num_returns=1, timeout=seconds)
        return [(numbers[said], self._word(numbers[said])) for said in ready]

    def _word(self, number: int) -> Said:
        try:
            said: Said = self._ray.get(next(self._said[number]))
        except StopIteration:
            said = TrialLost(reason="its task ended without a last word")
        except self._ray.exceptions.RayError as error:
            told = str(error).partition(".")[0][:200]
            said = TrialLost(reason=f"{type(error).__name__}: {told}")
        if isinstance(said, TrialMade | TrialFailed | TrialLost):
            self._said.pop(number, None)
        return said

    def end(self, number: int) -> None:
        """Kill the worker of a trial."""
        said = self._said.pop(number, None)
        if said is not None:
            self._ray.cancel(said, force=True)

    def close(self) -> None:
        """End all trials, and leave the cluster."""
        for number in list(self._said):
            self.end(number)
        self._ray.shutdown()


def _remote(plan: ChallengerPlan, series: Sequence[Candles], clock: Callable[[], float]) -> Any:
    yield from trial(plan, series, folder=None, clock=clock)


def _ray() -> Any:
    # Nothing is told to anybody: read when a cluster is started, before that it has to be said.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # noqa: TID251 - written for Ray, never read
    try:
        import ray
    except ImportError as error:
        raise ExtraMissing("ray is not installed: .venv/bin/python -m pip install ray") from error
    return ray
