"""Features as files of the candle store: what a night computed, so that later trainings agree.

A part holds the rows of the bars that a night brought, under the digest of their spec; the series'
document names it, so that it comes and goes with the bars it is of.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bandit.core.errors import BanditError
from learners.market.candles import Candles
from learners.market.features import Features, FeatureSpec, features_of
from learners.market.stored_series import DamagedSeries, StoredSeries, feature_file
from learners.market.validation import Floats, Times, instant


class FeaturesDiffer(BanditError):
    """What is computed of stored candles now is not what the pipeline stored of them."""

    code = "features_differ"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeaturePart:
    """The rows of some bars in a row as a Parquet file, and from which bar to which they are."""

    spec_digest: str
    content: bytes
    rows: int
    first: str
    last: str

    def told(self, sha256: str) -> dict[str, Any]:
        """Return what the series' document says of it."""
        return {"sha256": sha256, "rows": self.rows, "first": self.first, "last": self.last}


def part_after(features: Features, last: np.datetime64 | None) -> FeaturePart | None:
    """Return the rows of the bars that opened after `last`, or all; None where there are none.

    >>> from learners.market.candles import shipped_candles
    >>> candles = shipped_candles()
    >>> features = features_of(candles, FeatureSpec())
    >>> part_after(features, candles.opened_at[-3]).rows
    2
    """
    start = 0 if last is None else int(np.searchsorted(features.opened_at, last, side="right"))
    times = features.opened_at[start:]
    if not len(times):
        return None
    columns = {
        name: pa.array(features.values[start:, at]) for at, name in enumerate(features.names)
    }
    opened = pa.array(times, type=pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"opened_at": opened, **columns}), buffer, compression="zstd")
    return FeaturePart(
        spec_digest=features.spec_digest,
        content=buffer.getvalue(),
        rows=len(times),
        first=instant(times[0]).isoformat(),
        last=instant(times[-1]).isoformat(),
    )


def last_of(stored: StoredSeries | None, spec: FeatureSpec) -> np.datetime64 | None:
    """Return the opening of the newest bar whose features are stored; None where none are."""
    parts = {} if stored is None else stored.features.get(spec.digest, {})
    if not parts:
        return None
    newest = max(part["last"] for part in parts.values())
    return np.datetime64(newest.removesuffix("+00:00"), "us")


def parts_of(root: Path, stored: StoredSeries) -> Iterator[tuple[str, Times, Floats]]:
    """Yield the parts of a series: digest of the spec, openings of the bars, values.

    Raises `FileNotFoundError`, and `DamagedSeries` for a file that is not the one written.
    """
    for spec_digest, dates in stored.features.items():
        for date, part in dates.items():
            path = root / stored.name.folder / feature_file(spec_digest, date, part["sha256"])
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != part["sha256"]:
                raise DamagedSeries(f"{path} is not the file that was written")
            table = pq.read_table(pa.BufferReader(content))
            times = table["opened_at"].cast(pa.timestamp("us")).to_numpy()
            names = [name for name in table.column_names if name != "opened_at"]
            yield spec_digest, times, np.stack([table[n].to_numpy() for n in names], axis=1)


def require_same(root: Path, stored: StoredSeries, candles: Candles) -> int:
    """Compute the stored features of a series anew, and return how many rows agree to the last bit.

    Of the usual spec for bars of this length; of others nothing is said. Raises `FeaturesDiffer`
    with bar and feature, `DamagedSeries`, and `FileNotFoundError`.
    """
    spec = FeatureSpec(interval=candles.interval)
    if spec.digest not in stored.features:
        return 0
    computed, agreeing = features_of(candles, spec), 0
    for digest, times, values in parts_of(root, stored):
        if digest != spec.digest:
            continue
        places = np.searchsorted(computed.opened_at, times)
        found = computed.values[np.minimum(places, len(candles) - 1)]
        differs = (found.view(np.int64) != values.view(np.int64)) & ~(
            np.isnan(found) & np.isnan(values)
        )
        if differs.any():
            row, column = np.argwhere(differs)[0]
            raise FeaturesDiffer(
                f"{stored.name}: {computed.names[column]} of the bar of "
                f"{instant(times[row]).isoformat()} is stored as {values[row, column]!r}, "
                f"and {found[row, column]!r} now"
            )
        agreeing += len(times)
    return agreeing
