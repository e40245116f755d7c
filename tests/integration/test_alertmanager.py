"""Alertmanager itself on the file that we write: who is told of what, and what is muted."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from waiting import until

from alerts.alertmanager import receivers_of, render_alertmanager
from alerts.limits import AlertPlaces
from alerts.rule import Component, Severity
from bandit.core.lifecycle import ArmVerb

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "alerts" / "alertmanager.yml"
TOKEN = "a-key-of-scope-webhook"  # noqa: S105 - of this test alone
ARM = {"component": "arm", "experiment": "btc", "policy": "rl"}

pytestmark = pytest.mark.real_part


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH (Debian package prometheus-alertmanager)")
    return found


def test_amtool_accepts_the_configuration() -> None:
    ran = subprocess.run(
        [program("amtool"), "check-config", str(CONFIG)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " - 1 inhibit rules" in ran.stdout


@pytest.mark.parametrize("stops", [None, ArmVerb.THROTTLE, ArmVerb.HALT])
@pytest.mark.parametrize(("severity", "component"), list(product(Severity, Component)))
def test_each_alert_finds_its_receivers(
    severity: Severity, component: Component, stops: ArmVerb | None
) -> None:
    ran = subprocess.run(
        [
            *(program("amtool"), "config", "routes", "test", f"--config.file={CONFIG}"),
            f"--verify.receivers={','.join(receivers_of(severity, component, stops))}",
            f"severity={severity.value}",
            f"component={component.value}",
            *([] if stops is None else [f"action={stops.value}"]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_watchdog_outside_is_not_shown_our_key() -> None:
    places = replace(AlertPlaces(), watchdog_url="https://dead-man.example/ping")
    (hook,) = (
        hook
        for receiver in yaml.safe_load(render_alertmanager(places))["receivers"]
        for hook in receiver.get("webhook_configs", ())
        if hook["url"] == "https://dead-man.example/ping"
    )
    assert "http_config" not in hook


class Heard(BaseHTTPRequestHandler):
    """Whoever is told: keeps what it was sent, and with which key."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told: list[Any] = self.server.told  # type: ignore[attr-defined]
        told.append((self.path, self.headers.get("Authorization"), json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def listener() -> Iterator[tuple[str, list[Any]]]:
    """An HTTP server that hears alerts, its URL and what it has heard."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Heard) as server:
        told: list[Any] = []
        server.told = told  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", told
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def alertmanager(config: str, folder: Path) -> Iterator[httpx.Client]:
    """Alertmanager on a port of its own, until the test is over."""
    (folder / "alertmanager.yml").write_text(config, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            until(lambda: _is_ready(client, process, folder))
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(client: httpx.Client, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "log").read_text()
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def fire(client: httpx.Client, *alerts: Mapping[str, str]) -> None:
    client.post("/api/v2/alerts", json=[{"labels": alert} for alert in alerts]).raise_for_status()


def states(client: httpx.Client) -> dict[tuple[str, str], str]:
    """State of each alert by its name and the policy it is about."""
    return {
        (alert["labels"]["alertname"], alert["labels"].get("policy", "")): alert["status"]["state"]
        for alert in client.get("/api/v2/alerts").json()
    }


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[httpx.Client, list[Any]]]:
    """Our configuration in a running Alertmanager, with a listener in the place of the service."""
    (tmp_path / "webhook_token").write_text(TOKEN)
    with listener() as (url, told):
        places = replace(
            AlertPlaces(),
            webhook_url=f"{url}/v1/webhooks/alertmanager",
            watchdog_url=f"{url}/dead-man",
            secrets_dir=str(tmp_path),
        )
        with alertmanager(render_alertmanager(places), tmp_path) as client:
            yield client, told


def test_a_critical_alert_mutes_warnings_of_the_same_arm_only(
    heard: tuple[httpx.Client, list[Any]],
) -> None:
    client, told = heard
    halts = {"alertname": "ChallengerDrawdownHigh", "severity": "critical", "action": "halt"}
    critical = {**halts, **ARM}
    warning = {"alertname": "ConsecutiveLossesHigh", "severity": "warning", **ARM}
    other = {**warning, "policy": "tabnet"}
    elsewhere = {"alertname": "DriftCheckStale", "severity": "info", "component": "drift"}
    watchdog = {"alertname": "Watchdog", "severity": "info", "component": "alerting"}
    fire(client, critical)
    until(lambda: [path for path, *_ in told] == ["/v1/webhooks/alertmanager"])
    fire(client, warning, other, elsewhere, watchdog)
    expected = {
        ("ChallengerDrawdownHigh", "rl"): "active",
        ("ConsecutiveLossesHigh", "rl"): "suppressed",
        ("ConsecutiveLossesHigh", "tabnet"): "active",
        ("DriftCheckStale", ""): "active",
        ("Watchdog", ""): "active",
    }
    until(lambda: states(client) == expected)
    until(lambda: len(told) >= 2)
    names = {
        (path, alert["labels"]["alertname"], alert["labels"].get("policy", ""))
        for path, _, body in told
        for alert in body["alerts"]
    }
    service = "/v1/webhooks/alertmanager"
    assert names == {
        (service, "ChallengerDrawdownHigh", "rl"),
        ("/dead-man", "Watchdog", ""),
    }
    keys = {path: key for path, key, _ in told}
    assert keys == {service: f"Bearer {TOKEN}", "/dead-man": None}
