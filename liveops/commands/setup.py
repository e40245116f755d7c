"""`setup_live_ops` and `liveops setup`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.errors import UnknownName
from liveops.commands.options import AsJson, ConfigFile, actor, ledger_app, print_json

if TYPE_CHECKING:
    from liveops.setting_up import SetUp
    from liveops.wiring import App


def setup_live_ops(
    policy_sha: Annotated[
        str, typer.Option("--policy-sha", help="Policy: full name, sha or unique sha prefix.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Directory of the files; config/ of the checkout.", show_default=False
        ),
    ] = None,
    user: Annotated[
        str, typer.Option("--user", help="User that services and jobs run as, not root.")
    ] = "liveops",
    force: Annotated[
        bool, typer.Option("--force", help="Also write over files that somebody has edited.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Write the crontab, systemd's units and timers and logrotate's rules that operate a policy.

    Nothing is installed: it prints the commands that do. Again, it writes nothing. A file that
    somebody has edited stays, and is shown with what would change; exit 1 then.
    """
    with ledger_app(config=config, demo=False) as app:
        done = _set_up(
            app, policy_sha, out=out, user=user, force=force, is_dry=dry_run, config=config
        )
    if as_json:
        print_json(done.to_json() | {"dry_run": dry_run})
    else:
        _say(done, force=force, is_dry=dry_run)
    if done.has_edited() and not force:
        raise typer.Exit(1)


def _set_up(
    app: App,
    policy: str,
    *,
    out: Path | None,
    user: str,
    force: bool,
    is_dry: bool,
    config: Path | None,
) -> SetUp:
    from config.settings import read_environment
    from liveops import setting_up
    from liveops.installation import installation_of
    from liveops.ledger_server import checkout

    here = installation_of(app.settings, config=config, environ=read_environment(), user=user)
    target = checkout() / "config" if out is None else out.absolute()
    try:
        return setting_up.set_up(
            app, policy, installation=here, out=target, actor=actor(), force=force, is_dry=is_dry
        )
    except UnknownName as unknown:
        if unknown.kind == "policy":
            sys.stderr.write(f"register it: {_registering(policy)}\n")
        raise


def _registering(reference: str) -> str:
    is_hash = re.fullmatch(r"[0-9a-f]{8,64}", reference) is not None
    name, sha = ("NAME", reference) if is_hash else (reference, "HASH")
    return f"liveops policy register {name} --sha {sha} --kind KIND"


def _say(done: SetUp, *, force: bool, is_dry: bool) -> None:
    from liveops.operator_files import FileState

    policy, would = done.policy, "would be " if is_dry else ""
    said = {
        FileState.NEW: f"{would}written",
        FileState.UNCHANGED: "unchanged",
        FileState.CHANGED: f"{would}written again",
        FileState.EDITED: f"{would}written over" if force else "kept, as it was edited",
    }
    lines = [f"{policy.name} ({policy.sha[:12]})"]
    if done.is_new:
        lines[0] += f": {would}registered, as it is stored here"
    lines += [f"  has an arm in {name}" for name in done.experiments]
    lines += [f"{said[file.state]}: {file.path}" for file in done.files]
    sys.stdout.write("\n".join(lines) + "\n")
    for file in done.files:
        sys.stdout.write(file.diff)
    sys.stdout.write("next:\n")
    for step in done.next_steps:
        sys.stdout.write(f"  # {step.why}\n  {step.command}\n")
    for warning in done.warnings:
        sys.stderr.write(f"warning: {warning}\n")
