"""The crontab of the schedule: UTC whatever the timezone of the machine is.

Run `python -m liveops.crontab` after changing the schedule: it writes the example in
config/live_ops_crontab, which `setup_live_ops` writes for the installation that it runs in.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from bandit.core.errors import InvalidInput
from bandit.core.job_runs import RETRY_AFTER, TRIES_MAX
from liveops.installation import Installation
from liveops.ledger_server import checkout
from liveops.schedule import JOBS, Job, wait_max

COMMAND_LENGTH_MAX: Final = 998
"""What cron takes; a longer command is refused by `crontab`."""

CRONTAB: Final = Path("live_ops_crontab")
TRY_MINUTES: Final = round(RETRY_AFTER.total_seconds() / 60)
"""How long between two looks.

Every offset from UTC in use is a multiple of it, so that a clock which counts local quarter hours,
as cron does, also counts those of UTC.
"""

_HOUR: Final = timedelta(hours=1)
_HEAD = f"""# Debian's cron has no CRON_TZ, and local hours are skipped or come twice where clocks
# change. So each line is begun every {TRY_MINUTES} minutes, and looks at the hour in UTC itself, a
# weekly one at the day too (7 is Sunday). The ledger knows which slots are done: the next look
# finds that out, or tries again what failed, {TRIES_MAX} times at most.
"""


def render_crontab(installation: Installation, jobs: Sequence[Job] = JOBS) -> str:
    """Return the crontab that does every job.

    >>> here = Installation(root=Path("/srv/liveops"), programs=Path("/srv/liveops/.venv/bin"),
    ...     home=Path("/srv/100%"), config=None, secrets=Path("/x"), user="bot", group="bot")
    >>> line = next(line for line in render_crontab(here).splitlines() if "run scale" in line)
    >>> fields, _, job = line.partition(" case ")
    >>> print(fields, job.partition("; mkdir")[0])
    0,15,30,45 * * * * "$(date -u +\\%H)" in 02) ;; *) exit 0;; esac
    >>> print(*job.partition("esac; ")[2].split(" && "), sep="\\n")
    mkdir -p /srv/100\\%/logs
    cd /srv/liveops
    exec env /srv/liveops/.venv/bin/liveops job run scale --scheduled >> \
/srv/100\\%/logs/scale.log 2>&1
    """
    parts = [_HEAD]
    for job in jobs:
        parts.append(f"\n# {job.name}, {job.when.said}: {job.meaning}")
        parts.append(f"\n{_line(installation, job, jobs)}")
    return "".join([*parts, "\n"])


def example_installation() -> Installation:
    """Return the installation that the example in config/ is for."""
    root = Path("/opt/liveops")
    return Installation(
        root=root,
        programs=root / ".venv/bin",
        home=root / "var",
        config=root / "config/config.yaml",
        secrets=root / "config/.env",
        user="liveops",
        group="liveops",
    )


def _line(installation: Installation, job: Job, jobs: Sequence[Job]) -> str:
    words = [
        *(f"{name}={value}" for name, value in installation.variables.items()),
        *(str(installation.programs / "liveops"), "job", "run", job.name, "--scheduled"),
        *installation.options(),
    ]
    logs, log = str(installation.logs), str(installation.logs / f"{job.name}.log")
    command = (
        f"{_look(job, jobs)}mkdir -p {shlex.quote(logs)} && "
        f"cd {shlex.quote(str(installation.root))} && "
        f"exec env {_quoted(words)} >> {shlex.quote(log)} 2>&1"
    )
    # A bare one ends the command: what follows it would be its standard input.
    command = command.replace("%", r"\%")
    if len(command.encode()) > COMMAND_LENGTH_MAX:
        rule = f"must make a line of at most {COMMAND_LENGTH_MAX} bytes: shorten its paths"
        raise InvalidInput(field="crontab", rule=rule, found=f"{len(command.encode())} bytes")
    return f"{_minutes(job)} * * * * {command}"


def _minutes(job: Job) -> str:
    first = job.when.anchor.minute % TRY_MINUTES
    return ",".join(str(minute) for minute in range(first, 60, TRY_MINUTES))


def _look(job: Job, jobs: Sequence[Job]) -> str:
    """Return what ends the line at once in hours of UTC in which its job is not due.

    Hours: that of the slot, and those into which waiting for other jobs may put its tries.
    """
    if job.when.period <= _HOUR:
        return ""
    is_weekly = job.when.period > timedelta(days=1)
    wait, begin = wait_max(job, jobs), job.when.anchor
    hours = [begin + n * _HOUR for n in range(int(wait / _HOUR) + 1)]

    def shown(moment: datetime) -> str:
        hour = f"{moment:%H}"
        return f"{moment.isoweekday()}.{hour}" if is_weekly else hour

    asked = "%u.%H" if is_weekly else "%H"
    due = "|".join(shown(moment) for moment in hours)
    return f'case "$(date -u +{asked})" in {due}) ;; *) exit 0;; esac; '


def _quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


if __name__ == "__main__":
    from liveops.operator_files import sealed

    text = sealed(render_crontab(example_installation()))
    (checkout() / "config" / CRONTAB).write_text(text, encoding="utf-8")
