"""One slot of a scheduled job: claimed, its command run as a child of ours, and what came of it.

The child is the command that a person could have typed, in a session of its own. It dies with us,
and is ended with everything it started when its time is over.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from bandit.core.errors import LockHeldElsewhere
from bandit.core.job_runs import TRIES_MAX, JobRun, RunState, key_of
from bandit.service import job_runs
from bandit.storage.locks import Lease, LockClass
from liveops.clock import Clock, monotonic
from liveops.postgres_launch import RunAs, launch_command
from liveops.schedule import JOBS, Job, waits_for

LEASE_SECONDS: Final = 3
"""After how long the jobs of a process that was stopped are free for others."""

PING_SECONDS: Final = 1.0
LEAVE_SECONDS: Final = 2.0
"""How long a child may clean up once it is told to end: less than our claim lasts."""

BUSY_CODE: Final = 3
"""How a command of ours ends while another process is at its work, such as another backup."""

SPENT_CODE: Final = 4
"""How a scheduled job ends that has no try left; systemd begins again what ends with 1."""

BUSY_SECONDS: Final = 60.0
"""How long a scheduled job rests before it looks whether that process is done."""

log = logging.getLogger(__name__)

Command = Callable[[Job, datetime], list[str]]
"""The arguments of the Python that does a slot of a job."""


class Outcome(StrEnum):
    """What became of an attempt at a slot."""

    DONE = "done"
    FAILED = "failed"
    DONE_BEFORE = "done_before"
    SPENT = "spent"
    LEFT = "left"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of an attempt, and the run as the ledger has it; None if it never began.

    `why` is what the command said that found another process at its work, empty otherwise.
    """

    outcome: Outcome
    run: JobRun | None
    why: str = ""


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    said: Path
    answer: Path
    said_before: int


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int | None
    result: str


