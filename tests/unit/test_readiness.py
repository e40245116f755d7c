"""Telling a supervisor that the service serves, on a real socket as systemd opens it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from liveops.readiness import tell_ready


def test_a_supervisor_is_told_once_through_its_socket(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        tell_ready({"NOTIFY_SOCKET": address})
        assert supervisor.recv(100) == b"READY=1"
        supervisor.setblocking(False)
        with pytest.raises(BlockingIOError):
            supervisor.recv(100)


def test_a_socket_without_a_file_is_found_by_its_name(tmp_path: Path) -> None:
    name = f"liveops-test-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(f"\0{name}")
        tell_ready({"NOTIFY_SOCKET": f"@{name}"})
        assert supervisor.recv(100) == b"READY=1"


def test_a_supervisor_that_is_gone_stops_no_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tell_ready({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert "could not be told that this is ready" in caplog.text
