#!/usr/bin/env python3
"""Set up `.venv-airflow` from requirements/airflow.txt: Airflow alone, to look at our DAGs with.

Apart from `.venv`, because Airflow holds packages back that the service needs newer. Only the tests
of the DAGs need it; a production Airflow lives wherever it lives. Exit codes: 0 ready, 1 not.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from bootstrap import pip, say, uv_environment

LOCK = "requirements/airflow.txt"


def main() -> int:
    """Make the environment, or find that it is what the lock names; the exit code."""
    root = Path(__file__).resolve().parents[1]
    home = root / ".venv-airflow"
    stamp, digest = home / ".set-up", hashlib.sha256((root / LOCK).read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return 0
    say("setting up .venv-airflow, once (about 300 MB); later runs skip this")
    uv, python = str(root / ".venv/bin/uv"), str(home / "bin/python")
    config = subprocess.run([*pip(root), "config", "list"], capture_output=True, text=True).stdout
    environment = {**uv_environment(config, root=root), **os.environ}
    for command in (
        [sys.executable, "-I", "-m", "venv", "--clear", "--without-pip", str(home)],
        [uv, "pip", "sync", "--python", python, LOCK],
    ):
        if subprocess.run(command, cwd=root, env=environment).returncode != 0:
            say("Airflow could not be set up; the lines above say why")
            return 1
    stamp.write_text(digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
