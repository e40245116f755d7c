"""An installation for tests of what is written for cron, systemd and logrotate."""

from __future__ import annotations

import configparser
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from liveops.installation import Installation

HERE = Installation(
    root=Path("/srv/live ops/100%"),
    programs=Path("/srv/live ops/100%/.venv/bin"),
    home=Path("/srv/live ops/it's var"),
    config=Path("/srv/live ops/100%/config/config.yaml"),
    secrets=Path("/srv/live ops/100%/config/.env"),
    user="trader",
    group="traders",
    variables={"LIVEOPS_HOME": "/srv/live ops/it's var", "LIVEOPS_PORT": "8899"},
)
"""One whose paths hold what has to be quoted or escaped."""


def installation(**changes: Any) -> Installation:
    return replace(HERE, **changes)


def parsed(unit: str) -> configparser.ConfigParser:
    """Read a unit; of a key that comes again, the values one a line."""

    class Lines(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            if isinstance(value, list) and isinstance(self.get(key), list):
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    found = configparser.ConfigParser(
        dict_type=Lines, strict=False, interpolation=None, delimiters=("=",)
    )
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(unit)
    return found


def words(line: str, *, instance: str = "") -> list[str]:
    """The words of a unit's line as systemd hands them on: unquoted, its specifiers replaced."""
    found = shlex.split(line)
    return [word.replace("%i", instance).replace("%%", "%") for word in found]
