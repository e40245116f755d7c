"""`live_ops_monitor`, `liveops report experiment`, `liveops plot` and `liveops decisions`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bandit.core.errors import InvalidInput
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    HtmlFile,
    ledger_app,
    print_json,
)

if TYPE_CHECKING:
    from bandit.core.upkeep import UpkeepRow
    from bandit.service.reporting import ExperimentReport
    from bandit.service.scaling import Night
    from liveops.monitoring import Look
    from liveops.wiring import App


class Mode(StrEnum):
    """What the monitor is asked for."""

    REPORT = "report"
    SCALE = "scale"
    CONTINUOUS = "continuous"


_MODE_OF: Final = {
    "html": Mode.REPORT,
    "--interval": Mode.CONTINUOUS,
    "--dry-run": Mode.CONTINUOUS,
    "--all": Mode.SCALE,
    "--date": Mode.SCALE,
}
"""Options that say something in one mode only."""


def live_ops_monitor(
    mode: Annotated[
        Mode,
        typer.Option("--mode", help="Print a report, scale for tonight, or go on and act."),
    ],
    policy_sha: Annotated[
        str | None,
        typer.Option(
            "--policy-sha",
            help="Policy: full name, sha or unique sha prefix.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Instead of a policy: scale every experiment.")
    ] = False,
    day: Annotated[
        str | None,
        typer.Option("--date", help="Scale only if this is today's UTC day, YYYY-MM-DD."),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval", min=1, max=86_400, help="Seconds between two looks; 300 if left out."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    demo: Demo = False,
    as_json: AsJson = False,
    html: HtmlFile = None,
    config: ConfigFile = None,
) -> None:
    """Report on a policy's experiments, move their traffic for tonight, or go on and act.

    Scaling is done once a night, and no night is made up for on another day. Going on, it holds
    every arm, encoder and GPU against the checklist: stops arms that a guard has left, asks for
    encoder refreshes and has them done at night (02:00 UTC) in a process of their own, and begins a
    learner that is stuck again. Bots that use the SDK trade smaller, then open nothing, once it
    dies; ended by SIGINT or SIGTERM, they go on without it.
    """
    told = {"html": html is not None, "--interval": interval is not None, "--dry-run": dry_run}
    _require_mode(mode, told | {"--all": every, "--date": day is not None})
    if (policy_sha is None) != every:
        rule = "must be given" if policy_sha is None else "must not go with --all"
        raise InvalidInput(field="--policy-sha", rule=rule, found=policy_sha or "nothing")
    if mode is Mode.SCALE:
        _scale(policy_sha, day, demo=demo, as_json=as_json, config=config)
        return
    assert policy_sha is not None
    if mode is Mode.CONTINUOUS:
        seconds = 300.0 if interval is None else interval
        _go_on(policy_sha, seconds, dry_run=dry_run, demo=demo, as_json=as_json, config=config)
        return
    from liveops import monitor

    with ledger_app(config=config, demo=demo) as app:
        names = monitor.experiments_of(app, policy_sha)
        _report_on(app, names, as_json=as_json, html=html)


def _require_mode(mode: Mode, told: Mapping[str, bool]) -> None:
    """Refuse options that say something in another mode only."""
    for option, is_told in told.items():
        if is_told and mode is not _MODE_OF[option]:
            rule = f"is for --mode {_MODE_OF[option]}"
            raise InvalidInput(field=option, rule=rule, found=f"--mode {mode}")


def _scale(
    policy: str | None, day: str | None, *, demo: bool, as_json: bool, config: Path | None
) -> None:
    """Scale the experiments of a policy, or all; a failure of one is told after the others."""
    from bandit.service import experiments
    from liveops import monitor
    from liveops.commands.options import utc_day

    asked = None if day is None else utc_day(day)
    with ledger_app(config=config, demo=demo) as app:
        today = app.clock.now().date()
        if asked not in (None, today):
            sys.stderr.write(f"it is {today}: the night of {asked} is not decided now\n")
            _print_nights([], as_json=as_json)
            return
        names = (
            experiments.listed(app.engine)
            if policy is None
            else monitor.experiments_of(app, policy)
        )
        nights, errors = monitor.scale(app, names)
        _print_nights(nights, as_json=as_json)
        # After the decision, which must not wait for a long history to be read.
        for wrong in monitor.wrong_statistics(app):
            advice = "`liveops ledger rebuild` writes it anew"
            sys.stderr.write(f"warning: {wrong} is not what the outcomes say; {advice}\n")
    for error in errors[1:]:
        sys.stderr.write(f"{error.code}: {error}\n")
    if errors:
        raise errors[0]


def _go_on(
    policy: str, seconds: float, *, dry_run: bool, demo: bool, as_json: bool, config: Path | None
) -> None:
    from liveops.learner import again_command, supervised
    from liveops.monitoring import Monitor, monitor_until
    from liveops.stopping import stopped_by_signals

    say = _say_as_json if as_json else _say_look
    with (
        stopped_by_signals() as stop,
        ledger_app(config=config, demo=demo) as app,
        app.gpus.looking(),
        ExitStack() as stack,
    ):
        learner = None
        if not dry_run:
            command = again_command(config=config, demo=demo)
            learner = stack.enter_context(supervised(app, command=command))
        watched = Monitor(app=app, policy=policy, learner=learner, is_dry=dry_run)
        monitor_until(stop, watched, seconds=seconds, say=say)


def _say_as_json(look: Look) -> None:
    sys.stdout.write(json.dumps(look.to_json()) + "\n")
    sys.stdout.flush()


def _say_look(look: Look) -> None:
    names = ", ".join(look.experiments)
    said = "nothing is flagged" if not look.flags else f"{len(look.flags)} flagged"
    lines = [f"{look.at:%Y-%m-%d %H:%M:%S} {names}: {said}"]
    lines += [f"  {flag.text}: {flag.row.action}" for flag in look.flags]
    lines += [f"  {done}" for done in look.done]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def report(
    experiment: Annotated[
        str | None, typer.Argument(help="Experiment; all of them when left out.")
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    html: HtmlFile = None,
    config: ConfigFile = None,
) -> None:
    """Print arms, numbers and checklist of an experiment, or write them as a page with a picture.

    `liveops report btc` is short for it. The page is one file: no script, nothing to load, light
    and dark, readable on a telephone.
    """
    from bandit.service import experiments

    with ledger_app(config=config, demo=demo) as app:
        names = experiments.listed(app.engine) if experiment is None else [experiment]
        _report_on(app, names, as_json=as_json, html=html)


def plot(
    experiment: Annotated[str, typer.Argument(help="Experiment.")],
    out: Annotated[Path, typer.Option("--out", help="PNG or SVG file to draw into.")],
    demo: Demo = False,
    config: ConfigFile = None,
) -> None:
    """Draw the life of an experiment: traffic, closed results and evidence, day by day.

    Traffic of each arm by allocation version; what each arm closed at nominal size, and the
    account in money; the evidence of each challenger beside its champion night by night, where it
    is proven, and the nights on which it came to another rung. Times are UTC.
    """
    from bandit.service import charting
    from liveops.life_plot import draw_life
    from liveops.plots import checked_plot, save

    picture = checked_plot(out, field="out")
    with ledger_app(config=config, demo=demo) as app:
        life = charting.life(app.engine, experiment)
    save(draw_life(life), picture)
    sys.stdout.write(f"drawn into {picture}\n")


def decisions(
    experiment: Annotated[str, typer.Argument(help="Experiment.")],
    newest: Annotated[int, typer.Option("--newest", min=1, help="How many, newest first.")] = 20,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Print the newest decisions of an experiment with their reasons."""
    from rich.console import Console

    from bandit.service import reporting
    from liveops.decision_lines import decision_lines

    with ledger_app(config=config, demo=demo) as app:
        found = reporting.decision_history(app.engine, experiment, newest=newest)
        if as_json:
            print_json([reporting.decision_json(decision) for decision in found])
            return
        console = Console(soft_wrap=not sys.stdout.isatty())
        for decision in found:
            for line in decision_lines(decision):
                console.print(line)


