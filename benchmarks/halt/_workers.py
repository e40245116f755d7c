"""Replicas that assign without pause: the service's own, and naive ones that lock nothing.

Run as `python -m benchmarks.halt._workers ours|naive NAME`, with the URL of the ledger on the first
line of stdin: prints `ready` once it assigns, stops when stdin ends, and then prints its log.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import uvloop
from sqlalchemy import make_url

from bandit.core.errors import BanditError
from bandit.core.model import UnitId
from bandit.service.assigning import Router
from bandit.service.live_routing import LiveRouter
from bandit.service.routing_table import Opportunity
from bandit.storage.engine import connect
from benchmarks.operation_log import Entry, OperationLog, Phase, Verb, parsed, written
from benchmarks.temporary_ledger import EXPERIMENT, INSTRUMENT, OPENED
from liveops.api.hot import assignment_json

WORKERS = 8
THINK_SECONDS = 0.002

_READ = """
SELECT a.id, p.name::text, e.id, e.epoch, a.status
FROM arms a JOIN policies p ON p.id = a.policy_id JOIN experiments e ON e.id = a.experiment_id
ORDER BY a.id
"""
_INSERT = """
INSERT INTO assignments (id, experiment_id, unit_id, instrument, arm_id, mode, role,
  allocation_version, epoch, propensity, is_fallback, size_multiplier, confidence_bump, decided_at,
  expires_at, audit_id)
VALUES (%s, %s, %s, %s, %s, 'live', %s, 1, %s, 0.5, false, 1, 0, %s, %s, 1)
"""


class Replica:
    """One process of workers."""

    def __init__(self, kind: str, name: str, *, url: str) -> None:
        """Start it."""
        command = [sys.executable, "-m", "benchmarks.halt._workers", kind, name]
        root = Path(__file__).resolve().parents[2]
        self.process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=root)
        assert self.process.stdin is not None
        self.process.stdin.write(f"{url}\n")
        self.process.stdin.flush()

    def await_ready(self) -> None:
        """Return once it assigns."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("a replica of workers ended while it started")

    def finish(self) -> list[Entry]:
        """Stop it and return its log."""
        lines, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError("a replica of workers failed")
        return parsed(lines)


async def ours(url: str, name: str, log: OperationLog, stop: threading.Event) -> None:
    """Assign as a replica of the service does, in groups."""
    engine = connect(url)
    live = LiveRouter(Router(engine), url=url, now=lambda: OPENED)

    async def worker(number: int) -> None:
        for i in count():
            if stop.is_set():
                return
            unit = f"{name}-{number}-{i}"
            operation = log.invoked(Verb.ASSIGN, unit)
            asked = Opportunity(unit_id=UnitId(unit), instrument=INSTRUMENT)
            try:
                made = await live.assign(EXPERIMENT, asked)
            except BanditError as error:
                log.ended(operation, Verb.ASSIGN, unit, Phase.UNKNOWN, answer=str(error))
            else:
                answer = assignment_json(made).decode()
                log.ended(operation, Verb.ASSIGN, unit, Phase.OK, answer=answer)
            await asyncio.sleep(THINK_SECONDS)

    async with live.running():
        await asyncio.gather(*(worker(number) for number in range(WORKERS)))
    engine.dispose()


def naive(conninfo: str, name: str, log: OperationLog, stop: threading.Event) -> None:
    """Assign as one would write it down first: read the status, insert; READ COMMITTED, no lock."""
    rng = np.random.default_rng(int.from_bytes(name.encode()))
    with psycopg.connect(conninfo) as connection:
        for i in count():
            if stop.is_set():
                return
            unit = f"{name}-{i}"
            operation = log.invoked(Verb.ASSIGN, unit)
            with connection.transaction():
                arms = connection.execute(_READ).fetchall()
                active = [arm for arm in arms if arm[4] == "active"]
                arm, policy, experiment, epoch, _ = active[int(rng.integers(len(active)))]
                role = "champion" if policy == "champion" else "challenger"
                values = (
                    *(UUID(bytes=rng.bytes(16)), experiment, unit, INSTRUMENT, arm, role, epoch),
                    *(OPENED, OPENED + timedelta(seconds=2)),
                )
                connection.execute(_INSERT, values)
            answer = f'{{"policy": "{policy}"}}'
            log.ended(operation, Verb.ASSIGN, unit, Phase.OK, answer=answer)
            threading.Event().wait(THINK_SECONDS)


def _together(work: Callable[[int], Any]) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(work, number) for number in range(WORKERS)]:
            future.result()


def main() -> None:
    """Assign until stdin ends."""
    kind, name = sys.argv[1:]
    url = sys.stdin.readline().strip()
    log, stop = OperationLog(name), threading.Event()

    def until_told() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=until_told, daemon=True).start()
    print("ready", flush=True)
    if kind == "ours":
        uvloop.run(ours(url, name, log, stop))
    else:
        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        _together(lambda number: naive(plain, f"{name}-{number}", log, stop))
    sys.stdout.write(written(log.entries))


if __name__ == "__main__":
    main()
