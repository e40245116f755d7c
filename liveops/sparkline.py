"""A curve in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LEVELS: Final = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], *, width: int) -> str:
    """Draw values in at most `width` characters, from the least to the largest of them.

    Of more values than fit, each character shows the last of its part. A curve that does not move
    is drawn at the bottom; nothing is drawn of nothing.

    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7], width=8)
    '▁▂▃▄▅▆▇█'
    >>> sparkline([5.0, 5.0, 5.0], width=8), sparkline([], width=8)
    ('▁▁▁', '')
    >>> sparkline(range(100), width=4)
    '▁▃▆█'
    """
    n = len(values)
    ends = range(n) if n <= width else [(i + 1) * n // width - 1 for i in range(width)]
    shown = [values[i] for i in ends]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high <= low:
        return LEVELS[0] * len(shown)
    top = len(LEVELS) - 1
    return "".join(LEVELS[round(top * (value - low) / (high - low))] for value in shown)