class Runner:
    """Runs slots of jobs of one ledger; several may at once, also of several processes."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        *,
        logs: Path,
        command: Command,
        actor: str,
        jobs: Sequence[Job] = JOBS,
    ) -> None:
        """Begin nothing yet; what jobs say is appended to `logs`, a file a job."""
        self._engine = engine
        self._clock = clock
        self._logs = logs
        self._command = command
        self._actor = f"{actor}@{socket.gethostname()}"
        self._jobs = jobs

    def run(
        self, job: Job, slot: datetime, *, stop: threading.Event, is_scheduled: bool
    ) -> Attempt:
        """Do a slot unless it is done, after what comes before it, and return what came of it.

        What `is_scheduled` is begun `TRIES_MAX` times, what a person asks for as often as asked.
        Where another process does such work, what `is_scheduled` waits for it within its limit,
        and what a person asks for is `BUSY`. Then, and where `stop` ended it, the slot stays begun,
        and whoever comes next takes it over.

        Raises `LockHeldElsewhere` while another process is at the job, `FenceLost` where one took
        the slot over, and `LedgerUnavailable`, with which the claim is lost.
        """
        lease = Lease(self._engine, LockClass.JOB, key_of(job.name), seconds=LEASE_SECONDS)
        try:
            _keep(lease, job)
            if (before := self._over(job, slot, is_scheduled=is_scheduled)) is not None:
                return before
            if not self._others_ended(job, slot, lease, stop):
                return Attempt(outcome=Outcome.LEFT, run=None)
            now = self._clock.now()
            claimed = job_runs.claim(self._engine, job.name, slot, now=now, actor=self._actor)
            if claimed is None:
                return self._done_before(job, slot)
            return self._attempt(job, claimed, lease, stop, is_scheduled=is_scheduled)
        finally:
            lease.leave()

    def _over(self, job: Job, slot: datetime, *, is_scheduled: bool) -> Attempt | None:
        run = job_runs.find(self._engine, job.name, slot)
        if run is None:
            return None
        if run.state is RunState.DONE:
            return Attempt(outcome=Outcome.DONE_BEFORE, run=run)
        if not is_scheduled or run.attempts < TRIES_MAX:
            return None
        if run.state is RunState.RUNNING:  # nobody is at it: the lease is ours
            run = self._finish(run, succeeded=False, result="left by whoever ran it, each time")
        return Attempt(outcome=Outcome.SPENT, run=run)

    def _done_before(self, job: Job, slot: datetime) -> Attempt:
        run = job_runs.find(self._engine, job.name, slot)
        return Attempt(outcome=Outcome.DONE_BEFORE, run=run)

    def _others_ended(self, job: Job, slot: datetime, lease: Lease, stop: threading.Event) -> bool:
        """Wait for the jobs before this one; False when `stop` came first."""

        def run_of(name: str, due: datetime) -> JobRun | None:
            return job_runs.find(self._engine, name, due)

        since, told = self._clock.now(), False
        while True:
            now = self._clock.now()
            others = waits_for(job, slot, now=now, since=since, run_of=run_of, jobs=self._jobs)
            if not others:
                return True
            if not told:
                log.info("%s waits for %s", job.name, ", ".join(others))
                told = True
            if stop.wait(PING_SECONDS):
                return False
            _keep(lease, job)

    def _attempt(
        self,
        job: Job,
        claimed: JobRun,
        lease: Lease,
        stop: threading.Event,
        *,
        is_scheduled: bool,
    ) -> Attempt:
        """Run the command; where another process is at its work, again until the time is over."""
        ends_at = monotonic() + job.limit_seconds
        while True:
            try:
                ended = self._ran(job, claimed, lease, stop, ends_at=ends_at)
            except OSError as error:  # such as a full disk, where nothing can be begun or logged
                ended = _Ended(None, str(error))
            if ended is None:
                return Attempt(outcome=Outcome.LEFT, run=claimed)
            if ended.code == BUSY_CODE and not is_scheduled:
                return Attempt(outcome=Outcome.BUSY, run=claimed, why=ended.result)
            again_at = monotonic() + BUSY_SECONDS
            if ended.code != BUSY_CODE or again_at >= ends_at:
                break
            log.info("%s waits: %s", job.name, ended.result)
            while monotonic() < again_at:
                if stop.wait(PING_SECONDS):
                    return Attempt(outcome=Outcome.LEFT, run=claimed)
                _keep(lease, job)
        succeeded = ended.code == 0
        run = self._finish(claimed, succeeded=succeeded, result=ended.result)
        return Attempt(outcome=Outcome.DONE if succeeded else Outcome.FAILED, run=run)

    def _ran(
        self, job: Job, claimed: JobRun, lease: Lease, stop: threading.Event, *, ends_at: float
    ) -> _Ended | None:
        """Run the command once; None where `stop` came first."""
        child, answer = self._begin(job, claimed), ""
        try:
            while (code := _waited(child.process)) is None:
                if stop.is_set():
                    return None
                if monotonic() >= ends_at:
                    break
                _keep(lease, job)
        finally:
            _end(child.process)
            said, answer = _told(child)
        if code is None:
            result: str | None = f"ended at its limit of {job.limit_seconds} s"
        else:
            result = _in_a_line(answer) if code == 0 else _last_of(said) or _last_of(answer)
        return _Ended(code, result or f"exit code {code}, and nothing said")

    def _begin(self, job: Job, claimed: JobRun) -> _Child:
        self._logs.mkdir(parents=True, exist_ok=True)
        said, answer = self._logs / f"{job.name}.log", self._logs / f"{job.name}.{os.getpid()}.json"
        arguments = self._command(job, claimed.slot)
        command = launch_command(RunAs.OWN_USER, Path(sys.executable), *arguments)
        with said.open("ab", buffering=0) as err, answer.open("wb") as out:
            slot, attempt = claimed.slot.isoformat(), claimed.attempts
            err.write(f"--- {job.name} of {slot}, attempt {attempt}\n".encode())
            before = err.tell()
            process = subprocess.Popen(  # noqa: S603 - our own program, no text from outside
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        return _Child(process, said, answer, before)

    def _finish(self, run: JobRun, *, succeeded: bool, result: str) -> JobRun:
        now = self._clock.now()
        ended = job_runs.finish(
            self._engine, run, succeeded=succeeded, result=result, now=now, actor=self._actor
        )
        level = logging.INFO if succeeded else logging.WARNING
        log.log(level, "%s %s: %s", run.job, ended.state, ended.result)
        return ended


def cli_command(*, config: Path | None, demo: bool) -> Command:
    """Return the command line of a slot: the job's own, with the options that are ours."""
    ours = [
        *([] if config is None else ["--config", str(config.absolute())]),
        *(["--demo"] if demo else []),
    ]

    def command(job: Job, slot: datetime) -> list[str]:
        program, *arguments = job.command
        entry = "main" if program == "liveops" else program
        dated = ["--date", f"{slot:%Y-%m-%d}"] if job.is_dated else []
        start = ["-c", f"from liveops.cli import {entry}; {entry}()"]
        return [*start, *arguments, *dated, "--json", *ours]

    return command


def _keep(lease: Lease, job: Job) -> None:
    if not lease.hold():
        raise LockHeldElsewhere(f"{job.name}: another process is at it now")


def _waited(process: subprocess.Popen[bytes]) -> int | None:
    """Return how a child ended; None when it goes on after `PING_SECONDS`."""
    try:
        return process.wait(PING_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child and everything it started, which has a while to clean up."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LEAVE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _told(child: _Child) -> tuple[str, str]:
    """Return what a child said and answered, and put its answer into the log behind the rest.

    Where the disk refuses, as much of it as there is: how the child ended counts all the same.
    """
    answer, said = b"", b""
    try:
        answer = child.answer.read_bytes()
        child.answer.unlink()
        with child.said.open("a+b") as log_file:
            log_file.seek(child.said_before)
            said = log_file.read()
            log_file.write(answer)
    except OSError:
        log.exception("%s lacks what was answered", child.said)
    return said.decode(errors="replace"), answer.decode(errors="replace")


def _in_a_line(answer: str) -> str | None:
    """Return the document that a child printed as one line, else the last line it printed."""
    try:
        return json.dumps(json.loads(answer), separators=(",", ":"))
    except ValueError:
        return _last_of(answer)


def _last_of(text: str) -> str | None:
    told = [line.strip() for line in text.splitlines() if line.strip()]
    return told[-1] if told else None
