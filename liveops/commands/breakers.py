"""`liveops breakers`: the circuit breakers of the running service, which alone knows them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from liveops.commands.operate import ReasonText
from liveops.commands.options import AsJson, ConfigFile, print_json, settings_from

commands = typer.Typer(
    help="Circuit breakers round what the running service calls outside.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Breaker, such as notify.discord.", show_default=False)]


@commands.command("list")
def list_breakers(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print each breaker of the service on this machine: closed, open or half_open."""
    from liveops.running_service import asked

    found = asked(settings_from(config), "GET", "/v1/breakers")
    if as_json:
        print_json(found)
        return
    for breaker in found:
        sys.stdout.write(_line(breaker))
    if not found:
        sys.stdout.write("no circuit breakers: the service calls nothing outside\n")


@commands.command("reset")
def reset(name: Name, reason: ReasonText, config: ConfigFile = None) -> None:
    """Close a breaker at every replica, in the name of a person who says why."""
    from urllib.parse import quote

    from liveops.running_service import asked

    path = f"/v1/breakers/{quote(name, safe='')}/reset"
    found = asked(settings_from(config), "POST", path, {"reason": reason})
    sys.stdout.write(_line(found))


def _line(breaker: dict[str, Any]) -> str:
    left = f", calls again in {breaker['seconds_left']:.0f} s" if breaker["seconds_left"] else ""
    return (
        f"{breaker['name']}: {breaker['state']}, {breaker['failures']} failures in a row, "
        f"{breaker['trips']} trips{left}\n"
    )
