"""`liveops report`: experiments as they stand, and a week by mail."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bandit.core.errors import InvalidInput
from liveops.commands import monitor
from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    ledger_app,
    print_json,
)

if TYPE_CHECKING:
    from bandit.service.weekly_reporting import WeeklyReading
    from liveops.weekly_mail import Told, Weekly
    from liveops.wiring import App

_STANDING = "experiment"


class _StandingFirst(TyperGroup):
    """`liveops report btc` is `liveops report experiment btc`: so it is typed every day."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args[:1] and args[0] in (*self.commands, "--help")
        return super().parse_args(ctx, args if named else [_STANDING, *args])


commands = typer.Typer(
    cls=_StandingFirst,
    help="Experiments as they stand (report EXPERIMENT), and a week by mail (report weekly).",
)
commands.command(_STANDING)(monitor.report)

Day = Annotated[
    str | None,
    typer.Option(
        "--date",
        help="The newest week that is over when this UTC day begins; today if left out.",
        show_default=False,
    ),
]
Send = Annotated[
    bool,
    typer.Option("--send/--no-send", help="Tell people of it, each channel once a week."),
]
PageFile = Annotated[
    Path | None,
    typer.Option(
        "--html", help="Write the page, its pictures in it, into this file.", show_default=False
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@commands.command("weekly")
def weekly(
    day: Day = None,
    send: Send = True,
    html: PageFile = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Report on an ISO week, Monday 00:00 to Monday 00:00 UTC: by mail, with pictures.

    The other channels get its headline. A channel that was told of the week is not told again; exit
    1 where one could not be reached, which a running service then tries for a day.
    """
    from liveops.weekly_mail import rendered, tell, to_tell
    from liveops.whole_files import checked_file, write_whole

    file = None if html is None else checked_file(html, field="html")
    with ledger_app(config=config, demo=demo) as app:
        made = rendered(_read(app, day))
        done: list[str] = []
        told: Told | None = None
        if dry_run:
            done = [f"would write {file}"] if file is not None else []
            done += [f"would send on {name}" for name in (to_tell(app, made) if send else ())]
        else:
            if file is not None:
                write_whole(file, made.page().encode())
                done.append(f"written to {file}")
            if send:
                told = tell(app, made)
                done += [f"sent on {name}" for name in told.sent]
        _say(made, done, told, as_json=as_json)
        if send and not app.settings.operations.alerts.enabled:
            sys.stderr.write("operations.alerts.enabled is false: only the log is told\n")
    if told is not None and not told.arrived:
        raise typer.Exit(1)


def _read(app: App, day: str | None) -> WeeklyReading:
    from bandit.core.week import Week
    from bandit.service import weekly_reporting

    now = app.clock.now()
    week = Week.ended_by(now.astimezone(UTC).date() if day is None else _day(day))
    if week.end > now:
        rule = "must lie in a week that is over"
        raise InvalidInput(field="--date", rule=rule, found=day)
    return weekly_reporting.read(app.engine, week, now=now)


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        rule = "must be a day such as 2026-03-09"
        raise InvalidInput(field="--date", rule=rule, found=repr(text)) from None


def _say(made: Weekly, done: list[str], told: Told | None, *, as_json: bool) -> None:
    report = made.reading.report
    states = {} if told is None else told.to_json()
    if as_json:
        print_json({"done": done, "channels": states, "report": report.to_json()})
        return
    sys.stdout.write(made.text)
    lines = done or [f"nothing to do for week {report.week.name}"]
    lines += [f"{name}: {state}" for name, state in states.items()]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
