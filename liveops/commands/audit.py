"""`liveops audit verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.options import AsJson, ConfigFile, Demo, ledger_app, print_json

if TYPE_CHECKING:
    from bandit.service.auditing import AuditReport

commands = typer.Typer(help="The audit log.", no_args_is_help=True)


@commands.command("verify")
def verify(
    anchors: Annotated[
        Path | None,
        typer.Option(
            "--anchors",
            exists=True,
            dir_okay=False,
            help="Anchor file, such as a copy from another machine; the ledger's own if left out.",
            show_default=False,
        ),
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Say whether the audit log is still what was sealed; exit 1 with what happened to which row.

    Every row is compared with its seal, every seal with the one before it, and the chain with its
    anchors; every batch, base and archive file with what the log holds of it.
    """
    from bandit.service import auditing
    from liveops.anchors import AnchorFile, anchor_file
    from liveops.archives import archives_of

    with ledger_app(config=config, demo=demo) as app:
        file = anchor_file(app) if anchors is None else AnchorFile(anchors)
        report = auditing.verify(app.engine, file.read(), archive_sha256=archives_of(app).sha256)
    if as_json:
        print_json({"anchor_file": str(file.path), **report.to_json()})
    else:
        _print(report, file.path)
    if report.findings:
        raise typer.Exit(1)


def _print(report: AuditReport, anchor_file: Path) -> None:
    for finding in report.findings:
        sys.stdout.write(f"{finding}\n")
    sealed_to = 0 if report.head is None else report.head.sequence
    anchored_to = 0 if report.anchored is None else report.anchored.sequence
    sys.stdout.write(
        f"{report.rows} rows, sealed to sequence {sealed_to}, anchored to {anchored_to}\n"
    )
    if report.waiting:
        sys.stdout.write(f"rows that wait, as they do while no service runs: {report.waiting}\n")
    if report.torn_lines:
        sys.stdout.write(f"lines cut off or unreadable in {anchor_file}: {report.torn_lines}\n")
