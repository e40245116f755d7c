"""A scheduler process of the benchmark: `_process.py URL FOLDER NAME JOBS PERIOD`.

Its jobs are due every few seconds. Each run of one takes part of a second and writes a line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bandit.storage.engine import connect
from liveops.background import repeated
from liveops.clock import SystemClock
from liveops.job_runner import Runner
from liveops.schedule import Job
from liveops.scheduler import Scheduler
from liveops.stopping import stopped_by_signals

EFFECTS = "effects"
_WORK = """
import os, sys, time
time.sleep(0.3)
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(file, f"{sys.argv[2]} {sys.argv[3]}\\n".encode())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """Slots each `seconds` of the minute, `offset` seconds behind its beginning."""

    seconds: int
    offset: int

    @property
    def period(self) -> timedelta:
        """From one slot to the next."""
        return timedelta(seconds=self.seconds)

    @property
    def anchor(self) -> datetime:
        """One of the slots."""
        return datetime(2001, 1, 1, second=self.offset, tzinfo=UTC)

    @property
    def fields(self) -> Mapping[str, str]:
        """What a CronTrigger is given."""
        return {"second": f"{self.offset}-59/{self.seconds}"}

    @property
    def said(self) -> str:
        """For a person."""
        return f"every {self.seconds} s"


def jobs_of(count: int, *, period: int) -> list[Job]:
    """Return jobs that are due one after another; `period` is a part of a minute."""
    assert 60 % period == 0
    return [
        Job(
            name=f"job_{number}",
            meaning="waits a little and writes a line",
            when=Every(seconds=period, offset=number * period // count),
            command=("work",),
            limit_seconds=period,
        )
        for number in range(count)
    ]


def main() -> None:
    """Schedule until a signal comes."""
    url, folder, name, count, period = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    jobs, here = jobs_of(int(count), period=int(period)), Path(folder)

    def work(job: Job, slot: datetime) -> list[str]:
        return ["-I", "-S", "-c", _WORK, str(here / EFFECTS), job.name, slot.isoformat()]

    engine, clock = connect(url, pool_size=2 * len(jobs) + 2), SystemClock()
    runner = Runner(engine, clock, logs=here / name, command=work, actor=name, jobs=jobs)
    scheduler = Scheduler(engine, clock, runner, jobs=jobs)
    try:
        with (
            stopped_by_signals() as stop,
            repeated("tick", lambda _: scheduler.tick(), seconds=1, trouble="no ledger"),
        ):
            stop.wait()
    finally:
        scheduler.stop()
        engine.dispose()


if __name__ == "__main__":
    main()
