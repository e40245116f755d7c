"""Five schedulers on one ledger, whose leader is killed or stopped again and again.

Every slot has to be done, and once. The yardstick is how long a leader may be missing: five
seconds. A stopped leader comes back while another leads, with work that it has to leave.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import psycopg
from sqlalchemy import make_url

from bandit.storage.locks import LockClass
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.maintenance import _process
from benchmarks.maintenance._process import EFFECTS, jobs_of
from benchmarks.temporary_ledger import VAR, ledger, server_on_disk
from liveops.clock import now
from liveops.schedule import Job, next_slot

SCHEDULERS = 5
JOBS, ROUNDS, PERIOD = (4, 3, 15) if QUICK else (10, 20, 15)
CALM_SECONDS = (3.0, 9.0)
STOPPED_SECONDS = (4.0, 8.0)
TAKEOVER_SECONDS_MAX = 5.0
PATIENCE_SECONDS = 60.0
SEED = 20261122
DATABASE = "ledger"


@dataclass(slots=True)
class Report:
    """What became of the slots, and how long nobody led after each death and each stop."""

    slots: int
    done: int = 0
    done_twice: int = 0
    begun_again: int = 0
    executions: int = 0
    refused: int = 0
    killed: list[float] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)


class Replica:
    """One scheduler; started again, it is the same."""

    def __init__(self, url: str, folder: Path, name: str, shape: Sequence[int]) -> None:
        """Keep its log in `folder`; `shape` is the number of jobs and their period."""
        self.name, self.log = name, folder / f"{name}.log"
        named = make_url(url).update_query_dict({"application_name": name})
        address = named.render_as_string(hide_password=False)
        script = [sys.executable, "-m", _process.__name__]
        self._command = [*script, address, str(folder), name, *map(str, shape)]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill -9, and start it again."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def end(self) -> None:
        """End it cleanly, also where it is stopped."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()


class Watcher:
    """Sees who leads."""

    def __init__(self, conninfo: str) -> None:
        """Connect."""
        self._connection = psycopg.connect(conninfo, autocommit=True)

    def leader(self) -> str | None:
        """Return the name of who holds the schedulers' lock."""
        found = self._connection.execute(
            "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE l.locktype = 'advisory' AND l.classid = %s AND l.granted",
            [int(LockClass.SCHEDULER)],
        ).fetchone()
        return None if found is None else str(found[0])

    def other_than(self, name: str | None) -> float:
        """Wait until somebody else leads, and return for how long."""
        began = perf_counter()
        while self.leader() in (None, name):
            assert perf_counter() - began < PATIENCE_SECONDS, "nobody takes over"
            threading.Event().wait(0.02)
        return perf_counter() - began

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


def run(
    url: str, conninfo: str, folder: Path, *, jobs: int, rounds: int, period: int, seed: int
) -> Report:
    """Let five schedulers do `rounds` slots of each of `jobs`, under kills and stops."""
    rng, work = np.random.default_rng(seed), jobs_of(jobs, period=period)
    with ExitStack() as stack:
        names = [f"scheduler_{number}" for number in range(SCHEDULERS)]
        replicas = {n: Replica(url, folder, n, (jobs, period)) for n in names}
        for replica in replicas.values():
            stack.callback(replica.end)
        watcher = Watcher(conninfo)
        stack.callback(watcher.close)
        watcher.other_than(None)
        begin = now()
        wanted = {(job.name, slot) for job in work for slot in _slots(job, begin, rounds)}
        end = max(slot for _, slot in wanted)
        report = Report(slots=len(wanted))
        while now() + timedelta(seconds=CALM_SECONDS[1]) < end:
            _trouble(watcher, replicas, report, rng)
        threading.Event().wait((end - now()).total_seconds() + period)
    _judge(conninfo, folder, wanted, report)
    return report


