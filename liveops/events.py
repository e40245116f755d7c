"""How logged events look on stderr: one line each, the data behind the event."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_FORM: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class EventFormatter(logging.Formatter):
    """Writes an event with its data as `key=value`; no caller's text can begin a line of its own.

    >>> record = logging.makeLogRecord({"name": "liveops", "levelname": "INFO", "msg": "served"})
    >>> record.route = "/ping\\r\\nINFO forged"
    >>> EventFormatter().format(record).partition(" INFO ")[2]
    'liveops: served route="/ping\\\\r\\\\nINFO forged"'
    """

    def __init__(self) -> None:
        """Begin each line with time, level and logger."""
        super().__init__(_FORM)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line; a traceback, which is ours, follows it on lines of its own."""
        data = {key: value for key, value in vars(record).items() if _is_told(key)}
        line = super().formatMessage(record)
        return _visible(" ".join([line, *(f"{key}={_shown(data[key])}" for key in data)]))


def _is_told(key: str) -> bool:
    # Packages mark records for themselves: Ray does from the moment it is imported.
    return key not in _OWN and not key.startswith("_")


def _shown(value: Any) -> str:
    return json.dumps(value if isinstance(value, int | float | bool | None) else str(value))


def _visible(line: str) -> str:
    # Line breaks of every alphabet, and what steers a terminal.
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in line
    )
