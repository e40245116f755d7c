"""A bot that imports the SDK loads no server, no science and no HTTP stack."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "alembic", "asyncio", "fastapi", "httpx", "numpy", "pandas", "psycopg", "pyarrow", "pydantic",
    "scipy", "sqlalchemy", "starlette", "torch", "typer", "uvicorn", "yaml",
}  # fmt: skip


def loaded_by(program: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport json, sys\nprint(json.dumps([*sys.modules]))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(ran.stdout))


def ours(modules: set[str]) -> set[str]:
    packages = {"alerts", "bandit", "config", "learners", "liveops", "snapshots"}
    return {
        module
        for module in modules
        if module.split(".")[0] in packages and not module.startswith("liveops.client")
    }


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    modules = loaded_by("from liveops.client import AsyncClient, Client")
    assert not modules & HEAVY
    assert ours(modules) <= {"liveops", "liveops.clock"}


def test_a_running_client_loads_httpx_and_nothing_else_of_ours() -> None:
    program = (
        "import tempfile\n"
        "from liveops.client import Client\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    Client('http://127.0.0.1:9', 'btc', spool_dir=folder).close()\n"
    )
    modules = loaded_by(program)
    assert modules & HEAVY == {"asyncio", "httpx"}
    assert ours(modules) == {"liveops", "liveops.clock"}
