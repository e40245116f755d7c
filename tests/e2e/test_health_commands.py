"""A real service, its status file, and the scripts that operators run, also once it is stopped."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import httpx
from commands import REPOSITORY, environment, free_port, running, script, wait_for
from sdk_bot import eventually

SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def run(name: str, *arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run what the console script `name` runs."""
    module, _, function = SCRIPTS[name].partition(":")
    code = f"import sys; from {module} import {function}; sys.argv[0] = {name!r}; {function}()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(home, **more),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_console_script_names_a_function() -> None:
    for target in SCRIPTS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_a_service_writes_its_status_and_scripts_read_it_after_its_end(
    database_url: str, tmp_path: Path
) -> None:
    home, log = tmp_path / "home", tmp_path / "serve.log"
    port, watched = free_port(), free_port()
    path = home / "logs" / "bot_status.json"
    before = run("check_status", home=home)
    assert (before.returncode, "has `liveops serve` ever run?" in before.stderr) == (2, True)
    variables = {"LIVEOPS_DATABASE_URL": database_url, "LIVEOPS_HEALTH_PORT": str(watched)}
    with running("serve", "--port", str(port), home=home, log=log, **variables) as process:
        said = wait_for("serving http", log, process)
        assert f"health http://127.0.0.1:{watched}" in said
        eventually(path.exists)
        well = run("health_check", home=home)
        assert (well.returncode, "health: HEALTHY" in well.stdout) == (0, True), well.stderr
        now = datetime.now(UTC).isoformat()
        body = {
            "bot": "alpha",
            "sent_at": now,
            "started_at": now,
            "running": False,
            "api_connected": True,
            "candles": {},
            "api_errors_total": 0,
            "open_positions": 0,
        }
        told = httpx.post(f"http://127.0.0.1:{port}/v1/heartbeats", json=body)
        assert told.status_code == 200, told.text
        assert httpx.get(f"http://127.0.0.1:{watched}/health").json()["status"] == "unhealthy"
        wait_for("[ALERT] health UNHEALTHY", log, process)
        eventually(lambda: "bot_stopped" in path.read_text())
        forgotten = script(
            "liveops", "bots", "forget", "alpha", "--reason", "drill", home=home, **variables
        )
        assert (forgotten.returncode, forgotten.stdout) == (0, "bot alpha is forgotten\n")
        assert script("liveops", "bots", "list", home=home, **variables).stdout == ""
        wait_for("[ALERT] health HEALTHY", log, process)
        eventually(lambda: json.loads(path.read_bytes())["health_status"] == "HEALTHY")
    assert process.returncode == 0
    after = run("check_status", home=home)
    assert after.returncode == 0, after.stderr
    assert "[ALERT] health UNHEALTHY: bot alpha said" in after.stdout
    assert "[ALERT] health HEALTHY: nothing is wrong" in after.stdout
    told_json = run("health_check", "--json", home=home)
    assert json.loads(told_json.stdout)["age_seconds"] > 0
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208 - names alone
