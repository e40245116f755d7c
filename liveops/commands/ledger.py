"""`liveops ledger digest`, `export`, `rebuild`, `as-of` and `age`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, print_json
from snapshots.formats import ExportFormat

commands = typer.Typer(help="The ledger as a whole.", no_args_is_help=True)


@commands.command("digest")
def digest(demo: Demo = False, config: ConfigFile = None) -> None:
    """Print one hash of everything the ledger remembers."""
    from bandit.service.ledger import ledger_digest

    with ledger_app(config=config, demo=demo) as app:
        sys.stdout.write(ledger_digest(app.engine) + "\n")


@commands.command("export")
def export(
    directory: Annotated[Path, typer.Argument(help="New directory to write to.")],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="File format.")
    ] = ExportFormat.PARQUET,
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Write every table of the ledger, as of one moment, to Parquet or CSV files."""
    from snapshots.ledger_export import export_ledger

    with ledger_app(config=config, demo=demo) as app:
        for path, rows in export_ledger(app.engine, directory, form=form):
            sys.stdout.write(f"{path} {rows} rows\n")


@commands.command("rebuild")
def rebuild(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when something differs.")
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Count every arm's statistics again from its outcomes and revisions; write anew what differs.

    Names arm and column of whatever differs. Every arm that is written anew leaves an audit row.
    """
    from bandit.service import rebuilding

    with ledger_app(config=config, demo=demo) as app:
        now = app.clock.now()
        if check:
            found = rebuilding.compare(app.engine, now=now)
        else:
            found = rebuilding.repair(app.engine, now=now, actor=actor())
    if as_json:
        print_json(
            {"arms": found.arms, "mismatches": [wrong.to_json() for wrong in found.mismatches]}
        )
    else:
        for wrong in found.mismatches:
            sys.stdout.write(f"{wrong}\n")
        verdict = "differ" if check else "were written anew"
        sys.stdout.write(f"{found.arms} arms, columns that {verdict}: {len(found.mismatches)}\n")
    if check and found.mismatches:
        raise typer.Exit(1)


@commands.command("as-of")
def as_of(
    experiment: Annotated[str, typer.Argument(help="Name of the experiment.")],
    policy: Annotated[str, typer.Argument(help="Name, sha or unique sha prefix.")],
    moment: Annotated[
        datetime,
        typer.Argument(
            metavar="MOMENT",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"],
            help="In UTC: 2026-03-01 (its beginning) or 2026-03-01T12:00:00Z.",
        ),
    ],
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Count an arm's numbers as they were known at a past moment.

    Only outcomes that had been recorded by then count, each in the version that was the newest.
    """
    from rich.console import Console

    from bandit.service import experiments, rebuilding
    from liveops.report import render_numbers

    moment = moment.replace(tzinfo=UTC)
    with ledger_app(config=config, demo=demo) as app:
        arm = experiments.load(app.engine, experiment).arm_of(
            experiments.of_policy(app.engine, policy)[0]
        )
        name = arm.place.policy
        found = rebuilding.as_of(app.engine, experiment, name, moment=moment)
    if as_json:
        asked = {"experiment": experiment, "policy": name, "as_of": moment.isoformat()}
        print_json(asked | found.to_json())
    else:
        Console().print(render_numbers(f"{name} as known at {moment:%Y-%m-%d %H:%M:%S}", found))


@commands.command("age")
def age(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments to age; all of them if left out.", show_default=False),
    ] = None,
    after_days: Annotated[
        int | None,
        typer.Option(
            "--after-days",
            min=30,
            help="Age at which a settled decision leaves; ageing.after_days if left out.",
            show_default=False,
        ),
    ] = None,
    abandon: Annotated[
        str | None,
        typer.Option(
            "--abandon",
            metavar="NAME",
            help="Give up an unfinished archive whose file is lost, then age.",
            show_default=False,
        ),
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Move decisions that were settled long ago from the ledger into Parquet archives.

    Their keys stay taken, their answers known and every number the same; corrections of them are
    refused from then on. Decisions without an outcome stay, and so do the trades that rolling
    windows need. What an earlier run began is finished first. Services may run meanwhile.
    """
    from bandit.core.errors import BanditError
    from liveops.archives import abandon_archive, age_experiments

    left, errors = {}, list[BanditError]()
    with ledger_app(config=config, demo=demo) as app:
        if abandon is not None:
            abandon_archive(app, abandon, actor=actor())
        days = app.settings.ageing.after_days if after_days is None else after_days
        before = app.clock.now() - timedelta(days=days)
        for name, aged in age_experiments(app, experiments or [], before=before, actor=actor()):
            if isinstance(aged, BanditError):
                errors.append(aged)
                continue
            left[name] = asdict(aged)
            if not as_json:
                files = f" to {', '.join(aged.archives)}" if aged.archives else ""
                sys.stdout.write(f"{name}: {aged.assignments} decisions left{files}\n")
    if as_json:
        print_json(left)
    for error in errors[:-1]:
        sys.stderr.write(f"{error}\n")
    if errors:
        raise errors[-1]
