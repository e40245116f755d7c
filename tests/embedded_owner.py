"""Owners of an embedded server, to be killed in tests, and what became of their server."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from liveops.embedded_postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PYTHONPATH": str(Path(psycopg.__file__).parents[1])}

# A process that owns a server: DATA_DIR RUN_AS|- ENDING
OWNER = """
import sys
from pathlib import Path
from liveops.embedded_postgres import EmbeddedPostgres, RunAs
data_dir, run_as, ending = sys.argv[1:]
run_as = None if run_as == "-" else RunAs(run_as)
server = EmbeddedPostgres(data_dir=Path(data_dir), durable=False, run_as=run_as)
server.start()
print("ready", flush=True)
if ending == "wait":
    sys.stdin.read()
"""


def owner(
    data_dir: Path,
    *,
    run_as: str = "-",
    ending: str = "wait",
    uid: int | None = None,
    python: str = sys.executable,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-B", "-c", OWNER, str(data_dir), run_as, ending],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


def python_of(uid: int) -> str:
    """A Python of our version that the user may run with our packages, or skip."""
    command = ("-B", "-c", "import liveops.embedded_postgres")
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            done = subprocess.run(
                [python, *command],
                cwd=ROOT,
                env=ENVIRONMENT,
                user=uid,
                extra_groups=[],
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("other users may not run this checkout with this version of Python")


def await_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "cluster" / "postmaster.pid").read_text().splitlines()[0])


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    for _ in range(600):
        if not is_running(pid):
            return True
        threading.Event().wait(0.05)
    return False


def server_at(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir=data_dir, durable=False)


def ask(server: EmbeddedPostgres, statement: str, database: str = "postgres") -> object:
    engine = create_engine(server.url(database))
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        found = result.scalar_one() if result.returns_rows else None
    engine.dispose()
    return found


def copy_of(data_dir: Path, target: Path) -> Path:
    """A copy of a stopped server's directory with the same owners, which `shutil` would change."""
    subprocess.run(["cp", "-a", str(data_dir), str(target)], check=True)
    return target
