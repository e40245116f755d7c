"""`liveops serve` as processes that can be killed and started again, and the server under them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from liveops.embedded_postgres import EmbeddedPostgres

POLL_SECONDS = 0.05
START_SECONDS_MAX = 120.0
LIVEOPS = Path(sys.executable).with_name("liveops")


class Replica:
    """One API process on a port of its own; started again, it is the same replica."""

    def __init__(self, folder: Path, *, port: int, database_url: str) -> None:
        """Keep its state and its log in `folder`."""
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        folder.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LIVEOPS_")}
        self._environment = kept | {
            "LIVEOPS_HOME": str(folder),
            "LIVEOPS_DATABASE_URL": database_url,
            "LIVEOPS_ADMIN_PORT": "0",
            "LIVEOPS_PORT": str(port),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; see `await_ready`."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [LIVEOPS, "serve"], env=self._environment, stdout=output, stderr=output
            )

    def await_ready(self) -> None:
        """Return once it serves; one that ended because its ledger was away is started again."""
        pause = threading.Event()
        for _ in range(int(START_SECONDS_MAX / POLL_SECONDS)):
            if self._process is None or self._process.poll() is not None:
                self.start()
            try:
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            pause.wait(POLL_SECONDS)
        raise RuntimeError(f"no replica at {self.url}:\n{self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def kill_server(server: EmbeddedPostgres) -> None:
    """Kill -9 every process of the server at once, as a machine that loses its power would.

    Nothing of the cluster's files is touched: `start` has to make do with what was on disk.
    """
    postmaster = int((server.data_dir / "cluster" / "postmaster.pid").read_text().split("\n")[0])
    # The postmaster first: it would take the death of a child for a crash and tell the others.
    for pid in (postmaster, *_children(postmaster)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended by itself meanwhile
    # Until it is dead, `start` takes it for a server that runs; its owner has to reap it.
    os.waitid(os.P_PID, postmaster, os.WEXITED | os.WNOWAIT)


def _children(parent: int) -> list[int]:
    """Return the processes whose parent it is; stopped first, so that it makes no further ones."""
    os.kill(parent, signal.SIGSTOP)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(state[1]) == parent:
            found.append(int(folder.name))
    return found
