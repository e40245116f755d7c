"""Lengths of bars as exchanges write them: `5m`, `1h`, `1d`."""

from __future__ import annotations

import re
from datetime import timedelta

from bandit.core.errors import InvalidInput

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}


def interval_of(text: str) -> timedelta:
    """Read the length of a bar; raises `InvalidInput` for what is no number and unit.

    >>> interval_of("15m")
    datetime.timedelta(seconds=900)
    """
    if re.fullmatch(r"[1-9][0-9]{0,5}[smhdw]", text, flags=re.ASCII) is None:
        rule = "must be a number and s, m, h, d or w, such as 5m"
        raise InvalidInput(field="interval", rule=rule, found=text)
    return timedelta(seconds=int(text[:-1]) * _SECONDS[text[-1]])


def interval_text(interval: timedelta) -> str:
    """Write the length of a bar in its largest whole unit below a week, as exchanges do.

    >>> interval_text(timedelta(minutes=60)), interval_text(timedelta(minutes=90))
    ('1h', '90m')
    """
    seconds = int(interval.total_seconds())
    unit = next(unit for unit, length in _SECONDS.items() if seconds % length == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"
