"""`liveops verify`, and `weekly_maintenance` (= `liveops maintain`)."""

from __future__ import annotations

import sys

import typer

from liveops.commands.options import AsJson, ConfigFile, Day, Demo, DryRun, ledger_app, print_json


def verify(
    day: Day = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Check whether what is kept is to be relied on; exit 1 when a check fails.

    INCONCLUSIVE is what could not be checked, and why. Everything is checked as it is now.
    """
    from bandit.core.model import Verdict
    from liveops.maintenance.verify import CHECKS, verified
    from liveops.maintenance.weeks import moment_of

    if dry_run:
        told = [f"check {kept.name}: {kept.meaning}" for kept in CHECKS]
        if as_json:
            print_json({"dry_run": True, "done": told})
        else:
            sys.stdout.write("".join(f"{line}\n" for line in told))
        return
    found = []
    with ledger_app(config=config, demo=demo) as app:
        moment = moment_of(None if day is None else day.date(), now=app.clock.now())
        for checked in verified(app):
            found.append(checked)
            if not as_json:
                line = f"{checked.verdict:<12} {checked.name}: {checked.found}\n"
                sys.stdout.write(line)
    if as_json:
        done = [f"{checked.verdict} {checked.name}: {checked.found}" for checked in found]
        told_json = [checked.to_json() for checked in found]
        day_of = f"{moment:%Y-%m-%d}"
        print_json({"date": day_of, "dry_run": False, "done": done, "checks": told_json})
    if any(checked.verdict is Verdict.FAIL for checked in found):
        raise typer.Exit(1)
