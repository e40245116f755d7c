"""One night of the data pipeline: what it works on, and what its stages leave for each other.

Below `home` lies `data/staging/DATE.ATTEMPT/`: what came, what was made of it, and the report of
each stage that is done, `STAGE.json`, written last. So a night that was killed goes on behind the
last stage that was done, with the very bars that came the first time.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bandit.core.data_runs import DataFact, DataStage, DataState
from bandit.core.errors import BanditError
from config.data import Data
from learners.durable_files import write_durably
from learners.market.candle_store import CandleStore
from learners.market.candles import Candles
from learners.market.feeds import COLUMNS, Feed, RawBars
from learners.market.stored_series import DamagedSeries, SeriesName


class DataRefused(BanditError):
    """A night's bars were not loaded; what was loaded before stays. `report` says what is wrong."""

    code = "data_refused"

    def __init__(self, message: str, *, report: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What a stage did, in numbers of bars, and what it says of it."""

    report: Mapping[str, Any]
    rows_in: int = 0
    rows_out: int = 0
    versions: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """The night of a date: it brings in every bar that closed by 00:00 UTC of it.

    `accepted` is why anomalies that stop the load are right nevertheless; None stops it.
    """

    day: date
    attempt: int
    feeds: Sequence[Feed]
    store: CandleStore
    home: Path
    archive: Path
    rule: Data
    accepted: str | None = None
    _kept: dict[SeriesName, Candles | None] = field(default_factory=dict)

    @property
    def until(self) -> datetime:
        """The close of the newest bar that belongs to this night."""
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)

    @property
    def folder(self) -> Path:
        """Where this attempt keeps what came."""
        return self.home / "staging" / f"{self.day}.{self.attempt}"

    def begin(self) -> None:
        """Make room, and clear away what earlier attempts at this night left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.folder.parent.glob(f"{self.day}.*"):
            if other != self.folder:
                shutil.rmtree(other)

    def end(self) -> None:
        """Clear away what is not needed when all is done."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def kept(self, name: SeriesName) -> Candles | None:
        """Return the candles of a series that are in the store; None where there are none."""
        if name not in self._kept:
            stored = self.store.stored(name)
            self._kept[name] = None if stored is None else self.store.load(name)
        return self._kept[name]

    def look_again(self) -> None:
        """Forget what was read of the store: it has changed."""
        self._kept.clear()

    def path_of(self, what: str, name: SeriesName) -> Path:
        """Return the file of this attempt that holds something of a series."""
        return self.folder / f"{what}.{quote(name.folder.as_posix(), safe='')}.parquet"

    def keep_raw(self, name: SeriesName, bars: RawBars) -> str:
        """Write down the bars as they came, and return the SHA-256 of the file."""
        times = pa.array(bars.opened_at.astype("datetime64[us]"), type=pa.timestamp("us"))
        columns = {name: pa.array(bars.numbers[name]) for name in COLUMNS}
        buffer = io.BytesIO()
        pq.write_table(pa.table({"opened_at": times, **columns}), buffer, compression="zstd")
        write_durably(self.path_of("raw", name), buffer.getvalue())
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def raw(self, name: SeriesName) -> RawBars | str:
        """Return the bars that came, or why none did; raises `DamagedSeries`."""
        told = self.done(DataStage.EXTRACT)
        assert told is not None
        series = told.report["series"][str(name)]
        if series["problem"] is not None:
            return str(series["problem"])
        path = self.path_of("raw", name)
        return raw_bars(path, sha256=series["sha256"])

    def done(self, stage: DataStage) -> DataFact | None:
        """Return what a stage of this attempt did; None where it is not done."""
        path = self.folder / f"{stage.value}.json"
        if not path.exists():
            return None
        told = json.loads(path.read_bytes())
        return DataFact(
            day=self.day,
            attempt=self.attempt,
            stage=stage,
            state=DataState.DONE,
            **{name: told[name] for name in _TOLD},
            began_at=datetime.fromisoformat(told["began_at"]),
            ended_at=datetime.fromisoformat(told["ended_at"]),
        )

    def fact(
        self,
        stage: DataStage,
        result: StageResult,
        *,
        state: DataState,
        began: datetime,
        ended: datetime,
    ) -> DataFact:
        """Return a stage that ended."""
        before, after = result.versions or (None, None)
        return DataFact(
            day=self.day,
            attempt=self.attempt,
            stage=stage,
            state=state,
            rows_in=result.rows_in,
            rows_out=result.rows_out,
            report=result.report,
            version_before=before,
            version_after=after,
            began_at=began,
            ended_at=ended,
        )

    def mark(self, fact: DataFact) -> None:
        """Write down that a stage is done."""
        told = {name: getattr(fact, name) for name in _TOLD}
        told |= {"began_at": fact.began_at.isoformat(), "ended_at": fact.ended_at.isoformat()}
        content = json.dumps(told, allow_nan=False, sort_keys=True).encode()
        write_durably(self.folder / f"{fact.stage.value}.json", content)


_TOLD = ("rows_in", "rows_out", "report", "version_before", "version_after")


def raw_bars(path: Path, *, sha256: str) -> RawBars:
    """Read bars as they came; raises `DamagedSeries` where they are not what was written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DamagedSeries(f"{path} is missing") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedSeries(f"{path} is not the file that was written")
    table = pq.read_table(pa.BufferReader(content))
    times = table["opened_at"].to_numpy().astype("datetime64[us]")
    numbers = {name: table[name].to_numpy().astype(np.float64) for name in COLUMNS}
    return RawBars(opened_at=times, numbers=numbers)
