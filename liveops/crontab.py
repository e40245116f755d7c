"""The crontab of the nightly jobs: UTC whatever the timezone of the machine is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Final

from bandit.core.errors import InvalidInput
from liveops.installation import Installation
from liveops.schedule import NIGHTLY, TRY_MINUTES, NightlyJob

COMMAND_LENGTH_MAX: Final = 998
"""What cron takes; a longer command is refused by `crontab`."""

_POLICY = "# policy: "
_HEAD = f"""# Debian's cron has no CRON_TZ, and local hours are skipped or come twice where clocks
# change. So each line is begun every {TRY_MINUTES} minutes, and looks at the hour in UTC itself.
# What was done tonight is found done by the next look; what failed is tried again, until the
# hour ends.
"""


def render_crontab(installation: Installation, policies: Iterable[str]) -> str:
    """Return the crontab that does every nightly job for each of these policies.

    >>> from pathlib import Path
    >>> here = Installation(root=Path("/srv/liveops"), programs=Path("/srv/liveops/.venv/bin"),
    ...     home=Path("/srv/100%"), config=None, secrets=Path("/x"), user="bot", group="bot")
    >>> fields, _, job = render_crontab(here, ["trend-v2"]).splitlines()[-1].partition(" [ ")
    >>> print(fields, job.partition("; ")[0])
    */15 * * * * "$(date -u +\\%H)" = 02 ] || exit 0
    >>> print(*job.partition("; ")[2].split(" && "), sep="\\n")
    mkdir -p /srv/100\\%/logs
    cd /srv/liveops
    exec env /srv/liveops/.venv/bin/live_ops_monitor --policy-sha trend-v2 --mode scale >> \
/srv/100\\%/logs/scale.log 2>&1
    """
    parts = [_HEAD]
    for policy in sorted(set(policies)):
        parts.append(f"\n{_POLICY}{policy}")
        parts += [f"\n{_line(installation, policy, job)}" for job in NIGHTLY]
    return "".join([*parts, "\n"])


def policies_in(crontab: str) -> list[str]:
    """Return the policies that a crontab of ours has lines for.

    >>> policies_in("# policy: trend-v1\\n0 * * * * x\\n# policy: trend-v2\\n")
    ['trend-v1', 'trend-v2']
    """
    return re.findall(rf"^{_POLICY}(\S+)$", crontab, re.MULTILINE)


def _line(installation: Installation, policy: str, job: NightlyJob) -> str:
    program = installation.programs / "live_ops_monitor"
    words = [
        *(f"{name}={value}" for name, value in installation.variables.items()),
        *(str(program), "--policy-sha", policy, *job.options, *installation.options()),
    ]
    logs, log = str(installation.logs), str(installation.logs / f"{job.name}.log")
    command = (
        f'[ "$(date -u +%H)" = {job.at:%H} ] || exit 0; '
        f"mkdir -p {shlex.quote(logs)} && cd {shlex.quote(str(installation.root))} && "
        f"exec env {_quoted(words)} >> {shlex.quote(log)} 2>&1"
    )
    # A bare one ends the command: what follows it would be its standard input.
    command = command.replace("%", r"\%")
    if len(command.encode()) > COMMAND_LENGTH_MAX:
        rule = f"must make a line of at most {COMMAND_LENGTH_MAX} bytes: shorten its paths"
        raise InvalidInput(field="crontab", rule=rule, found=f"{len(command.encode())} bytes")
    return f"*/{TRY_MINUTES} * * * * {command}"


def _quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
