"""CPU time that the API process spends on one durable assignment over HTTP.

The yardstick is a bare ASGI application under the same server that reads the same request and
returns as many bytes. Both are loaded from outside by the same connections, and only the CPU time
of their own process counts: the database and the load are others' work.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil
import uvloop

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.temporary_ledger import (
    EXPERIMENT,
    INSTRUMENT,
    ledger,
    open_experiment,
    server_on_disk,
)

CONNECTIONS = 64
ROUND_SECONDS = 1 if QUICK else 5
ROUNDS = 1 if QUICK else 7
TARGET = 4.0
SERVER = Path(__file__).with_name("_server.py")

_units = count()


@contextmanager
def served(*arguments: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server and yield its address and its process."""
    with subprocess.Popen(
        [sys.executable, str(SERVER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the server did not start"
        yield address, psutil.Process(process.pid)
        assert process.stdin is not None
        process.stdin.close()


def request(host: str) -> bytes:
    """An assignment of a unit that nobody asked for before."""
    body = b'{"unit_id": "unit-%d", "instrument": "%b"}' % (next(_units), INSTRUMENT.encode())
    return (
        b"POST /v1/experiments/%b/assignments HTTP/1.1\r\nHost: %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (EXPERIMENT.encode(), host.encode(), len(body), body)
    )


async def load(address: str) -> int:
    """Ask over `CONNECTIONS` connections for one round; return how many were answered with 200."""
    host = address.removeprefix("http://")
    name, port = host.split(":")
    end = perf_counter() + ROUND_SECONDS
    answered = 0

    async def caller() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection(name, int(port))
        while perf_counter() < end:
            writer.write(request(host))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            answered += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return answered


def measured(address: str, process: psutil.Process) -> tuple[float, float]:
    """CPU microseconds a request, and requests a second, of one round."""
    before, start = process.cpu_times(), perf_counter()
    answered = uvloop.run(load(address))
    seconds, after = perf_counter() - start, process.cpu_times()
    spent = (after.user + after.system) - (before.user + before.system)
    return 1e6 * spent / answered, answered / seconds


def main() -> None:
    """Print the claim."""
    with server_on_disk(durable=True) as server, ledger(server, "http") as engine:
        open_experiment(engine, challenger_ppm=100_000)
        with served("ours", server.url("http")) as ours, served("bare") as bare:
            progress("durable assignments over HTTP beside a bare application")
            measured(*ours)
            measured(*bare)
            rounds = [(measured(*ours), measured(*bare)) for _ in range(ROUNDS)]
    sides = [[side[i] for side in rounds] for i in (0, 1)]
    said = [
        f"{median(us for us, _ in side):.0f}us({median(rate for _, rate in side):.0f}/s)"
        for side in sides
    ]
    claim(
        "http.assignment_cpu",
        ours=said[0],
        yardstick=said[1],
        ratio=median(o[0] / b[0] for o, b in rounds),
        side=Target.AT_MOST,
        target=TARGET,
    )


if __name__ == "__main__":
    main()
