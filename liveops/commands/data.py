"""`liveops data`, `validate_data` and `rollback_data`: the nightly data pipeline."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liveops.commands.options import AsJson, ConfigFile, Demo, actor, ledger_app, print_json

if TYPE_CHECKING:
    from bandit.core.data_runs import DataFact

commands = typer.Typer(help="The nightly data pipeline.", no_args_is_help=True)

Night = Annotated[
    datetime | None,
    typer.Option("--date", formats=["%Y-%m-%d"], help="Night that is meant, UTC; today's."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
STATUS_NIGHTS = 7


@commands.callback()
def data() -> None:
    """The nightly data pipeline."""


@commands.command("run")
def run(
    date: Night = None,
    accept: Annotated[
        str | None,
        typer.Option("--accept", help="Why anomalies are right; loads in spite of them."),
    ] = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Bring in every bar that closed by 00:00 UTC of the night, checked, with its features.

    Does nothing where the night is done, or where `data.feeds` names no series; what was killed
    goes on. Exit 1 where it failed: nothing was loaded then, and what was loaded before stays;
    but where `archive` or `health` failed the bars are loaded, and the next run goes on there.
    """
    from liveops.data_pipeline import night_of, planned, run_night, unfed

    with ledger_app(config=config, demo=demo) as app:
        night = night_of(app, None if date is None else date.date())
        idle = unfed(app, night)
        if idle is not None:
            told = idle
        elif dry_run:
            told = planned(app, night)
        else:
            told = run_night(app, night, accepted=accept, actor=actor()).to_json()
    if as_json:
        print_json(told)
        return
    _print_run(told)


@commands.command("validate")
def validate(
    date: Night = None, demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None
) -> None:
    """Check what is stored of the day that ended with the night; exit 1 where anything is wrong."""
    from bandit.core.model import Verdict
    from liveops.data_pipeline import night_of
    from liveops.data_validation import validated, verdict_of

    with ledger_app(config=config, demo=demo) as app:
        night = night_of(app, None if date is None else date.date())
        checks = validated(app, night)
    verdict = verdict_of(checks)
    if as_json:
        told = [check.to_json() for check in checks]
        print_json({"date": str(night), "verdict": verdict.value, "checks": told})
    else:
        for check in checks:
            value = "-" if check.value is None else f"{check.value:g}"
            sys.stdout.write(
                f"{check.verdict.value:12} {check.subject}: {check.check} {value}, "
                f"at most {check.limit:g} ({check.detail})\n"
            )
        sys.stdout.write(f"{night}: {verdict.value}\n")
    if verdict is Verdict.FAIL:
        raise typer.Exit(1)


@commands.command("rollback")
def rollback(
    date: Annotated[
        datetime,
        typer.Argument(formats=["%Y-%m-%d"], help="Night whose load, and later ones, are undone."),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit log.")],
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make the candles what they were before the load of a night.

    Trainings are refused until that is done, also where it was killed: type it again.
    """
    from liveops.data_rollback import planned, roll_back

    with ledger_app(config=config, demo=demo) as app:
        if dry_run:
            told = planned(app, date.date())
        else:
            told = roll_back(app, date.date(), reason=reason, actor=actor()).to_json()
    if as_json:
        print_json(told)
    elif dry_run:
        sys.stdout.write(f"would do: {', '.join(told['would_do']) or 'nothing'}\n")
        for series, bars in told["series"].items():
            sys.stdout.write(f"  {series}: {bars['bars']} bars would be {bars['would_be']}\n")
    else:
        what = f"undone: {', '.join(told['undone'])}" if told["done"] else "was done before"
        sys.stdout.write(f"rolled back to before {told['date']}, {what}\n")
        sys.stdout.write(f"  store {told['version']}\n")


@commands.command("status")
def status(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show the newest nights, what can be rolled back, and whether trainings are refused."""
    from bandit.service import data_runs
    from learners.market.store_switch import version_digest, versions
    from liveops.candle_import import candle_store

    with ledger_app(config=config, demo=demo) as app:
        nights = data_runs.newest_nights(app.engine, limit=STATUS_NIGHTS)
        paused = data_runs.paused(app.engine)
        root = candle_store(app.settings, demo=demo).root
        told: dict[str, Any] = {
            "paused": None if paused is None else str(paused.day),
            "version": version_digest(root),
            "can_roll_back": [str(version.day) for version in versions(root)],
            "nights": [_of_fact(fact) for fact in nights],
        }
    if as_json:
        print_json(told)
        return
    if paused is not None:
        sys.stdout.write(
            f"paused: a rollback to before {paused.day} is not finished; trainings are refused\n"
        )
    sys.stdout.write(f"can be rolled back: {', '.join(told['can_roll_back']) or 'nothing'}\n")
    for fact in told["nights"]:
        sys.stdout.write(
            f"{fact['date']} attempt {fact['attempt']} {fact['stage']:10} {fact['state']:6} "
            f"{fact['rows_out']:8} bars  {fact['ended_at']}\n"
        )
        if fact["error"] is not None:
            sys.stdout.write(f"  {fact['error']}\n")


def _of_fact(fact: DataFact) -> dict[str, Any]:
    return {
        "date": str(fact.day),
        "attempt": fact.attempt,
        "stage": fact.stage.value,
        "state": fact.state.value,
        "rows_in": fact.rows_in,
        "rows_out": fact.rows_out,
        "began_at": fact.began_at.isoformat(),
        "ended_at": fact.ended_at.isoformat(),
        "version": fact.version_after,
        "error": fact.report.get("error"),
    }


def _print_run(told: Mapping[str, Any]) -> None:
    if "why" in told:
        sys.stdout.write(f"nothing to do for {told['date']}: {told['why']}\n")
        return
    if "would_do" in told:
        sys.stdout.write(f"would do: {', '.join(told['would_do']) or 'nothing'}\n")
        for series, due in told["series"].items():
            sys.stdout.write(
                f"  {series}: from {due['newest'] or 'its beginning'} to {due['until']}\n"
            )
        return
    if not told["done"]:
        sys.stdout.write(f"{told['date']} was done before\n")
        return
    sys.stdout.write(f"{told['date']} is done: {', '.join(told['done'])}\n")
    for series, new in told["reports"]["load"]["new"].items():
        sys.stdout.write(f"  {series}: {new} new bars\n")
    for found in told["reports"]["anomalies"]["anomalies"]:
        sys.stdout.write(
            f"  {found['severity']}: {found['series']} {found['kind']} {found['value']:g}, "
            f"usually at most {found['limit']:g} ({found['detail']})\n"
        )
