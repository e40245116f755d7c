"""Run the installed console scripts as a person would."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]


def environment(home: Path | None, **more: str) -> dict[str, str]:
    """A clean environment with state under `home`, whatever the tester's own settings are."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LIVEOPS_")}
    kept["COLUMNS"] = "160"
    kept["LIVEOPS_ADMIN_PORT"] = "0"  # the usual one is a single one, and tests run side by side
    if home is not None:
        kept["LIVEOPS_HOME"] = str(home)
    return kept | more


def script(
    name: str,
    *arguments: str,
    home: Path | None = None,
    timeout: float = 300,
    stdin: str | None = None,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Run `liveops` or `live_ops_monitor` to its end."""
    return subprocess.run(
        [str(BIN / name), *arguments],
        env=environment(home, **more),
        cwd=REPOSITORY,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def running(
    *arguments: str, home: Path, log: Path, name: str = "liveops", **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Keep `liveops`, or another script, running; whatever happens, it is gone afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BIN / name), *arguments],
            env=environment(home, **more),
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes], seconds: float = 240) -> str:
    """Wait until `text` stands in the log; fail with the log when the process ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        said = log.read_text(encoding="utf-8", errors="replace")
        if text in said:
            return said
        assert process.poll() is None, f"ended with {process.returncode} before {text!r}:\n{said}"
        time.sleep(0.05)
    raise AssertionError(f"{text!r} did not appear in {seconds} s:\n{log.read_text()}")


def processes_of(home: Path) -> Sequence[str]:
    """Command lines of living processes that name `home`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(home) in line:
            found.append(line)
    return found
