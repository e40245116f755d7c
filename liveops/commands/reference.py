"""Writes docs/commands.md from the commands themselves: `python -m liveops.commands.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from typer.main import get_command

from liveops.cli import (
    alerts_app,
    app,
    health_app,
    maintenance_app,
    monitor_app,
    setup_app,
    status_app,
)

HEAD = """# Commands

Every command of `liveops` and the console scripts beside it. Results go to stdout, everything else
to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 another process holds the lock,
130 interrupted; where a command has others, it says so. This page is generated:
`python -m liveops.commands.reference > docs/commands.md`.
"""


def render() -> str:
    """Return the reference page.

    >>> "## `liveops run`" in render()
    True
    """
    parts = [HEAD]
    scripts = {
        "liveops": app,
        "live_ops_monitor": monitor_app,
        "check_status": status_app,
        "health_check": health_app,
        "setup_live_ops": setup_app,
        "prometheus_alerts": alerts_app,
        "weekly_maintenance": maintenance_app,
    }
    for name, entry in scripts.items():
        for path, command in _leaves(get_command(entry), name):
            parts.append(_section(path, command))
    return "\n".join(parts)


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    if command.invoke_without_command:
        yield path, command
    for name, child in children.items():
        yield from _leaves(child, f"{path} {name}")


def _section(path: str, command: Any) -> str:
    lines = [f"## `{path}`", "", "\n\n".join(_paragraphs(command.help)), ""]
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        lines += ["| option | meaning | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.strip().split("\n\n")]


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{parameter.name.upper()}`"
    else:
        name = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    kind = parameter.type_descriptor.annotation
    meaning = parameter.help or ""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        meaning = f"{meaning} ({', '.join(kind)})".strip()
    if parameter.required:
        default = "required"
    else:
        value = parameter.default
        default = "" if value in (None, False) else f"`{getattr(value, 'value', value)}`"
    return f"| {name} | {meaning} | {default} |"


if __name__ == "__main__":
    sys.stdout.write(render())
