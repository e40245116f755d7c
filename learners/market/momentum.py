"""Cross-sectional momentum: by how much each instrument's price rose over a common past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from learners.market.candles import Candles

STALE: Final = timedelta(days=1)
"""By how much the two prices that are compared may be older than they are asked for.

Longer bars may be older by one of theirs.
"""


def momentum(candles: Candles, *, at: datetime, lookback: timedelta) -> float | None:
    """Return what the price gained in the `lookback` before `at`, as a fraction; None if unknown.

    Compared are the newest closes known then and at its start: what closes later is not read. Over
    one to four weeks such past returns rank coins by their later ones (Liu, Tsyvinski and Wu,
    "Common Risk Factors in Cryptocurrency", Journal of Finance 77, 2022).

    >>> from learners.market.candles import shipped_candles
    >>> candles = shipped_candles()
    >>> f"{momentum(candles, at=candles.closing(2000), lookback=timedelta(days=21)):.1%}"
    '-36.9%'
    """
    now, then = _close(candles, at), _close(candles, at - lookback)
    return None if now is None or then is None else now / then - 1


def _close(candles: Candles, at: datetime) -> float | None:
    """Return the newest close at a moment; None where it is stale, or none is known."""
    opened_by = np.datetime64((at.astimezone(UTC) - candles.interval).replace(tzinfo=None))
    bar = int(np.searchsorted(candles.opened_at, opened_by, side="right")) - 1
    if bar < 0 or at - candles.closing(bar) > max(STALE, candles.interval):
        return None
    return float(candles.close[bar])