def _slots(job: Job, begin: datetime, rounds: int) -> list[datetime]:
    first = next_slot(job.when, begin)
    return [first + number * job.when.period for number in range(rounds)]


def _trouble(
    watcher: Watcher, replicas: dict[str, Replica], report: Report, rng: np.random.Generator
) -> None:
    """Wait for a random moment, then kill or stop who leads; who was stopped goes on later."""
    threading.Event().wait(rng.uniform(*CALM_SECONDS))
    leader = watcher.leader()
    if leader is None:
        return
    if rng.random() < 0.5:
        process = replicas[leader].process
        process.kill()
        report.killed.append(watcher.other_than(leader))
        replicas[leader].kill()
        return
    pause = rng.uniform(*STOPPED_SECONDS)
    replicas[leader].process.send_signal(signal.SIGSTOP)
    began = perf_counter()
    report.stopped.append(watcher.other_than(leader))
    threading.Event().wait(max(0.0, pause - (perf_counter() - began)))
    replicas[leader].process.send_signal(signal.SIGCONT)


def _judge(conninfo: str, folder: Path, wanted: set[tuple[str, datetime]], report: Report) -> None:
    """Count what became of the slots, by the ledger and by what the jobs wrote."""
    with psycopg.connect(conninfo) as connection:
        runs = connection.execute("SELECT job, slot, state, attempts FROM job_runs").fetchall()
        ends = connection.execute(
            "SELECT subject, details->>'slot' FROM audit_log WHERE action = 'job_done'"
        ).fetchall()
    ours = {(job, slot): (state, tries) for job, slot, state, tries in runs}
    found = [ours[key] for key in wanted if key in ours]
    report.done = sum(state == "done" for state, _ in found)
    report.begun_again = sum(tries > 1 for _, tries in found)
    report.done_twice = sum(n > 1 for n in Counter(map(tuple, ends)).values())
    lines = (folder / EFFECTS).read_text().splitlines()
    named = {f"{job} {slot.isoformat()}" for job, slot in wanted}
    report.executions = sum(line in named for line in lines)
    logs = "".join(path.read_text() for path in folder.glob("scheduler_*.log"))
    report.refused = logs.count("was claimed by another since")


def claimed(report: Report) -> None:
    """Print the claims."""
    for name, number in (
        ("duplicates", report.done_twice),
        ("misses", report.slots - report.done),
    ):
        claim(
            f"schedulers.{name}",
            ours=f"{number}/{report.slots}",
            yardstick="0",
            ratio=float(number),
            side=Target.AT_MOST,
            target=0.0,
        )
    for kind, seconds in (("killed", report.killed), ("stopped", report.stopped)):
        for name, value in (("median", median(seconds)), ("worst", max(seconds))):
            claim(
                f"schedulers.takeover.{kind}.{name}",
                ours=f"{value:.2f}s",
                yardstick=f"{TAKEOVER_SECONDS_MAX:.2f}s",
                ratio=value / TAKEOVER_SECONDS_MAX,
                side=Target.AT_MOST,
                target=1.0,
            )


def main() -> None:
    """Schedule on a server that waits for its disk; a duplicate or a miss is an error."""
    with (
        server_on_disk(durable=True) as server,
        tempfile.TemporaryDirectory(dir=VAR, prefix="schedulers-") as folder,
    ):
        with ledger(server, DATABASE):
            pass
        report = run(
            server.url(DATABASE),
            server.conninfo(DATABASE),
            Path(folder),
            jobs=JOBS,
            rounds=ROUNDS,
            period=PERIOD,
            seed=SEED,
        )
    progress(
        f"{report.slots} slots, {len(report.killed)} leaders killed, {len(report.stopped)} "
        f"stopped; {report.begun_again} slots begun again, {report.executions} executions, "
        f"{report.refused} results of lost claims refused"
    )
    claimed(report)
    if report.done_twice or report.done < report.slots:
        sys.exit(1)


if __name__ == "__main__":
    main()
