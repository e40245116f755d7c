"""systemd's units: the service, a monitor a policy, and what is scheduled, with its timers.

The unit of monitors is a template; what stands after the `@` is the policy, whose name has only
signs that systemd takes as they are. Timers and the scheduler do the same jobs: one of them is
enough, and with both each slot is done once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from bandit.core.job_runs import TRIES_MAX
from liveops.crontab import TRY_MINUTES
from liveops.installation import Installation
from liveops.job_runner import SPENT_CODE
from liveops.schedule import JOBS, Job, When

SERVICE: Final = "liveops.service"
MONITOR: Final = "liveops-monitor@.service"
SCHEDULER: Final = "liveops-scheduler.service"
RESTART_SECONDS: Final = 10
USAGE: Final = 2
"""How commands exit that were told something wrong: the same again would be wrong again."""

_BARE = re.compile(r"[\w./:=@%+,-]+")


def render_units(installation: Installation) -> dict[str, str]:
    """Return every unit by the name of its file."""
    units = {
        SERVICE: _service(installation),
        MONITOR: _monitor(installation),
        SCHEDULER: _scheduler(installation),
    }
    for job in JOBS:
        units[f"liveops-{job.name}.service"] = _job(installation, job)
        units[f"liveops-{job.name}.timer"] = _timer(job)
    return units


def timers() -> list[str]:
    """Return the names of the timers."""
    return [f"liveops-{job.name}.timer" for job in JOBS]


def calendar_of(when: When) -> str:
    """Return slots as systemd writes them.

    >>> from datetime import time
    >>> from liveops.schedule import Weekday, Weekly
    >>> calendar_of(Weekly(on=Weekday.SUNDAY, at=time(3)))
    'Sun *-*-* 03:00:00 UTC'
    """
    day, hour, minute = (when.fields[name] for name in ("day_of_week", "hour", "minute"))
    weekday = "" if day == "*" else f"{day.capitalize()} "
    return f"{weekday}*-*-* {hour.zfill(2) if hour != '*' else hour}:{minute.zfill(2)}:00 UTC"


def instance(unit: str, policy: str) -> str:
    """Return the name of a template's unit for a policy.

    >>> instance(MONITOR, "trend-v2")
    'liveops-monitor@trend-v2.service'
    """
    return unit.replace("@", f"@{policy}")


def _service(installation: Installation) -> str:
    return _unit(
        Unit=["Description=liveops: the HTTP API and its ledger", *_network(installation)],
        Service=[
            "# systemd is told when the API serves, and its ledger with it: what comes after this",
            "# unit uses that ledger, and does not start one of its own.",
            "Type=notify",
            "# Before that an embedded server may recover from a crash, and the schema change.",
            "TimeoutStartSec=15min",
            *_common(installation),
            _command(installation, "liveops", "serve"),
            *_restarted(),
            *_hardened(installation),
        ],
        Install=["WantedBy=multi-user.target"],
    )


def _monitor(installation: Installation) -> str:
    return _unit(
        Unit=["Description=liveops: the monitor of %i", *_beside_service(installation)],
        Service=[
            "Type=exec",
            *_common(installation),
            _command(
                installation, "live_ops_monitor", "--policy-sha", "%i", "--mode", "continuous"
            ),
            "# A second monitor of a policy, on another host, exits 3 and waits here for its turn.",
            *_restarted(),
            *_hardened(installation),
        ],
        Install=["WantedBy=multi-user.target"],
    )


def _scheduler(installation: Installation) -> str:
    return _unit(
        Unit=["Description=liveops: the scheduler", *_beside_service(installation)],
        Service=[
            "Type=exec",
            *_common(installation),
            _command(installation, "liveops", "scheduler"),
            "# Of several, on several hosts, one leads; the others wait for its lock.",
            *_restarted(),
            *_hardened(installation),
        ],
        Install=["WantedBy=multi-user.target"],
    )


def _job(installation: Installation, job: Job) -> str:
    return _unit(
        Unit=[
            f"Description=liveops: {job.meaning}",
            *_beside_service(installation),
            f"# The ledger counts {TRIES_MAX} tries a slot; then the command exits {SPENT_CODE}.",
            "StartLimitIntervalSec=0",
        ],
        Service=[
            "Type=oneshot",
            *_common(installation),
            _command(installation, "liveops", "job", "run", job.name, "--scheduled"),
            "Restart=on-failure",
            f"RestartSec={TRY_MINUTES}min",
            f"RestartPreventExitStatus={USAGE} {SPENT_CODE}",
            *_hardened(installation),
        ],
    )


def _timer(job: Job) -> str:
    return _unit(
        Unit=[f"Description=liveops: {job.meaning}, {job.when.said}"],
        Timer=[
            f"OnCalendar={calendar_of(job.when)}",
            "AccuracySec=1s",
            "# A machine that was off at that time does it when it is back.",
            "Persistent=true",
        ],
        Install=["WantedBy=timers.target"],
    )


def _network(installation: Installation) -> list[str]:
    if installation.is_embedded:
        return ["After=network.target"]
    return ["Wants=network-online.target", "After=network-online.target"]


def _beside_service(installation: Installation) -> list[str]:
    if not installation.is_embedded:
        return _network(installation)
    return [
        "# The embedded ledger is that unit's, and waits for its last user before it stops: so",
        "# this unit is begun after it, and stopped and begun again with it.",
        f"Requires={SERVICE}",
        f"After={SERVICE}",
    ]


def _common(installation: Installation) -> list[str]:
    variables = (f"{name}={value}" for name, value in installation.variables.items())
    return [
        f"User={installation.user}",
        "# Secrets stand in .env, which the program reads itself; cron's jobs read the same file.",
        # Neither quoted nor split: the rest of the line is the path.
        f"WorkingDirectory={_escaped(str(installation.root))}",
        *(f"Environment={_word(variable)}" for variable in variables),
    ]


def _restarted() -> list[str]:
    return [
        "Restart=on-failure",
        f"RestartSec={RESTART_SECONDS}",
        "# Wrong settings or an unknown policy: the same again would end the same way.",
        f"RestartPreventExitStatus={USAGE}",
    ]


def _hardened(installation: Installation) -> list[str]:
    """Return the options that what we run can live with, and why others are missing."""
    written = [installation.home, *installation.writable]
    return [
        "# The main process stops PostgreSQL itself, cleanly. SIGTERM to all of the group would",
        "# end the connections of everybody else at once.",
        "KillMode=mixed",
        "TimeoutStopSec=2min",
        "# PostgreSQL's shared memory belongs to the user: true would take it away from the server",
        "# of one unit when another unit of this user ends.",
        "RemoveIPC=false",
        "UMask=0027",
        "NoNewPrivileges=true",
        "# Nothing here needs root: ports are above 1024, the server runs as this user.",
        "CapabilityBoundingSet=",
        "# Everything is read-only, also in /home, but for state. The directory must exist.",
        "ProtectSystem=strict",
        *(f"ReadWritePaths={_word(str(path))}" for path in written),
        *_temporary(installation),
        "ProtectKernelTunables=true",
        "ProtectKernelModules=true",
        "ProtectKernelLogs=true",
        "ProtectControlGroups=true",
        "ProtectHostname=true",
        "LockPersonality=true",
        "RestrictRealtime=true",
        "RestrictSUIDSGID=true",
        "RestrictNamespaces=true",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "SystemCallArchitectures=native",
        "# Left out: PrivateDevices and ProtectClock hide the GPU, whose load is measured;",
        "# MemoryDenyWriteExecute is what runtimes of learned policies may trip over.",
    ]


def _temporary(installation: Installation) -> list[str]:
    if installation.is_embedded and installation.is_long:
        return [
            "# The ledger's socket lies in /tmp, its path under home being too long for one; a",
            "# private /tmp would hide it from the other units.",
            "ReadWritePaths=/tmp",
        ]
    return ["PrivateTmp=true"]


def _command(installation: Installation, program: str, *arguments: str) -> str:
    words = [_word(str(installation.programs / program))]
    # %i is systemd's, and stays.
    words += [word if word == "%i" else _word(word) for word in arguments]
    words += [_word(word) for word in installation.options()]
    return f"ExecStart={' '.join(words)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """Return one word of a unit's line, quoted where it has to be."""
    text = _escaped(text)
    return text if _BARE.fullmatch(text) else f'"{text}"'


def _unit(**sections: Iterable[str]) -> str:
    parts = ("\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items())
    return "\n".join(parts)
