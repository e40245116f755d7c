"""The scheduler: begins what is due, in one of all processes that could.

Whoever holds the lease of schedulers leads. Slots are APScheduler's cron triggers in UTC, without a
job store: what is done stands in the ledger, and each slot is claimed there, so that also two who
both believe to lead do it once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, timedelta
from pathlib import Path
from typing import Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from sqlalchemy import Engine

from bandit.core.errors import BanditError, LedgerUnavailable, LockHeldElsewhere
from bandit.core.job_runs import due_at
from bandit.service import job_runs
from bandit.storage.locks import Lease, LockClass
from liveops.background import repeated
from liveops.clock import Clock, monotonic
from liveops.clock import now as wall_now
from liveops.job_runner import LEASE_SECONDS, PING_SECONDS, Runner, cli_command
from liveops.ledger_server import state_home
from liveops.schedule import JOBS, Job, When, newest_slot
from liveops.wiring import App, with_own_engine

ACTOR: Final = "scheduler"
JUMP_SECONDS: Final = 5.0
"""A clock that went so much otherwise than time did was set, or the machine slept."""

HELD_AGAIN: Final = timedelta(seconds=1)
FAULT_AGAIN: Final = timedelta(seconds=15)
STATEMENT_SECONDS: Final = 30
log = logging.getLogger(__name__)


def trigger_of(when: When) -> CronTrigger:
    """Return the trigger of these slots, on a clock that shows UTC."""
    return CronTrigger(**when.fields, timezone=UTC)


class Scheduler:
    """Begins jobs of one ledger while it leads; on how many hosts this runs, one of them does."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        runner: Runner,
        *,
        jobs: Sequence[Job] = JOBS,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        """Begin nothing yet."""
        self._engine = engine
        self._clock = clock
        self._runner = runner
        self._jobs = jobs
        self._monotonic = monotonic
        self._lease = Lease(engine, LockClass.SCHEDULER, 0, seconds=LEASE_SECONDS)
        self._term: _Term | None = None
        self._offset = 0.0

    @property
    def leads(self) -> bool:
        """Whether this is the one that begins jobs."""
        return self._term is not None

    def tick(self) -> None:
        """Take the lead where nobody has it, or see whether it is still ours.

        To be called each second. Raises `LedgerUnavailable` where the ledger does not answer; what
        runs here then is ended, as another host may have taken the lead.
        """
        try:
            is_ours = self._lease.hold()
        except LedgerUnavailable:
            self._stand_down()
            raise
        if not is_ours:
            return
        offset = self._clock.now().timestamp() - self._monotonic()
        jumped, self._offset = abs(offset - self._offset) > JUMP_SECONDS, offset
        if self._term is None:
            self._term = _Term(self._engine, self._clock, self._runner, self._jobs)
            log.info("this scheduler leads")
        elif jumped:
            log.warning("the clock jumped: what is due is looked for anew")
            self._term.look_again()

    def stop(self) -> None:
        """End what is under way, and leave it to whoever comes next."""
        self._stand_down()
        self._lease.leave()

    def _stand_down(self) -> None:
        term, self._term = self._term, None
        if term is not None:
            term.end()
            log.info("this scheduler leads no more")


class _Term:
    """One time of leading: from the lock that was got to the lock that was lost."""

    def __init__(self, engine: Engine, clock: Clock, runner: Runner, jobs: Sequence[Job]) -> None:
        self._engine = engine
        self._clock = clock
        self._runner = runner
        self._jobs = jobs
        self._stop = threading.Event()
        self._busy: set[str] = set()
        self._missed: set[str] = set()
        self._lock = threading.Lock()
        self._timer = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(2 * len(jobs))},
            # The second finds the job busy, and has it looked at once more.
            job_defaults={"coalesce": True, "max_instances": 2, "misfire_grace_time": None},
        )
        self._timer.start()
        self.look_again()

    def look_again(self) -> None:
        """Set every trigger by the clock as it is now, and see at once what is due."""
        for job in self._jobs:
            trigger = trigger_of(job.when)
            self._timer.add_job(self._see, trigger, args=[job], id=job.name, replace_existing=True)
            # Of its own, so that who found the job resting a moment ago does not take its place.
            self._at(f"{job.name} now", job, timedelta(0))

    def end(self) -> None:
        """Begin nothing more, end what runs, and wait for its end."""
        self._stop.set()
        self._timer.shutdown(wait=True)

    def _at(self, name: str, job: Job, after: timedelta) -> None:
        at = DateTrigger(wall_now() + after)  # of the clock that the timer reads
        self._timer.add_job(self._see, at, args=[job], id=name, replace_existing=True)

    def _see(self, job: Job) -> None:
        """Do the newest slot of a job unless it is done, or say when to look again."""
        with self._lock:
            if job.name in self._busy:
                self._missed.add(job.name)
                return
            self._busy.add(job.name)
        again = self._tried(job)
        with self._lock:
            self._busy.discard(job.name)
            if job.name in self._missed:
                self._missed.discard(job.name)
                again = timedelta(0)
        if again is not None and not self._stop.is_set():
            self._at(f"{job.name} again", job, again)

    def _tried(self, job: Job) -> timedelta | None:
        try:
            return self._do(job)
        except LockHeldElsewhere:  # a person is at it, or a leader whose lock runs out
            return HELD_AGAIN
        except BanditError as error:
            log.warning("%s did not run: %s", job.name, error)
        except Exception:  # the boundary of the thread: APScheduler would drop the slot
            log.exception("%s did not run", job.name)
        return FAULT_AGAIN

    def _do(self, job: Job) -> timedelta | None:
        """Do slots until the newest is done; return after how long to try again what failed."""
        while not self._stop.is_set():
            now = self._clock.now()
            slot = newest_slot(job.when, now)
            due = due_at(job_runs.find(self._engine, job.name, slot), now=now)
            if due is None:
                return None
            if due > now:
                return due - now
            self._runner.run(job, slot, stop=self._stop, is_scheduled=True)
        return None


@contextmanager
def scheduling(app: App, *, config: Path | None) -> Iterator[None]:
    """Begin what is due while the context lasts, in threads of its own."""
    size = 2 * len(JOBS) + 2
    with with_own_engine(app, pool_size=size, statement_seconds=STATEMENT_SECONDS) as ours:
        runner = Runner(
            ours.engine,
            ours.clock,
            logs=state_home(ours.settings) / "logs",
            command=cli_command(config=config, demo=ours.demo),
            actor=ACTOR,
        )
        scheduler = Scheduler(ours.engine, ours.clock, runner)
        trouble = "the scheduler cannot look"
        try:
            with repeated(
                "scheduler", lambda _: scheduler.tick(), seconds=PING_SECONDS, trouble=trouble
            ):
                yield
        finally:
            scheduler.stop()
