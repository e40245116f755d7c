"""`liveops key new` and `list`: keys for callers of the HTTP API."""

from __future__ import annotations

import secrets
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.core.errors import InvalidInput
from config.scopes import KeyScope
from liveops.commands.options import AsJson, ConfigFile, print_json, settings_from

if TYPE_CHECKING:
    from config.keys import KeyEntry

PREFIX = "lo_"
"""What every key begins with, so that scanners of code and logs find one that leaked."""

KEY_BYTES = 32
commands = typer.Typer(help="Keys for callers of the HTTP API.", no_args_is_help=True)


@commands.command("new")
def new(
    name: Annotated[str, typer.Option("--name", help="Who calls; audit rows will name it.")],
    scope: Annotated[
        list[KeyScope],
        typer.Option("--scope", help="trade, ingest, operate, read, webhook; repeat."),
    ],
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, max=3650, help="Refused after so many.", show_default=False),
    ] = None,
) -> None:
    """Print a new key, once, and the lines for the settings file; nothing is stored.

    The first line is the key, for the caller. The others hold only its hash.
    """
    from pydantic import ValidationError

    from config.keys import KeyEntry
    from liveops.api.access import digest_of
    from liveops.clock import SystemClock

    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    end = None if days is None else SystemClock().now() + timedelta(days=days)
    try:
        entry = KeyEntry(
            name=name,
            scopes=tuple(dict.fromkeys(scope)),
            sha256=digest_of(key.encode()),
            expires_at=None if end is None else end.replace(microsecond=0),
        )
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidInput(field="--name", rule=rule, found=name) from None
    sys.stdout.write(f"{key}\n{_yaml(entry)}")
    sys.stderr.write(
        "the key is shown this once: give it to the caller, and the rest to api_keys\n"
    )


@commands.command("list")
def show(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Print every key of the settings: whose, what it opens, until when."""
    from liveops.api.access import Keyring
    from liveops.clock import SystemClock

    ring, now = Keyring.of(settings_from(config)), SystemClock().now()
    rows = [
        {
            "name": key.name,
            "scopes": sorted(key.scopes),
            "sha256": key.digest,
            "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
            "state": key.state(now=now).value,
        }
        for key in ring.keys
    ]
    if as_json:
        print_json(rows)
        return
    for key in ring.keys:
        until = "" if key.expires_at is None else f", until {key.expires_at.isoformat()}"
        opens = " ".join(sorted(key.scopes))
        sys.stdout.write(f"{key.name}: {opens} ({key.state(now=now)}{until})\n")
    if not rows:
        sys.stdout.write("no key: anyone on this machine may call the API on loopback\n")


def _yaml(entry: KeyEntry) -> str:
    lines = [
        "api_keys:",
        f"  - name: {entry.name}",
        f"    scopes: [{', '.join(entry.scopes)}]",
        f'    sha256: "{entry.sha256}"',
    ]
    if entry.expires_at is not None:
        lines.append(f'    expires_at: "{entry.expires_at.isoformat()}"')
    return "\n".join(lines) + "\n"
