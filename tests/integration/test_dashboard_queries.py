"""Every query of every dashboard, asked of a Prometheus that scrapes a service."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine
from told_ledger import told_service
from waiting import until

from alerts.dashboards import dashboards
from alerts.limits import AlertLimits

RULES = Path(__file__).resolve().parents[2] / "alerts" / "prometheus_alerts.yml"
VALUES = {
    "$job": "liveops",
    "$experiment": ".+",
    "$policy": ".+",
    "$__rate_interval": "30s",
}
CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: liveops, static_configs: [{{targets: ["{service}"]}}]}}]
"""
PANELS = [
    (dashboard.uid, panel.title, query.expression)
    for dashboard in dashboards(AlertLimits())
    for row in dashboard.rows
    for panel in row.panels
    for query in panel.queries
]


@contextmanager
def prometheus(folder: Path, service: str) -> Iterator[httpx.Client]:
    """Prometheus on a port of its own with the rules of the product, until the test is over."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH (Debian package prometheus)")
    config = CONFIG.format(rules=RULES, service=service.removeprefix("http://"))
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        place = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={place}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://{place}") as client:
            until(lambda: _has_scraped_twice(client))
            yield client
    finally:
        process.terminate()
        process.wait(30)


def asked(client: httpx.Client, expression: str) -> list[dict[str, object]]:
    for variable, value in VALUES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    response = client.get("/api/v1/query", params={"query": expression})
    assert response.status_code == 200, (expression, response.text)
    found: list[dict[str, object]] = response.json()["data"]["result"]
    return found


def _has_scraped_twice(client: httpx.Client) -> bool:
    try:
        if client.get("/-/ready").status_code != 200:
            return False
    except httpx.TransportError:
        return False
    return bool(asked(client, "count_over_time(liveops_up[1m]) > 1 and on () ALERTS"))


@pytest.mark.real_part
def test_every_panel_shows_something(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        told_service(engine, monkeypatch) as service,
        prometheus(tmp_path, str(service.base_url)) as client,
    ):
        empty = [each for each in PANELS if not asked(client, each[-1])]
    assert empty == []
