"""The week's tasks, one after the other: each is tried, whatever becomes of those before it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Any, Final

from sqlalchemy import Engine

from bandit.core.errors import BanditError, LockHeldElsewhere
from bandit.core.job_runs import RunState
from bandit.service import job_runs
from liveops.clock import monotonic
from liveops.job_runner import PING_SECONDS, Attempt, Command, Outcome, Runner
from liveops.postgres_launch import RunAs, launch_command
from liveops.schedule import Job

MADE_MAX: Final = 300
_LIST = re.compile(r'"(?:done|would)"\s*:\s*\[')
_BETWEEN: Final = ", \n\r\t"


class TaskState(StrEnum):
    """What became of a task; `WOULD` and `WOULD_FAIL` in a dry run.

    `BUSY` is one that another process is at, or at its work.
    """

    DONE = "done"
    DONE_BEFORE = "done before"
    FAILED = "failed"
    BUSY = "busy"
    STOPPED = "stopped"
    WOULD = "would be done"
    WOULD_FAIL = "would fail"

    @property
    def is_failure(self) -> bool:
        """Whether the week's maintenance has failed with it."""
        return self not in (TaskState.DONE, TaskState.DONE_BEFORE, TaskState.WOULD)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What became of a task, how long it took, and what it made, in its own words."""

    task: str
    state: TaskState
    seconds: float
    made: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as `weekly_maintenance --json` prints it."""
        return {
            "task": self.task,
            "state": self.state.value,
            "seconds": round(self.seconds, 1),
            "made": list(self.made),
        }


def do(runner: Runner, job: Job, slot: datetime, *, stop: Event) -> TaskReport:
    """Do a task unless it is done this week, or another process is at it or its work.

    An error is the task's: what it leaves begun is taken over by whoever comes next.
    """
    began = monotonic()
    try:
        attempt = runner.run(job, slot, stop=stop, is_scheduled=False)
    except BanditError as error:
        is_busy = isinstance(error, LockHeldElsewhere)
        state, made = TaskState.BUSY if is_busy else TaskState.FAILED, (f"{error.code}: {error}",)
        return TaskReport(task=job.name, state=state, seconds=monotonic() - began, made=made)
    return _report(job, attempt, seconds=monotonic() - began)


def rehearse(
    engine: Engine, command: Command, job: Job, slot: datetime, *, stop: Event
) -> TaskReport:
    """Say what a task would do: its own command does, with `--dry-run`. Claims nothing."""
    run = job_runs.find(engine, job.name, slot)
    if run is not None and run.state is RunState.DONE:
        return _report(job, Attempt(outcome=Outcome.DONE_BEFORE, run=run), seconds=0.0)
    began = monotonic()
    with _begun([*command(job, slot), "--dry-run"]) as process:
        ended = _waited(process, ends_at=began + job.limit_seconds, stop=stop)
    seconds = monotonic() - began
    if ended is not None and process.returncode == 0:
        made = made_of(ended[0])
        return TaskReport(task=job.name, state=TaskState.WOULD, seconds=seconds, made=made)
    if ended is None:
        why = f"ended at its limit of {job.limit_seconds} s"
    else:
        answer, said = ended
        code = f"exit code {process.returncode}, and nothing said"
        why = _last_line(said) or _last_line(answer) or code
    state = TaskState.STOPPED if stop.is_set() else TaskState.WOULD_FAIL
    return TaskReport(task=job.name, state=state, seconds=seconds, made=(why,))


def made_of(answer: str) -> tuple[str, ...]:
    """Return what a command says it has done, or would, of the document that it printed.

    The ledger keeps the beginning of a long one: its list is then what can be read of it.

    >>> made_of('{"date": "2026-03-01", "done": ["a", "b"], "rows": [1, 2')
    ('a', 'b')
    >>> made_of('{"done": [{"name": "a"}, "b')
    ('{"name":"a"}', '…')
    >>> made_of("ended at its limit of 9 s")
    ('ended at its limit of 9 s',)
    """
    found = _LIST.search(answer)
    if found is None:
        line = " ".join(answer.split())
        return (line[:MADE_MAX],) if line else ()
    decoder, made, rest = json.JSONDecoder(), list[str](), answer[found.end() :]
    while not (rest := rest.lstrip(_BETWEEN)).startswith("]"):
        try:
            value, end = decoder.raw_decode(rest)
        except ValueError:
            return (*made, "…")
        told = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        made.append(told)
        rest = rest[end:]
    return tuple(made)


def _report(job: Job, attempt: Attempt, *, seconds: float) -> TaskReport:
    run, state = attempt.run, _STATES[attempt.outcome]
    if state is TaskState.DONE_BEFORE and run is not None:
        seconds = (run.changed_at - run.began_at).total_seconds()
    result = attempt.why if run is None or run.result is None else run.result
    if state is TaskState.STOPPED and not result:
        result = "the next run goes on with it"
    return TaskReport(task=job.name, state=state, seconds=seconds, made=made_of(result))


@contextmanager
def _begun(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command while the context lasts; then it is ended, with everything it started."""
    process = subprocess.Popen(  # noqa: S603 - our own program, no text from outside
        launch_command(RunAs.OWN_USER, Path(sys.executable), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _waited(
    process: subprocess.Popen[str], *, ends_at: float, stop: Event
) -> tuple[str, str] | None:
    """Return what a process answered and said; None where its time was over, or it was stopped."""
    while monotonic() < ends_at and not stop.is_set():
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=PING_SECONDS)
    return None


def _last_line(text: str) -> str | None:
    told = [line.strip() for line in text.splitlines() if line.strip()]
    return told[-1][:MADE_MAX] if told else None


_STATES: Final = {
    Outcome.DONE: TaskState.DONE,
    Outcome.FAILED: TaskState.FAILED,
    Outcome.DONE_BEFORE: TaskState.DONE_BEFORE,
    Outcome.SPENT: TaskState.FAILED,
    Outcome.LEFT: TaskState.STOPPED,
    Outcome.BUSY: TaskState.BUSY,
}
