"""Where new bars come from: the one Protocol of a feed, and files as one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.market.candle_files import PRICE_COLUMNS, read_columns
from learners.market.stored_series import SeriesName
from learners.market.validation import Floats, Times

COLUMNS = (*PRICE_COLUMNS, "volume")
SUFFIXES = (".csv", ".csv.gz", ".parquet", ".feather")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawBars:
    """Bars as they came, not yet checked: times are open times in UTC, a row a bar."""

    opened_at: Times
    numbers: dict[str, Floats]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.opened_at)

    def where(self, chosen: NDArray[np.bool_]) -> RawBars:
        """Return the chosen rows, in their order."""
        numbers = {name: values[chosen] for name, values in self.numbers.items()}
        return RawBars(opened_at=self.opened_at[chosen], numbers=numbers)


class Feed(Protocol):
    """What brings the bars of one series: files here, an exchange in `liveops/data_feeds.py`."""

    @property
    def name(self) -> SeriesName:
        """The series that it brings the bars of."""

    def bars(self, *, since: datetime | None, until: datetime) -> RawBars:
        """Return the bars that opened at `since` or later, all for None, and closed by `until`.

        Nothing is checked that the validation checks. Raises `InvalidInput` for what is no table of
        bars, and whatever says that the source cannot be reached.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFeed:
    """The bars of every candle file that a pattern names, or that lies in a directory.

    Files that overlap with the same bars are fine; those that disagree hold a bar twice.
    """

    name: SeriesName
    pattern: Path

    def bars(self, *, since: datetime | None, until: datetime) -> RawBars:
        """Return the bars of all files together, in time order where each file is."""
        frame: pd.DataFrame | None = None
        for path in self._paths():
            read = self._read(path)
            if frame is not None:
                rows = pd.MultiIndex.from_frame(read)
                read = read[~rows.isin(pd.MultiIndex.from_frame(frame))]
                read = pd.concat([frame, read])
            frame = read
        assert frame is not None
        times = frame["opened_at"].to_numpy(dtype="datetime64[us]")
        if len(self._paths()) > 1:
            order = np.argsort(times, kind="stable")
            times, frame = times[order], frame.iloc[order]
        numbers = {name: frame[name].to_numpy(dtype=np.float64) for name in COLUMNS}
        raw = RawBars(opened_at=times, numbers=numbers)
        newest = moment(until) - np.timedelta64(self.name.interval)
        wanted: NDArray[np.bool_] = np.less_equal(times, newest)
        if since is not None:
            wanted &= times >= moment(since)
        return raw.where(wanted)

    def _paths(self) -> list[Path]:
        inside = self.pattern.is_dir()
        folder, wanted = (self.pattern, "*") if inside else (self.pattern.parent, self.pattern.name)
        found = sorted(path for path in folder.glob(wanted) if path.name.lower().endswith(SUFFIXES))
        if not found:
            rule = f"must name a file that ends in {', '.join(SUFFIXES)}"
            raise InvalidInput(field=str(self.name), rule=rule, found=self.pattern)
        return found

    def _read(self, path: Path) -> pd.DataFrame:
        read = read_columns(path, instrument=self.name.instrument)
        frame = pd.DataFrame({"opened_at": read.opened_at, **read.numbers})
        steps = np.diff(read.opened_at).astype(np.int64)
        return frame.iloc[::-1] if (steps < 0).sum() > (steps > 0).sum() else frame


def moment(at: datetime) -> np.datetime64:
    """Return an aware time as candles write it.

    >>> from datetime import UTC
    >>> moment(datetime(2026, 3, 1, tzinfo=UTC))
    np.datetime64('2026-03-01T00:00:00.000000')
    """
    return np.datetime64(round(at.timestamp() * 1e6), "us")
