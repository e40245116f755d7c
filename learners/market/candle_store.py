"""The candle store: closed bars on disk that only ever grow.

A folder a series, `source/instrument/interval/`, with a Parquet file a month and `series.json`,
which names the months by their SHA-256 and is replaced last. So an append is there whole or not at
all: a crash before leaves files that nothing names, which the next append clears away. A load of
several series is `store_versions`, and there is whole or not at all likewise.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bandit.core.errors import BanditError, InvalidInput, LockHeldElsewhere, UnknownName
from learners.durable_files import sync_directory, write_durably
from learners.market.candle_files import PRICE_COLUMNS
from learners.market.candles import Candles
from learners.market.intervals import interval_text
from learners.market.store_switch import document_of, documents, finish, kept_documents
from learners.market.stored_series import (
    MANIFEST,
    DamagedSeries,
    SeriesName,
    StoredSeries,
    encoded,
    month_file,
    series_of,
)
from learners.market.validation import Floats, instant

_COLUMNS = (*PRICE_COLUMNS, "volume")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of the bars that were offered; `digest` is that of all candles stored now."""

    new: int
    known: int
    unclosed: int
    digest: str | None


class CandleStore:
    """A folder of series; any number may read, one process at a time appends to a series."""

    def __init__(self, root: Path) -> None:
        """Use the store in a folder, which need not be there yet."""
        self.root = root

    def series(self) -> tuple[StoredSeries, ...]:
        """Return what is in the store, in the order of names; raises `DamagedSeries`."""
        return tuple(
            series_of(document, where=self.root / folder)
            for folder, document in documents(self.root).items()
        )

    def stored(self, name: SeriesName) -> StoredSeries | None:
        """Return what is said of a series now; None where it is not there."""
        return _stored(self.root, name)

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
        kept = _read(self.root, name)[1]
        if kept is None:
            known = [str(stored.name) for stored in self.series()]
            raise UnknownName(kind="series of candles", name=str(name), known=known)
        return kept

    def append(self, name: SeriesName, candles: Candles, *, now: datetime) -> Appended:
        """Add the bars that are newer than the last one stored and closed at `now`.

        Bars that are stored already must be the same: raises `CandleConflict`, which names bar and
        column, for one that differs, and for one that the store lacks although it has later ones.
        Raises `InvalidInput` for bars of another instrument or length, `LockHeldElsewhere` while
        another process appends to the series, `DamagedSeries`, and `OSError` where the disk
        refuses. Nothing is stored then.
        """
        _require_kin(name, candles)
        _naive(now)
        with self.writing([name]):
            prepared, appended = self.prepare(name, candles, now=now)
            if appended.new:
                path = self.root / name.folder / MANIFEST
                write_durably(path, encoded(prepared.to_json()))
            return appended

    def prepare(
        self, name: SeriesName, candles: Candles, *, now: datetime
    ) -> tuple[StoredSeries, Appended]:
        """Write the files of a longer series, and return the document that would name them.

        For whoever is `writing` the series; nobody reads the files before they are named. Raises as
        `append`.
        """
        _require_kin(name, candles)
        until = _naive(now) - np.timedelta64(name.interval)
        closed = int(np.searchsorted(candles.opened_at, until, side="right"))
        stored, kept = _read(self.root, name)
        offered = {"opened_at": candles.opened_at, **candles.numbers()}
        offered = {column: values[:closed] for column, values in offered.items()}
        known = 0 if kept is None else _agreeing(name, kept, offered)
        unclosed, new = len(candles) - closed, closed - known
        if new == 0:
            digest = None if kept is None else kept.digest
            appended = Appended(new=0, known=known, unclosed=unclosed, digest=digest)
            return stored or _nothing(name), appended
        added = {column: values[known:] for column, values in offered.items()}
        grown = _grown(name, kept, added)
        prepared = self._written(name, stored, grown, since=added["opened_at"][0])
        return prepared, Appended(new=new, known=known, unclosed=unclosed, digest=grown.digest)

    @contextmanager
    def writing(self, names: Sequence[SeriesName]) -> Iterator[None]:
        """Be the only one who writes these series; raises `LockHeldElsewhere`."""
        _make_folder(self.root)
        with ExitStack() as held:
            for name in sorted(names, key=str):
                folder = self.root / name.folder
                _make_folder(folder)
                held.enter_context(_locked(folder / ".lock", name))
            finish(self.root)
            yield

    def _written(
        self,
        name: SeriesName,
        stored: StoredSeries | None,
        grown: Candles,
        *,
        since: np.datetime64,
    ) -> StoredSeries:
        """Write the months from `since` on anew, and return what names them."""
        folder = self.root / name.folder
        months = {} if stored is None else dict(stored.months)
        # Not right after a commit: a reader may still be reading what was named before it.
        clear(self.root, name, stored)
        month_of = grown.opened_at.astype("datetime64[M]")
        for month in np.unique(month_of[month_of >= since.astype("datetime64[M]")]):
            content = _parquet(grown, month_of == month)
            sha256 = hashlib.sha256(content).hexdigest()
            write_durably(folder / month_file(str(month), sha256), content)
            months[str(month)] = sha256
        return StoredSeries(
            name=name,
            bars=len(grown),
            digest=grown.digest,
            months=months,
            report=grown.report.to_json(),
            features={} if stored is None else stored.features,
        )


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


def _nothing(name: SeriesName) -> StoredSeries:
    return StoredSeries(name=name, bars=0, digest="", months={}, report={})


def clear(root: Path, name: SeriesName, stored: StoredSeries | None) -> None:
    """Delete the files of a series that nothing names: neither it nor a version that is kept."""
    folder = root / name.folder
    named = set() if stored is None else set(stored.files)
    for document in kept_documents(root, name.folder.as_posix()):
        named |= series_of(document, where=folder).files
    for path in folder.iterdir():
        if path.suffix in (".parquet", ".part") and path.name not in named:
            path.unlink()


def _parquet(candles: Candles, chosen: np.ndarray[Any, Any]) -> bytes:
    times = pa.array(candles.opened_at[chosen], type=pa.timestamp("us")).cast(
        pa.timestamp("us", tz="UTC")
    )
    columns = {name: pa.array(values[chosen]) for name, values in candles.numbers().items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table({"opened_at": times, **columns}), buffer, compression="zstd")
    return buffer.getvalue()


def _stored(root: Path, name: SeriesName) -> StoredSeries | None:
    folder = name.folder.as_posix()
    document = document_of(root, folder)
    return None if document is None else series_of(document, where=root / folder)


def _read(root: Path, name: SeriesName) -> tuple[StoredSeries | None, Candles | None]:
    """Read what the store names; where somebody moved on meanwhile, what it names now."""
    folder = root / name.folder
    for _ in range(_READ_ATTEMPTS):
        stored = _stored(root, name)
        if stored is None:
            return None, None
        try:
            return stored, candles_of(root, stored)
        except FileNotFoundError as error:
            if _stored(root, name) == stored:
                raise DamagedSeries(f"{error.filename} is missing") from error
    raise DamagedSeries(f"{folder} changed {_READ_ATTEMPTS} times while it was read")


def candles_of(root: Path, stored: StoredSeries) -> Candles:
    """Read the candles that a document names, of whichever version.

    Raises `FileNotFoundError` for a file that is not there, and `DamagedSeries`.
    """
    folder, tables = root / stored.name.folder, []
    for month, sha256 in sorted(stored.months.items()):
        path = folder / month_file(month, sha256)
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
