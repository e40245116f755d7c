"""`liveops replay`: derive stored nights again, and say where they differ."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liveops.commands.options import AsJson, ConfigFile, Demo, ledger_app, print_json

if TYPE_CHECKING:
    from bandit.core.rederivation import Rederived

COLUMNS = 80


def replay(
    experiment: Annotated[str, typer.Argument(help="Experiment.")],
    night: Annotated[
        datetime | None,
        typer.Option(
            "--night",
            formats=["%Y-%m-%d"],
            help="Only this night, a UTC day; every night if left out.",
            show_default=False,
        ),
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Derive nights again from what their rows say; exit 1 when any differs from what is stored.

    Compared are seed, digest, the checklist's stops, proposal, rungs, reasons and the allocation
    made. A night that was set by hand, or stored by a release that read other numbers, cannot be
    replayed: it is named with the reason, and counts neither as the same nor as different.
    """
    from bandit import __version__
    from bandit.core.rederivation import Comparison
    from bandit.service.rederiving import rederive

    day = None if night is None else night.date()
    with ledger_app(config=config, demo=demo) as app:
        found = rederive(app.engine, experiment, day=day)
    counts = Counter(each.comparison for each in found)
    if as_json:
        counted = {kind.value.replace(" ", "_"): counts[kind] for kind in Comparison}
        nights = [each.to_json() for each in found]
        print_json(
            {"experiment": experiment, "code_version": __version__, **counted, "nights": nights}
        )
    else:
        for each in found:
            for line in _lines(each, __version__):
                sys.stdout.write(f"{line}\n")
        said = ", ".join(f"{counts[kind]} {kind.value}" for kind in Comparison)
        sys.stdout.write(f"{experiment}: {len(found)} nights: {said}\n")
    if counts[Comparison.DIFFERENT]:
        raise typer.Exit(1)


def _lines(night: Rederived, version: str) -> Iterator[str]:
    """Yield what is said of a night, wrapped to the terminal's usual width."""
    said = f"{night.day} {night.comparison}"
    if night.why_not is not None:
        said = f"{said}: {night.why_not}"
    if night.code_version != version:
        said = f"{said} (decided by {night.code_version}, replayed by {version})"
    yield from _wrapped(said, indent=2)
    for difference in night.differences:
        stored, derived = _shown(difference.stored), _shown(difference.derived)
        said = f"  {difference.what}: stored {stored}, derived {derived}"
        yield from _wrapped(said, indent=4)


def _wrapped(text: str, *, indent: int) -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent=" " * indent, break_on_hyphens=False)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "verdict" in value:
        measured, limit = (
            "-" if value[key] is None else f"{value[key]!r}" for key in ("value", "limit")
        )
        return f"{measured}/{limit} {value['verdict']}"
    return "nothing" if value is None else f"{value}"
