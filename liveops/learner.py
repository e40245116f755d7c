"""The learner: a supervised process that does what the ledger asks of it, one job at a time.

A job is `liveops learn again`, so that it is what a person could have typed. Its process dies with
ours, and is begun again when it fails; trainings go on where they were.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bandit.core.errors import LedgerUnavailable
from bandit.core.learner_jobs import RESULT_MAX, LearnerJob
from bandit.core.model import NAME_LENGTH_MAX
from bandit.service import learner_jobs
from bandit.storage.locks import Lease, LockClass
from liveops.background import repeated
from liveops.clock import monotonic
from liveops.ledger_server import state_home
from liveops.postgres_launch import RunAs, launch_command
from liveops.wiring import App

TICK_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 600.0
"""A learner that said nothing for so long makes no progress: it writes a line each tenth."""

LEAVE_SECONDS: Final = 5.0
ACTOR: Final = "learner"

_MADE_BY_A_JOB = re.compile(r"-r\d+$")
log = logging.getLogger(__name__)

Command = Callable[[LearnerJob], list[str]]
"""The arguments of the Python that does a job."""


@dataclass(slots=True)
class _Child:
    job: LearnerJob
    process: subprocess.Popen[bytes]
    answer: Path
    said: Path
    said_bytes: int
    said_at: float


class Learner:
    """Does the jobs of one ledger; on how many hosts this runs, one of them does."""

    def __init__(
        self, app: App, *, command: Command, clock: Callable[[], float] = monotonic
    ) -> None:
        """Begin nothing yet; what jobs answer and say lies below `home`, in `learner`."""
        self._app = app
        self._command = command
        self._clock = clock
        self._folder = state_home(app.settings) / "learner"
        self._lease = Lease(app.engine, LockClass.LEARNER, 0)
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Take up a job that is due, or see how the present one is.

        Raises `LedgerUnavailable` where the ledger does not answer; a job that is under way then
        is ended, as another host may have taken it up.
        """
        with self._lock:
            try:
                is_ours = self._lease.hold()
            except LedgerUnavailable:
                self._end_child()
                raise
            if not is_ours:
                return
            if self._child is None:
                self._take()
            else:
                self._look(self._child)

    @property
    def job(self) -> LearnerJob | None:
        """The job that is under way here."""
        child = self._child
        return None if child is None else child.job

    @property
    def silent_seconds(self) -> float:
        """For how long the present job has said nothing; 0 where there is none."""
        child = self._child
        return 0.0 if child is None else self._clock() - child.said_at

    def restart(self, reason: str) -> LearnerJob | None:
        """End the process of the present job and begin it again; None where there is none.

        Written down before, so that a restart nobody can be told of does not happen.
        """
        with self._lock:
            child = self._child
            if child is None or child.process.poll() is not None:
                return None
            now = self._app.clock.now()
            learner_jobs.restarted(self._app.engine, child.job, reason=reason, now=now, actor=ACTOR)
            self._end_child()
            self._begin(child.job)
            log.warning("the learner is begun again: %s", reason)
            return child.job

    def stop(self) -> None:
        """End what is under way, and leave it to whoever comes next."""
        with self._lock:
            child = self._child
            self._end_child()
            try:
                if child is not None:
                    now = self._app.clock.now()
                    learner_jobs.give_back(self._app.engine, child.job.id, now=now, actor=ACTOR)
            finally:
                self._lease.leave()

    def _take(self) -> None:
        job = learner_jobs.take(self._app.engine, now=self._app.clock.now(), actor=ACTOR)
        if job is not None:
            self._begin(job)
            log.info("the learner begins: %s", job.reason, extra={"policy": job.policy})

    def _begin(self, job: LearnerJob) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        answer, said = (self._folder / f"{job.id}.{end}" for end in ("json", "log"))
        command = launch_command(RunAs.OWN_USER, Path(sys.executable), *self._command(job))
        with answer.open("wb") as out, said.open("ab") as err:
            process = subprocess.Popen(  # noqa: S603 - our own program, no text from outside
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        self._child = _Child(job, process, answer, said, said.stat().st_size, self._clock())

    def _look(self, child: _Child) -> None:
        code = child.process.poll()
        if code is not None:
            self._finish(child, succeeded=code == 0)
            return
        size = child.said.stat().st_size
        if size != child.said_bytes:
            child.said_bytes, child.said_at = size, self._clock()

    def _finish(self, child: _Child, *, succeeded: bool) -> None:
        result = _policy_in(child.answer) if succeeded else _last_line(child.said)
        ended = learner_jobs.finish(
            self._app.engine,
            child.job.id,
            succeeded=succeeded and result is not None,
            result=result or f"ended with {child.process.returncode} and said nothing",
            now=self._app.clock.now(),
            actor=ACTOR,
        )
        self._child = None
        level = logging.INFO if succeeded else logging.WARNING
        log.log(level, "the learner ended: %s", ended.result, extra={"state": ended.state.value})

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.process.terminate()
        try:
            child.process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


@contextmanager
def supervised(app: App, *, command: Command) -> Iterator[Learner]:
    """Do the jobs of the ledger while the context lasts, in a thread of its own."""
    learner = Learner(app, command=command)
    trouble = "the learner cannot be looked after"
    try:
        with repeated("learner", lambda _: learner.tick(), seconds=TICK_SECONDS, trouble=trouble):
            yield learner
    finally:
        try:
            learner.stop()
        except LedgerUnavailable as error:  # the next one finds the job running, and nobody at it
            log.warning("a job could not be given back: %s", error)


def again_command(*, config: Path | None, demo: bool) -> Command:
    """Return the command line of jobs: `liveops learn again`, with the options that are ours."""
    ours = [
        *([] if config is None else ["--config", str(config.absolute())]),
        *(["--demo"] if demo else []),
    ]
    start = ["-c", "from liveops.cli import main; main()"]

    def command(job: LearnerJob) -> list[str]:
        name = name_of(job)
        return [*start, "learn", "again", job.policy, name, "--refresh", "--json", *ours]

    return command


def name_of(job: LearnerJob) -> str:
    """Return the name of the policy that a job makes: the same for every attempt.

    A policy that a job made before lends its own stem.
    """
    end = f"-r{job.id}"
    stem = _MADE_BY_A_JOB.sub("", job.policy)
    return stem[: NAME_LENGTH_MAX - len(end)] + end


def _policy_in(answer: Path) -> str | None:
    """Return the name of the policy that a job answered with; None where it did not."""
    try:
        found = json.loads(answer.read_bytes())
    except ValueError:
        return None
    name = found.get("policy") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _last_line(said: Path) -> str | None:
    lines = said.read_text(encoding="utf-8", errors="replace").split("\n")
    told = [line.strip() for line in lines if line.strip()]
    return told[-1][:RESULT_MAX] if told else None
