"""Closed candles from an exchange, through ccxt (the extra `ccxt`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any

import numpy as np

from bandit.core.errors import BanditError, ExtraMissing, InvalidInput
from learners.market.candle_files import PRICE_COLUMNS
from learners.market.candles import Candles
from learners.market.intervals import interval_text

PAGE_BARS = 1_000  # the most that Binance gives at once; other exchanges give what they will
ATTEMPTS = 5
_PAUSE_SECONDS = 1.0  # before the second attempt; doubled before each later one
_TIMEOUT_MILLISECONDS = 10_000
_MILLISECOND = timedelta(milliseconds=1)


class ExchangeUnavailable(BanditError):
    """An exchange cannot be reached, or has refused what it was asked."""

    code = "exchange_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange by its ccxt name, and ccxt's own options for it (`urls`, `proxies`, …).

    `pause` waits so many seconds before an attempt is repeated.
    """

    name: str
    pause: Callable[[float], object]
    options: Mapping[str, Any]

    def closed_candles(
        self,
        instrument: str,
        *,
        interval: timedelta,
        since: datetime,
        server_time: datetime | None = None,
    ) -> Candles:
        """Fetch the bars that opened at `since` or later and are closed, page by page.

        Closed is what ended at `server_time`; where that is None, the exchange is asked for its
        time. ccxt keeps to the exchange's rate limit; an attempt that fails on the way is repeated
        up to `ATTEMPTS` times. Raises `InvalidInput` for an exchange, instrument or interval that
        there is not, for a `since` without offset, and where no bar is closed or `examine` finds
        errors other than gaps; `ExtraMissing` without ccxt; `ExchangeUnavailable`.
        """
        if since.tzinfo is None:
            raise InvalidInput(field="since", rule="must have a UTC offset", found=since)
        ccxt = _ccxt()
        if self.name not in ccxt.exchanges:
            raise InvalidInput(field="exchange", rule="must be one ccxt knows", found=self.name)
        options = {"enableRateLimit": True, "timeout": _TIMEOUT_MILLISECONDS, **self.options}
        with _told_as_ours(ccxt, self.name), closing(getattr(ccxt, self.name)(options)) as client:
            if interval_text(interval) not in client.timeframes:
                known = ", ".join(client.timeframes)
                rule = f"must be one of {self.name}: {known}"
                raise InvalidInput(field="interval", rule=rule, found=interval_text(interval))
            asked = _Asked(client=client, failures=(ccxt.NetworkError,), pause=self.pause)
            end = asked("fetch_time") if server_time is None else _milliseconds(server_time)
            rows = list(_pages(asked, instrument, interval, _milliseconds(since), end))
        columns = np.array(rows, dtype=np.float64).reshape(-1, 6)
        return Candles(
            instrument=instrument,
            opened_at=(columns[:, 0].astype(np.int64) * 1_000).view("datetime64[us]"),
            bar_interval=interval,
            **{name: columns[:, 1 + at] for at, name in enumerate((*PRICE_COLUMNS, "volume"))},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A client whose calls are repeated, a bounded number of times."""

    client: Any
    failures: tuple[type[Exception], ...]
    pause: Callable[[float], object]

    def __call__(self, method: str, *arguments: object) -> Any:
        for attempt in range(ATTEMPTS - 1):
            try:
                return getattr(self.client, method)(*arguments)
            except self.failures:
                self.pause(_PAUSE_SECONDS * 2**attempt)
        return getattr(self.client, method)(*arguments)


def _pages(
    asked: _Asked, instrument: str, interval: timedelta, start: int, end: int
) -> Iterator[list[float | None]]:
    """Yield the rows closed at `end`; it comes to an end, as each page begins after the last."""
    step = interval // _MILLISECOND
    while start + step <= end:
        page = asked("fetch_ohlcv", instrument, interval_text(interval), start, PAGE_BARS)
        rows = [row for row in page if row[0] >= start]
        if not rows:
            return
        yield from (row for row in rows if row[0] + step <= end)
        start = rows[-1][0] + step


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


def _ccxt() -> ModuleType:
    try:
        import ccxt
    except ImportError as error:
        raise ExtraMissing("ccxt is not installed: .venv/bin/python -m pip install ccxt") from error
    module: ModuleType = ccxt
    return module


@contextmanager
def _told_as_ours(ccxt: ModuleType, name: str) -> Iterator[None]:
    try:
        yield
    except ccxt.BadSymbol as error:
        raise InvalidInput(
            field="instrument", rule=f"must be one of {name}", found=error
        ) from error
    except ccxt.BaseError as error:
        raise ExchangeUnavailable(f"{name}: {type(error).__name__}: {error}") from error
