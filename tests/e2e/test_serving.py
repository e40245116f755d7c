"""A service that loses its database, and two services on one ledger."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

from commands import free_port, running, script, wait_for


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False


def wait_until_ready(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_ready(port):
        assert time.monotonic() < deadline, "the service did not come back"
        time.sleep(0.2)


def test_a_killed_database_is_started_again(tmp_path: Path) -> None:
    home, log, port = tmp_path / "var", tmp_path / "log", free_port()
    with running("serve", "--port", str(port), home=home, log=log) as process:
        wait_for("serving http", log, process)
        pid_file = home / "postgres" / "cluster" / "postmaster.pid"
        killed = int(pid_file.read_text().splitlines()[0])
        os.kill(killed, signal.SIGKILL)
        wait_until_ready(port)
        assert int(pid_file.read_text().splitlines()[0]) != killed
        assert script("liveops", "policy", "list", home=home).returncode == 0


def test_the_first_service_waits_for_the_second(tmp_path: Path) -> None:
    home, ports = tmp_path / "var", (free_port(), free_port())
    logs = (tmp_path / "first", tmp_path / "second")
    with running("serve", "--port", str(ports[0]), home=home, log=logs[0]) as first:
        wait_for("serving http", logs[0], first)
        with running("serve", "--port", str(ports[1]), home=home, log=logs[1]) as second:
            wait_for("serving http", logs[1], second)
            first.send_signal(signal.SIGINT)
            wait_for("another process uses this ledger", logs[0], first)
            assert is_ready(ports[1])
        assert first.wait(60) == 0
