"""A week's maintenance in a process of its own, for tests that kill it.

`python tests/maintenance_week.py HOME URL` does three small tasks, which make files, and three real
ones. One of the files waits for ever where `HOME/wait_at` names it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Event

from liveops.maintenance.tasks import TASKS, Task, WeeklyTask, jobs_of, week_of

STEPS = 3
SMALL = (WeeklyTask.SNAPSHOT, WeeklyTask.RETRAIN, WeeklyTask.OPTUNA)
REAL = (WeeklyTask.PURGE, WeeklyTask.DATABASE, WeeklyTask.VERIFY)
LIMIT_SECONDS = 120

# Makes each file of its task once, by the day's name, and says which it made.
STEP = f"""
import json, sys, threading
from pathlib import Path
home, task, day = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
done = []
(home / "made").mkdir(exist_ok=True)
for step in range({STEPS}):
    name = f"{{task}}-{{day}}.{{step}}"
    made = home / "made" / name
    if not made.exists():
        part = made.with_suffix(".part")
        part.write_text(name)
        wait_at = home / "wait_at"
        if wait_at.exists() and wait_at.read_text() == f"{{task}}.{{step}}":
            (home / "waits").touch()
            threading.Event().wait()
        part.rename(made)
        with (home / "effects").open("a") as file:
            file.write(name + "\\n")
        done.append(f"made {{name}}")
print(json.dumps({{"date": day, "done": done}}))
"""

TABLE = (
    *(Task(name=name, meaning="makes files", command=("small", name.value)) for name in SMALL),
    *(task for task in TASKS if task.name in REAL),
)


def main(home: Path, url: str) -> int:
    """Do the week; exit 1 if any task is not done."""
    from bandit.storage.engine import connect
    from liveops.clock import SystemClock
    from liveops.job_runner import Runner, cli_command
    from liveops.maintenance.weekly import do
    from liveops.schedule import Job

    real = cli_command(config=None, demo=False)

    def command(job: Job, slot: datetime) -> list[str]:
        if job.command[0] == "small":
            return ["-c", STEP, str(home), job.command[1], f"{slot:%Y-%m-%d}"]
        return real(job, slot)

    engine, clock = connect(url), SystemClock()
    runner = Runner(engine, clock, logs=home / "logs", command=command, actor="test")
    limits = {name.value: LIMIT_SECONDS for name in WeeklyTask}
    slot, failed = week_of(clock.now()), False
    for job in jobs_of(WeeklyTask.FULL, limits, demo=False, tasks=TABLE):
        print(json.dumps({"begins": job.name}), flush=True)
        report = do(runner, job, slot, stop=Event())
        print(json.dumps(report.to_json()), flush=True)
        failed = failed or report.state.is_failure
    return int(failed)


@contextmanager
def week(home: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Run the week in a process; whatever happens, it is gone afterwards."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LIVEOPS_")}
    environ |= {"LIVEOPS_HOME": str(home), "LIVEOPS_DATABASE_URL": url}
    with subprocess.Popen(
        [sys.executable, __file__, str(home), url],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    """Wait for the end of a week; return its reports."""
    said, errors = process.communicate(timeout=300)
    assert process.returncode in (0, 1, 3), errors
    rows = [json.loads(line) for line in said.splitlines()]
    return [row for row in rows if "task" in row]


def child_of(process: subprocess.Popen[str]) -> int:
    """Return the process that a week's runner has begun, once there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = children.read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.005)
    raise AssertionError("no child was begun")


def kill(pid: int) -> None:
    """End a process at once, wherever it is."""
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
