"""Candles for tests: a seeded random walk, and parts of other candles."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from learners.market.candles import Candles

HOUR = timedelta(hours=1)


def random_walk(
    bars: int, *, seed: int, interval: timedelta = HOUR, skip: tuple[int, ...] = ()
) -> Candles:
    """Return bars of a random walk from 100; those in `skip` are missing: gaps."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
    opens = np.concatenate(([100.0], close[:-1]))
    kept = np.setdiff1d(np.arange(bars), skip)
    columns = {
        "open": opens,
        "high": np.maximum(opens, close) * (1 + rng.uniform(0, 0.01, bars)),
        "low": np.minimum(opens, close) * (1 - rng.uniform(0, 0.01, bars)),
        "close": close,
        "volume": rng.uniform(0, 10, bars).round(1),
    }
    start = np.datetime64("2024-01-01", "us")
    return Candles(
        instrument="BTCUSD",
        opened_at=(start + np.arange(bars) * np.timedelta64(interval, "us"))[kept],
        **{name: values[kept] for name, values in columns.items()},
    )


def part(candles: Candles, start: int, stop: int) -> Candles:
    """Return the bars from `start` up to `stop`, without it."""
    return Candles(
        instrument=candles.instrument,
        opened_at=candles.opened_at[start:stop],
        bar_interval=candles.interval,
        **{name: values[start:stop] for name, values in candles.numbers().items()},
    )


def close_only(*close: float) -> Candles:
    """Return hourly bars of which only the close matters: open as close, high 1 above, low 1 under.

    The volume of the bars is 1, 2, 3 and so on.
    """
    prices = np.array(close)
    return Candles(
        instrument="BTCUSD",
        opened_at=np.datetime64("2024-01-01", "us")
        + np.arange(len(close)) * np.timedelta64(1, "h"),
        open=prices,
        high=prices + 1,
        low=prices - 1,
        close=prices,
        volume=np.arange(1.0, len(close) + 1),
    )