def _print_nights(nights: list[tuple[str, Night]], *, as_json: bool) -> None:
    from rich.console import Console

    from bandit.service.reporting import decision_json
    from liveops.decision_lines import decision_lines

    if as_json:
        print_json(
            [
                {
                    "experiment": name,
                    "already_done": night.already_done,
                    "decision": decision_json(night.decision),
                    "actions": [decision_json(action) for action in night.actions],
                }
                for name, night in nights
            ]
        )
        return
    console = Console(soft_wrap=not sys.stdout.isatty())
    for name, night in nights:
        if night.already_done:
            day = night.decision.trading_day
            console.print(f"{name}: the night of {day} was decided before; nothing changed")
        else:
            console.print(f"{name}:")
        for decision in (*night.actions, night.decision):
            for line in decision_lines(decision):
                console.print(line)


def _report_on(app: App, names: list[str], *, as_json: bool, html: Path | None) -> None:
    from bandit.service import reporting
    from liveops import monitor
    from liveops.gpu import read_gpus

    if html is not None:
        if as_json:
            raise InvalidInput(field="html", rule="is instead of --json", found="both")
        _write_page(app, names, html)
        return
    found = [reporting.report(app.engine, name) for name in names]
    _print_reports(found, monitor.machine_row(app, read_gpus()), as_json=as_json)


def _write_page(app: App, names: list[str], html: Path) -> None:
    from bandit.service import charting
    from liveops import monitor
    from liveops.gpu import read_gpus
    from liveops.report_page import report_page
    from liveops.whole_files import checked_file, write_whole

    file = checked_file(html, field="html")
    found = [charting.illustrated(app.engine, name) for name in names]
    machine = monitor.machine_row(app, read_gpus())
    write_whole(file, report_page(found, made_at=app.clock.now(), machine=machine).encode())
    sys.stdout.write(f"written to {file}\n")


def _print_reports(found: list[ExperimentReport], machine: UpkeepRow, *, as_json: bool) -> None:
    from rich.console import Console

    from liveops.report import render_machine, render_report

    if as_json:
        print_json([report.to_json() | {"machine": [machine.to_json()]} for report in found])
        return
    console = Console()
    for report in found:
        console.print(render_report(report))
    console.print(render_machine(machine) if found else "no experiment is open yet")
