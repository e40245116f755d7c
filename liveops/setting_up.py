"""What `setup_live_ops` does: writes what operates a policy, and says what comes next."""

from __future__ import annotations

import pwd
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bandit.core.errors import UnknownName
from bandit.core.model import Policy
from bandit.service import experiments, policies
from liveops import operator_files
from liveops.alerting import ALERTMANAGER_FILE, RULES_FILE, alerting_of
from liveops.crontab import CRONTAB
from liveops.installation import Installation, warnings_of
from liveops.operator_files import FileState, OperatorFile
from liveops.stored_policies import stored_policy
from liveops.systemd_units import MONITOR, SCHEDULER, SERVICE, instance, render_units, timers
from liveops.wiring import App


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command that a person types next, and what it is for."""

    command: str
    why: str

    def to_json(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return {"command": self.command, "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """What a set-up found and wrote; in a dry run, what it would have."""

    policy: Policy
    is_new: bool
    experiments: tuple[str, ...]
    files: tuple[OperatorFile, ...]
    warnings: tuple[str, ...]
    next_steps: tuple[Step, ...]

    def has_edited(self) -> bool:
        """Whether one of the files is somebody's own."""
        return any(file.state is FileState.EDITED for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "policy": self.policy.name,
            "sha": self.policy.sha,
            "registered_now": self.is_new,
            "experiments": list(self.experiments),
            "files": [file.to_json() for file in self.files],
            "warnings": list(self.warnings),
            "next": [step.to_json() for step in self.next_steps],
        }


def set_up(
    app: App,
    reference: str,
    *,
    installation: Installation,
    out: Path,
    actor: str,
    force: bool,
    is_dry: bool,
) -> SetUp:
    """Register the policy if it is only stored yet, and write what operates it below `out`.

    Nothing is installed. Raises `UnknownName` or `AmbiguousName` with the candidates,
    `FileNotWritten` where a file cannot be written.
    """
    policy, is_new = _policy(app, reference, actor=actor, is_dry=is_dry)
    names = [] if is_new else experiments.of_policy(app.engine, policy.name)[1]
    watching = alerting_of(app.settings).watching()
    files = operator_files.planned(installation, out=out, watching=watching)
    if not is_dry:
        operator_files.write(files, force=force)
    joining = [] if names else _joining(policy, experiments.listed(app.engine))
    steps = [*joining, *_preparing(installation, out), *_installing(installation, policy, files)]
    return SetUp(
        policy=policy,
        is_new=is_new,
        experiments=tuple(names),
        files=tuple(files),
        warnings=tuple(warnings_of(installation, app.settings)),
        next_steps=tuple(steps),
    )


def _policy(app: App, reference: str, *, actor: str, is_dry: bool) -> tuple[Policy, bool]:
    try:
        return policies.find(app.engine, reference).policy, False
    except UnknownName:
        policy = stored_policy(app.settings, reference)
        if policy is None:
            raise
    if not is_dry:
        policies.register(app.engine, policy, now=app.clock.now(), actor=actor)
    return policy, True


def _joining(policy: Policy, opened: Sequence[str]) -> Iterator[Step]:
    why = "the policy has an arm in no experiment yet, so there is nothing to scale or watch"
    for name in opened:
        yield Step(command=f"liveops experiment add {name} {policy.name}", why=why)
    if not opened:
        command = f"liveops experiment open NAME --champion {policy.name} --capital MONEY"
        yield Step(command=command, why=why)


def _preparing(installation: Installation, out: Path) -> Iterator[Step]:
    user, owner = installation.user, f"{installation.user}:{installation.group}"
    uid = _uid_of(user)
    if uid is None:
        command = f"sudo useradd --system --user-group --shell /usr/sbin/nologin {user}"
        yield Step(
            command=command,
            why="the user of the services; logind leaves the memory of --system ones alone",
        )
    for folder in (installation.home, *installation.writable):
        if not folder.is_dir():
            command = f"sudo install -d -o {user} -g {installation.group} {_quoted(folder)}"
            yield Step(command=command, why="what the services write to")
        elif folder.stat().st_uid != uid:
            command = f"sudo chown -R {owner} {_quoted(folder)}"
            why = "what the services write to; stop what runs on it before"
            yield Step(command=command, why=why)
    if not installation.secrets.exists():
        files = _quoted(out / operator_files.SECRETS_EXAMPLE, installation.secrets)
        command = f"sudo install -m 600 -o {user} -g {installation.group} {files}"
        yield Step(command=command, why="only for secrets: then fill them in")


def _installing(
    installation: Installation, policy: Policy, files: Sequence[OperatorFile]
) -> Iterator[Step]:
    places = {file.path.name: file.path for file in files}
    units = [places[name] for name in render_units(installation)]
    yield Step(command=f"sudo systemctl link {_quoted(*units)}", why="makes the units known")
    wanted = [SERVICE, instance(MONITOR, policy.name)]
    command = f"sudo systemctl enable --now {' '.join([*wanted, *timers()])}"
    yield Step(command=command, why="starts them, now and with the machine")
    if any(file.path in units and file.state is not FileState.NEW for file in files):
        again = " ".join([*wanted, SCHEDULER])
        command = f"sudo systemctl daemon-reload && sudo systemctl try-restart {again}"
        yield Step(command=command, why="where units were installed before")
    command = f"sudo systemctl enable --now {SCHEDULER}"
    yield Step(command=command, why="instead of the timers, where several hosts share a ledger")
    crontab = _quoted(places[CRONTAB.name])
    why = f"instead of the timers; it replaces the whole crontab of {installation.user}"
    yield Step(command=f"sudo crontab -u {installation.user} {crontab}", why=why)
    rules = _quoted(places[operator_files.LOGROTATE.name])
    command = f"sudo install -m 644 -o root -g root {rules} /etc/logrotate.d/liveops"
    yield Step(command=command, why="logs that grow are rotated")
    yield from _watching(places)


def _watching(places: Mapping[str, Path]) -> Iterator[Step]:
    rules, routes = _quoted(places[RULES_FILE]), _quoted(places[ALERTMANAGER_FILE])
    install = "sudo install -m 644 -o root -g root"
    yield Step(
        command=f"{install} {rules} /etc/prometheus/{RULES_FILE}",
        why="only with Prometheus; then name it under rule_files of prometheus.yml",
    )
    yield Step(
        command=f"{install} {routes} /etc/prometheus/{ALERTMANAGER_FILE}",
        why="only with Alertmanager, as Debian starts it; docs/alerts.md names its secrets",
    )


def _uid_of(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _quoted(*paths: Path) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)
