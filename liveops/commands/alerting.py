"""`prometheus_alerts` and `liveops alerts`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liveops.commands.options import ConfigFile, settings_from

if TYPE_CHECKING:
    from liveops.alerting import Alerting, Directories


class Action(StrEnum):
    """What is done with rules, routes and dashboards."""

    GENERATE = "generate"
    CHECK = "check"
    TEST = "test"


def prometheus_alerts(
    action: Annotated[Action, typer.Option("--action", help="What to do.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory of the files; alerts/ and, for dashboards, config/ of the checkout.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Write, check or test alert rules, Alertmanager's routes and Grafana's dashboards.

    They are made from the settings, thresholds and all: `generate` writes the files, `check` says
    what is wrong with those that are there (exit 1), `test` runs promtool's unit tests of every
    rule (exit 1 where one fails). `check` and `test` change nothing.
    """
    from liveops.alerting import Directories, alerting_of, generate
    from liveops.ledger_server import checkout

    alerting = alerting_of(settings_from(config))
    if out is None:
        at = Directories(rules=checkout() / "alerts", dashboards=checkout() / "config")
    else:
        at = Directories(rules=out.absolute(), dashboards=out.absolute())
    match action:
        case Action.GENERATE:
            for path in generate(alerting, at):
                sys.stdout.write(f"written: {path}\n")
        case Action.CHECK:
            _check(alerting, at)
        case Action.TEST:
            _test(alerting)


def _check(alerting: Alerting, at: Directories) -> None:
    from liveops.alerting import check

    found = check(alerting, at)
    for line in found.not_asked:
        sys.stderr.write(f"not asked: {line}\n")
    for fault in found.faults:
        sys.stdout.write(f"{fault}\n")
    if found.faults:
        raise typer.Exit(1)
    sys.stdout.write(f"{len(alerting.rules)} alerts, nothing wrong\n")


def _test(alerting: Alerting) -> None:
    from liveops.alerting import run_tests

    done = run_tests(alerting)
    if done.failures:
        sys.stdout.write(done.failures)
        raise typer.Exit(1)
    sys.stdout.write(f"{done.rules} alerts, {done.cases} cases, none failed\n")
