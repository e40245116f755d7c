"""A real Prometheus and a real Alertmanager beside a service, for as long as something is tried."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx
import yaml

from alerts.alertmanager import SERVICE, render_alertmanager
from alerts.limits import AlertPlaces

_SHIPPED_RULES = Path(__file__).resolve().parents[2] / "alerts" / "prometheus_alerts.yml"
RULES = """\
groups:
  - name: second-path
    rules:
      - alert: ChallengerProfitFactorLow
        expr: pf_challenger_30 < 1.6
        labels: {severity: critical, action: throttle}
      - alert: ChallengerDrawdownHigh
        expr: dd_challenger_pct > 4
        labels: {severity: critical, action: halt}
"""

_PROMETHEUS = """\
global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s, evaluation_interval: {seconds}s}}
rule_files: [{folder}/rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{alertmanager}"]}}]}}]}}
scrape_configs:
  - job_name: liveops
    authorization: {{credentials_file: {folder}/key}}
    static_configs: [{{targets: ["{service}"]}}]
"""

_ALERTMANAGER = """\
route: {{receiver: liveops, group_by: ["..."], group_wait: 0s, group_interval: 1s,
        repeat_interval: {repeat_seconds}s}}
receivers:
  - name: liveops
    webhook_configs:
      - url: http://{service}/v1/webhooks/alertmanager
        send_resolved: true
        max_alerts: 500
        http_config: {{authorization: {{credentials_file: {folder}/key}}}}
"""

START_SECONDS_MAX = 60.0


class ProgramMissing(Exception):
    """A program that the stack is made of is not on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where Prometheus answers, and whom it scrapes."""

    prometheus: str
    service: str

    def firing(self) -> set[tuple[str, str]]:
        """Return alert and policy of whatever fires, as Prometheus sees it."""
        alerts = self._asked("/api/v1/alerts")["alerts"]
        return {(a["labels"]["alertname"], a["labels"].get("policy", "")) for a in alerts}

    def values(self, expression: str) -> list[float]:
        """Return what Prometheus says to an expression, a value for each series."""
        found = self._asked(f"/api/v1/query?query={quote(expression)}")["result"]
        return [float(sample["value"][1]) for sample in found]

    def is_ready(self) -> bool:
        """Say whether it has scraped the service and knows its Alertmanager."""
        known = self._asked("/api/v1/alertmanagers")["activeAlertmanagers"]
        # One that goes on with what it wrote before still tells of whom it scraped then.
        return bool(known) and self.values(f'up{{instance="{self.service}"}}') == [1]

    def _asked(self, path: str) -> Any:
        return httpx.get(f"http://{self.prometheus}{path}").raise_for_status().json()["data"]


@contextmanager
def alert_stack(
    folder: Path,
    *,
    service: str,
    key: str,
    seconds: int = 1,
    is_shipped: bool = False,
    repeat_seconds: int = 60,
) -> Iterator[Stack]:
    """Scrape the service at `service` each so many seconds, hold it against rules, send alerts.

    `key` opens `/metrics` and the webhook. Where `is_shipped`, rules and routes are those that are
    shipped; else two rules whose alerts end with what they read. What goes on is sent again after
    `repeat_seconds`. Raises `ProgramMissing`.
    """
    prometheus, alertmanager = _program("prometheus"), _program("prometheus-alertmanager")
    places = {"prometheus": _free_place(), "alertmanager": _free_place()}
    told: dict[str, Any] = {
        "folder": folder,
        "service": service.removeprefix("http://"),
        "seconds": seconds,
        "repeat_seconds": repeat_seconds,
        **places,
    }
    rules, routes = RULES, _ALERTMANAGER.format(**told)
    if is_shipped:
        rules = _SHIPPED_RULES.read_text(encoding="utf-8")
        routes = _shipped_routes(folder, service, repeat_seconds=repeat_seconds)
    for name, text in (
        ("key", key),
        ("webhook_token", key),
        ("rules.yml", rules),
        ("prometheus.yml", _PROMETHEUS.format(**told)),
        ("alertmanager.yml", routes),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    commands = (
        [
            alertmanager,
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/alertmanager",
            f"--web.listen-address={places['alertmanager']}",
            "--cluster.listen-address=",
        ],
        [
            prometheus,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/prometheus",
            f"--web.listen-address={places['prometheus']}",
        ],
    )
    with _running(commands, log=folder / "stack.log"):
        stack = Stack(prometheus=places["prometheus"], service=told["service"])
        await_that(stack.is_ready, seconds=START_SECONDS_MAX)
        yield stack


def _shipped_routes(folder: Path, service: str, *, repeat_seconds: int) -> str:
    """Return our own routes to this service, sent again so often; people are told nothing."""
    hook = f"{service}/v1/webhooks/alertmanager"
    places = AlertPlaces(webhook_url=hook, watchdog_url=hook, secrets_dir=str(folder))
    document = yaml.safe_load(render_alertmanager(places))
    document["receivers"] = [
        each if "webhook_configs" in each else {"name": each["name"]}
        for each in document["receivers"]
    ]
    for route in document["route"]["routes"]:
        if route["receiver"] == SERVICE:
            route["repeat_interval"] = f"{repeat_seconds}s"
            route["group_interval"] = f"{min(repeat_seconds, 5)}s"
    return yaml.safe_dump(document)


def await_that(holds: Callable[[], bool], *, seconds: float, pause: float = 0.05) -> None:
    """Return once something holds; raises `TimeoutError` where it takes longer."""
    wait, deadline = threading.Event(), monotonic() + seconds
    while True:
        with suppress(httpx.HTTPError):  # while it starts
            if holds():
                return
        if monotonic() > deadline:
            raise TimeoutError(f"it did not come to hold within {seconds:g} s")
        wait.wait(pause)


@contextmanager
def _running(commands: tuple[list[str], ...], *, log: Path) -> Iterator[None]:
    started: list[subprocess.Popen[bytes]] = []
    try:
        with log.open("wb") as output:
            for command in commands:
                started.append(subprocess.Popen(command, stdout=output, stderr=output))
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ProgramMissing(f"{name} is not on PATH (Debian package {name})")
    return found


def _free_place() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
