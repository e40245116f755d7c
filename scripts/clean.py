#!/usr/bin/env python3
"""Remove what runs of the product and its tools left in this checkout, and say what.

`var/` goes only after every embedded server in it has stopped. Standard library only: `.venv` is
among what goes. Exit codes: 0 removed, 1 something could not be, and `var/` stayed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path

STOP_SECONDS_MAX = 40
DISPOSABLE = (
    ".venv", ".venv-airflow", "build", "dist", ".coverage", ".coverage.*", "*.egg-info",
    ".hypothesis", ".import_linter_cache", ".mypy_cache", ".pytest_cache", ".ruff_cache",
)  # fmt: skip


def is_held(lock: Path) -> bool:
    """Whether a living process holds this lock file (see liveops/postgres_home.py)."""
    if not lock.exists():
        return False
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def stop_server(home: Path) -> bool:
    """End the process that owns the server in `home`, and its server with it; whether both went."""
    owner, server = home / "owner.lock", home / "server.lock"
    if is_held(owner):
        pid = int(owner.read_text())
        print(f"stopping process {pid}, which runs the server in {home}", flush=True)
        os.kill(pid, signal.SIGTERM)
    give_up = time.monotonic() + STOP_SECONDS_MAX
    while is_held(owner) or is_held(server):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.1)
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def clean(root: Path) -> bool:
    """Remove everything disposable from `root`; whether nothing had to stay."""
    homes = [lock.parent for lock in (root / "var").rglob("owner.lock")]
    running = [home for home in homes if not stop_server(home)]
    for home in running:
        print(f"var/ stays: the server in {home} did not stop", file=sys.stderr)
    patterns = DISPOSABLE if running else (*DISPOSABLE, "var")
    for path in [path for pattern in patterns for path in sorted(root.glob(pattern))]:
        print(f"removing {path.relative_to(root)}", flush=True)
        remove(path)
    for path in list(root.rglob("__pycache__")):
        remove(path)
    return not running


def main() -> int:
    """Clean the checkout this script belongs to; the exit code."""
    try:
        return 0 if clean(Path(__file__).resolve().parents[1]) else 1
    except OSError as error:
        print(f"cannot clean: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
