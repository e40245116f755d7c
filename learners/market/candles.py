"""Candles: what a market did, bar by bar, checked before anything is decided on it."""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from bandit.core.errors import InvalidInput
from learners.market.candle_files import PRICE_COLUMNS, read_columns
from learners.market.validation import Floats, Times, ValidationReport, examine, instant

SHIPPED_FILE = Path(__file__).parent / "data" / "btcusd_1h.csv.gz"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candles:
    """One instrument's bars in time order; every array has one entry a bar and cannot be written.

    `opened_at` is the open time in UTC, prices are in quote currency, `volume` in base currency;
    `interval` is `bar_interval`, or the most frequent spacing where that is not known; where it is,
    one bar is enough. Open times may be of any unit, and are kept as whole microseconds. `digest`
    names the content: equal digests, equal bars. Raises `InvalidInput` for other times and for what
    `examine` finds, gaps and warnings excepted; `report` holds these.
    """

    instrument: str
    opened_at: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    bar_interval: InitVar[timedelta | None] = None
    interval: timedelta = field(init=False)
    report: ValidationReport = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self, bar_interval: timedelta | None) -> None:
        """Refuse what is faulty, and keep copies that nobody can write."""
        opened_at = _in_microseconds(self.opened_at)
        report = examine(
            opened_at,
            self.numbers(),
            bars_min=2 if bar_interval is None else 1,
            interval=bar_interval,
        )
        report.refuse(source=self.instrument, allow_gaps=True)
        for name, values in {"opened_at": opened_at, **self.numbers()}.items():
            kept = values.copy()
            kept.flags.writeable = False
            object.__setattr__(self, name, kept)
        object.__setattr__(self, "interval", report.interval)
        object.__setattr__(self, "report", report)
        object.__setattr__(self, "digest", self._content_digest())

    def __len__(self) -> int:
        """Return the number of bars."""
        return len(self.opened_at)

    def numbers(self) -> dict[str, Floats]:
        """Return the float columns by name."""
        return {name: getattr(self, name) for name in (*PRICE_COLUMNS, "volume")}

    def opening(self, bar: int) -> datetime:
        """Return when a bar opens, aware UTC."""
        return instant(self.opened_at[bar])

    def closing(self, bar: int) -> datetime:
        """Return when a bar is complete and may be decided on, aware UTC."""
        return self.opening(bar) + self.interval

    def last_nights(self, nights: int) -> range:
        """Return the bars that close within the last `nights` times 24 hours of the series."""
        start = self.opened_at[-1] - np.timedelta64(timedelta(days=nights))
        return range(int(np.searchsorted(self.opened_at, start, side="right")), len(self))

    def until(self, bar: int) -> Candles:
        """Return the bars before `bar`, which may not know what came later.

        >>> len(shipped_candles().until(300))
        300
        """
        return Candles(
            instrument=self.instrument,
            opened_at=self.opened_at[:bar],
            bar_interval=self.interval,
            **{name: values[:bar] for name, values in self.numbers().items()},
        )

    def _content_digest(self) -> str:
        digest = hashlib.sha256(f"{self.instrument}|{self.interval.total_seconds()}|".encode())
        digest.update(self.opened_at.astype("<i8").tobytes())
        for array in self.numbers().values():
            digest.update(array.astype("<f8").tobytes())
        return digest.hexdigest()


def load_candles(
    path: Path, *, instrument: str | None = None, allow_gaps: bool = False, bars_min: int = 2
) -> Candles:
    """Read and check a candle file: CSV (also gzipped, newest first or last), Parquet or feather.

    The instrument is the one given, else the file's `symbol` column, else the file name up to its
    first dot. Gaps are refused unless allowed; then the series simply goes on later, nothing is
    filled in. Raises `InvalidInput`, which names the file, the column and the rule.

    >>> candles = load_candles(SHIPPED_FILE, instrument="BTCUSD")
    >>> len(candles), candles.interval, candles.opening(0).isoformat()
    (16901, datetime.timedelta(seconds=3600), '2017-11-12T04:00:00+00:00')
    """
    columns = read_columns(path, instrument=instrument)
    opened_at, numbers = columns.opened_at, columns.numbers
    if _newest_first(opened_at):
        opened_at = opened_at[::-1]
        numbers = {name: values[::-1] for name, values in numbers.items()}
    report = examine(opened_at, numbers, bars_min=bars_min)
    report.refuse(source=path.name, allow_gaps=allow_gaps)
    named = (instrument, columns.symbol, path.name.split(".")[0])
    return Candles(
        instrument=next(name for name in named if name is not None),
        opened_at=opened_at,
        bar_interval=report.interval,
        **numbers,
    )


def shipped_candles() -> Candles:
    """Return the hourly BTCUSD bars that come with the product, see `data/README.md`."""
    return load_candles(SHIPPED_FILE, instrument="BTCUSD")


def _in_microseconds(times: Times) -> Times:
    kept: Times = np.asarray(times)
    if kept.dtype.kind != "M" or np.datetime_data(kept.dtype)[0] == "generic":
        rule = "must be datetimes of a unit, such as datetime64[us]"
        raise InvalidInput(field="opened_at", rule=rule, found=kept.dtype)
    converted = kept.astype("datetime64[us]")
    # There and back: neither a part of a microsecond nor a year beyond what 64 bits hold is lost.
    lost = np.isnat(kept) | (converted.astype(kept.dtype) != kept)
    if lost.any():
        rule = "must be whole microseconds that 64 bits hold"
        raise InvalidInput(field="opened_at", rule=rule, found=kept[lost][0])
    return converted


def _newest_first(opened_at: Times) -> bool:
    steps = np.diff(opened_at).astype(np.int64)
    return bool((steps < 0).sum() > (steps > 0).sum())
