"""The candle store: closed bars on disk that only ever grow.

A folder a series, `source/instrument/interval/`, with a Parquet file a month and `series.json`,
which names the months by their SHA-256 and is replaced last. So an append is there whole or not at
all: a crash before leaves files that nothing names, which the next append clears away.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bandit.core.errors import BanditError, InvalidInput, LockHeldElsewhere, UnknownName
from learners.durable_files import sync_directory, write_durably
from learners.market.candle_files import PRICE_COLUMNS
from learners.market.candles import Candles
from learners.market.intervals import interval_text
from learners.market.validation import Floats, instant

MANIFEST = "series.json"
FORMAT = 1
_COLUMNS = (*PRICE_COLUMNS, "volume")
_SOURCE, _INSTRUMENT = r"[a-z0-9][a-z0-9_.-]{0,62}", r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,62}"
_READ_ATTEMPTS = 5


class CandleConflict(BanditError):
    """Bars that are offered differ from those in the store; nothing of them was stored."""

    code = "candle_conflict"

    def __init__(self, *, series: str, bar: datetime, column: str, kept: str, offered: str) -> None:
        super().__init__(
            f"{series}: {column} of the bar of {bar.isoformat()} is {kept} in the store, "
            f"but {offered} was offered"
        )
        self.bar = bar
        self.column = column


class DamagedSeries(BanditError):
    """A file of the store is missing, or is not the one that was written."""

    code = "damaged_series"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesName:
    """Which bars: where they come from, of what, and how long each is.

    `source` is an exchange or a name of your own, in small letters. Raises `InvalidInput` for names
    that make no folder.

    >>> str(SeriesName(source="binance", instrument="BTC/USDT", interval=timedelta(hours=1)))
    'binance BTC/USDT 1h'
    """

    source: str
    instrument: str
    interval: timedelta

    def __post_init__(self) -> None:
        """Refuse names that could lead out of the store."""
        for field, pattern in (("source", _SOURCE), ("instrument", _INSTRUMENT)):
            name = getattr(self, field)
            if re.fullmatch(pattern, name, flags=re.ASCII) is None:
                raise InvalidInput(field=field, rule=f"must match {pattern}", found=name)
        seconds = self.interval.total_seconds()
        if seconds < 1 or not seconds.is_integer():
            raise InvalidInput(field="interval", rule="must be whole seconds", found=self.interval)

    def __str__(self) -> str:
        """Return the name in words."""
        return f"{self.source} {self.instrument} {interval_text(self.interval)}"

    @property
    def folder(self) -> Path:
        """Return its folder inside the store."""
        return Path(self.source, quote(self.instrument, safe=""), interval_text(self.interval))


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of the bars that were offered; `digest` is that of all candles stored now."""

    new: int
    known: int
    unclosed: int
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSeries:
    """What `series.json` says: `digest` is that of the candles, `months` SHA-256 by month."""

    name: SeriesName
    bars: int
    digest: str
    months: dict[str, str]
    report: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document that lies in the store."""
        return {
            "format": FORMAT,
            "source": self.name.source,
            "instrument": self.name.instrument,
            "interval_seconds": int(self.name.interval.total_seconds()),
            "bars": self.bars,
            "digest": self.digest,
            "months": self.months,
            "report": self.report,
        }


class CandleStore:
    """A folder of series; any number may read, one process at a time appends to a series."""

    def __init__(self, root: Path) -> None:
        """Use the store in a folder, which need not be there yet."""
        self.root = root

    def series(self) -> tuple[StoredSeries, ...]:
        """Return what is in the store, in the order of names; raises `DamagedSeries`."""
        return tuple(_manifest(path) for path in sorted(self.root.glob(f"*/*/*/{MANIFEST}")))

    def find(
        self, instrument: str, *, source: str | None, interval: timedelta | None
    ) -> SeriesName:
        """Return the one series of an instrument; None fits every source, or every interval.

        Raises `UnknownName` where there is none, `InvalidInput` where there are several, and
        `DamagedSeries`.
        """
        known = [stored.name for stored in self.series()]
        fitting = [
            name
            for name in known
            if name.instrument == instrument
            and source in (None, name.source)
            and interval in (None, name.interval)
        ]
        if not fitting:
            asked = [source, instrument, None if interval is None else interval_text(interval)]
            named = " ".join(part for part in asked if part is not None)
            raise UnknownName(kind="series of candles", name=named, known=list(map(str, known)))
        if len(fitting) > 1:
            rule = "must be one series of the store: say its source or its interval"
            raise InvalidInput(field="instrument", rule=rule, found=", ".join(map(str, fitting)))
        return fitting[0]

    def load(self, name: SeriesName) -> Candles:
        """Read a series, checked against what was written.

        Raises `UnknownName` for a series that is not there, and `DamagedSeries`.
        """
        path = self.root / name.folder / MANIFEST
        if not path.exists():
            known = [str(stored.name) for stored in self.series()]
            raise UnknownName(kind="series of candles", name=str(name), known=known)
        return _read(path)[1]

    def append(self, name: SeriesName, candles: Candles, *, now: datetime) -> Appended:
        """Add the bars that are newer than the last one stored and closed at `now`.

        Bars that are stored already must be the same: raises `CandleConflict`, which names bar and
        column, for one that differs, and for one that the store lacks although it has later ones.
        Raises `InvalidInput` for bars of another instrument or length, `LockHeldElsewhere` while
        another process appends to the series, `DamagedSeries`, and `OSError` where the disk
        refuses. Nothing is stored then.
        """
        _require_kin(name, candles)
        closed = int(
            np.searchsorted(
                candles.opened_at, _naive(now) - np.timedelta64(name.interval), side="right"
            )
        )
        folder = self.root / name.folder
        _make_folder(folder)
        with _locked(folder / ".lock", name):
            path = folder / MANIFEST
            stored, kept = _read(path) if path.exists() else (None, None)
            offered = {"opened_at": candles.opened_at, **candles.numbers()}
            offered = {column: values[:closed] for column, values in offered.items()}
            known = 0 if kept is None else _agreeing(name, kept, offered)
            unclosed, new = len(candles) - closed, closed - known
            if new == 0:
                digest = None if kept is None else kept.digest
                return Appended(new=0, known=known, unclosed=unclosed, digest=digest)
            added = {column: values[known:] for column, values in offered.items()}
            grown = _grown(name, kept, added)
            _commit(folder, name, stored, grown, since=added["opened_at"][0])
        return Appended(new=new, known=known, unclosed=unclosed, digest=grown.digest)


def _require_kin(name: SeriesName, candles: Candles) -> None:
    if candles.interval != name.interval:
        rule = f"must have a bar every {name.interval}"
        raise InvalidInput(field=str(name), rule=rule, found=candles.interval)
    if candles.instrument != name.instrument:
        found = candles.instrument
        raise InvalidInput(field=str(name), rule="must be of this instrument", found=found)


def _naive(now: datetime) -> np.datetime64:
    """The moment as candles write it."""
    if now.tzinfo is None:
        raise InvalidInput(field="now", rule="must have a UTC offset", found=now)
    return np.datetime64(round(now.timestamp() * 1e6), "us")


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of them on disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)


@contextmanager
def _locked(path: Path, name: SeriesName) -> Iterator[None]:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeldElsewhere(f"another process is appending to {name}") from None
        yield


def _agreeing(name: SeriesName, kept: Candles, offered: dict[str, np.ndarray[Any, Any]]) -> int:
    """Return how many of the bars offered are stored; raises `CandleConflict`."""
    times = offered["opened_at"]
    known = int(np.searchsorted(times, kept.opened_at[-1], side="right"))
    places = np.searchsorted(kept.opened_at, times[:known])
    absent = kept.opened_at[places] != times[:known]
    if absent.any():
        bar = int(absent.argmax())
        raise CandleConflict(
            series=str(name), bar=instant(times[bar]), column="time", kept="absent", offered="a bar"
        )
    for column in _COLUMNS:
        stored, said = getattr(kept, column)[places], offered[column][:known]
        differs = stored != said
        if differs.any():
            bar = int(differs.argmax())
            raise CandleConflict(
                series=str(name),
                bar=instant(times[bar]),
                column=column,
                kept=repr(float(stored[bar])),
                offered=repr(float(said[bar])),
            )
    return known


def _grown(
    name: SeriesName, kept: Candles | None, added: dict[str, np.ndarray[Any, Any]]
) -> Candles:
    columns = added
    if kept is not None:
        columns = {
            column: np.concatenate([getattr(kept, column), values])
            for column, values in added.items()
        }
    return Candles(instrument=name.instrument, bar_interval=name.interval, **columns)


def _commit(
    folder: Path,
    name: SeriesName,
    stored: StoredSeries | None,
    grown: Candles,
    *,
    since: np.datetime64,
) -> None:
    """Write the months from `since` on anew, then what names them: that is the commit."""
    months = {} if stored is None else dict(stored.months)
    # Not right after a commit: a reader may still be reading what was named before it.
    _clear(folder, months)
    month_of = grown.opened_at.astype("datetime64[M]")
    for month in np.unique(month_of[month_of >= since.astype("datetime64[M]")]):
        content = _parquet(grown, month_of == month)
        sha256 = hashlib.sha256(content).hexdigest()
        write_durably(folder / _file_name(str(month), sha256), content)
        months[str(month)] = sha256
    manifest = StoredSeries(
        name=name,
        bars=len(grown),
        digest=grown.digest,
        months=months,
        report=grown.report.to_json(),
    )
    text = json.dumps(manifest.to_json(), indent=2, allow_nan=False)
    write_durably(folder / MANIFEST, f"{text}\n".encode())


def _clear(folder: Path, months: dict[str, str]) -> None:
    named = {_file_name(month, sha256) for month, sha256 in months.items()}
    for path in folder.iterdir():
        if path.suffix in (".parquet", ".part") and path.name not in named:
            path.unlink()


def _file_name(month: str, sha256: str) -> str:
    return f"{month}.{sha256[:16]}.parquet"


def _parquet(candles: Candles, chosen: np.ndarray[Any, Any]) -> bytes:
    times = pa.array(candles.opened_at[chosen], type=pa.timestamp("us")).cast(
        pa.timestamp("us", tz="UTC")
    )
    columns = {name: pa.array(values[chosen]) for name, values in candles.numbers().items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table({"opened_at": times, **columns}), buffer, compression="zstd")
    return buffer.getvalue()


def _manifest(path: Path) -> StoredSeries:
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise DamagedSeries(f"{path} has format {document['format']!r}, {FORMAT} is known")
        return StoredSeries(
            name=SeriesName(
                source=document["source"],
                instrument=document["instrument"],
                interval=timedelta(seconds=document["interval_seconds"]),
            ),
            bars=document["bars"],
            digest=document["digest"],
            months=document["months"],
            report=document["report"],
        )
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise DamagedSeries(f"{path} cannot be read: {error!r}") from error


def _read(path: Path) -> tuple[StoredSeries, Candles]:
    """Read what `series.json` names; where an append moved on meanwhile, what it names now."""
    for _ in range(_READ_ATTEMPTS):
        stored = _manifest(path)
        try:
            return stored, _candles(path.parent, stored)
        except FileNotFoundError as error:
            if _manifest(path).months == stored.months:
                raise DamagedSeries(f"{error.filename} is missing") from error
    raise DamagedSeries(f"{path.parent} changed {_READ_ATTEMPTS} times while it was read")


def _candles(folder: Path, stored: StoredSeries) -> Candles:
    tables = []
    for month, sha256 in sorted(stored.months.items()):
        path = folder / _file_name(month, sha256)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DamagedSeries(f"{path} is not the file that was written")
        tables.append(pq.read_table(pa.BufferReader(content)))
    table = pa.concat_tables(tables)
    numbers: dict[str, Floats] = {name: table[name].to_numpy() for name in _COLUMNS}
    candles = Candles(
        instrument=stored.name.instrument,
        opened_at=table["opened_at"].cast(pa.timestamp("us")).to_numpy(),
        bar_interval=stored.name.interval,
        **numbers,
    )
    if candles.digest != stored.digest:
        raise DamagedSeries(f"{folder} holds other candles than its {MANIFEST} says")
    return candles
