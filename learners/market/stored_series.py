"""What the candle store says of a series: its name, and the document `series.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bandit.core.errors import BanditError, InvalidInput
from learners.market.intervals import interval_text

MANIFEST = "series.json"
FORMAT = 1
_SOURCE, _INSTRUMENT = r"[a-z0-9][a-z0-9_.-]{0,62}", r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,62}"

Document = Mapping[str, Any]


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
        for part, pattern in (("source", _SOURCE), ("instrument", _INSTRUMENT)):
            name = getattr(self, part)
            if re.fullmatch(pattern, name, flags=re.ASCII) is None:
                raise InvalidInput(field=part, rule=f"must match {pattern}", found=name)
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
class StoredSeries:
    """What `series.json` says: `digest` is that of the candles, `months` SHA-256 by month.

    `features` has, for each feature spec by its digest, the parts that the nights of the pipeline
    made, by date: `sha256`, `rows`, and the opening of the `first` and `last` bar.
    """

    name: SeriesName
    bars: int
    digest: str
    months: dict[str, str]
    report: dict[str, Any]
    features: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

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
            "features": self.features,
        }

    @property
    def files(self) -> frozenset[str]:
        """Return the names of the files that it names."""
        parts = (
            feature_file(spec, date, part["sha256"])
            for spec, dates in self.features.items()
            for date, part in dates.items()
        )
        months = (month_file(month, sha256) for month, sha256 in self.months.items())
        return frozenset((*months, *parts))


def month_file(month: str, sha256: str) -> str:
    """Return the name of the file of a month's bars.

    >>> month_file("2026-03", "5ca1ab1e" * 8)
    '2026-03.5ca1ab1e5ca1ab1e.parquet'
    """
    return f"{month}.{sha256[:16]}.parquet"


def feature_file(spec_digest: str, date: str, sha256: str) -> str:
    """Return the name of the file of the features that the night of a date made.

    >>> feature_file("aa210ba0fc23" * 4, "2026-03-01", "5ca1ab1e" * 8)
    'features.aa210ba0fc23aa21.2026-03-01.5ca1ab1e5ca1ab1e.parquet'
    """
    return f"features.{spec_digest[:16]}.{date}.{sha256[:16]}.parquet"


def encoded(document: Document) -> bytes:
    """Return a document as it lies in the store."""
    return f"{json.dumps(document, indent=2, allow_nan=False)}\n".encode()


def series_of(document: Document, *, where: Path) -> StoredSeries:
    """Read what `to_json` wrote; raises `DamagedSeries` for anything else."""
    try:
        if document["format"] != FORMAT:
            raise DamagedSeries(f"{where} has format {document['format']!r}, {FORMAT} is known")
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
            features=document.get("features", {}),
        )
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise DamagedSeries(f"{where} cannot be read: {error!r}") from error
