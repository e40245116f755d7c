"""Candle files: from CSV, Parquet or feather, as exchanges write them, to bare columns."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput

PRICE_COLUMNS = ("open", "high", "low", "close")
TIME_COLUMNS = ("opened_at", "open_time", "ts_ms", "timestamp", "unix", "date", "time")

# Ticks a second. From 2000 to 2100 the three do not overlap: the size of a number tells its unit.
_EPOCH_SCALES = (1, 1_000, 1_000_000)
_EPOCH_2000, _EPOCH_2100 = 946_684_800, 4_102_444_800
_CRYPTO_DATA_DOWNLOAD = r"\d{4}-\d{2}-\d{2} \d{2}-[AP]M"
_UTC_OFFSET = r"(?:Z|[+-]\d{2}:?\d{2})$"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleColumns:
    """The columns of a candle file in its own order, not yet checked; times are open times, UTC."""

    symbol: str | None
    opened_at: NDArray[np.datetime64]
    numbers: Mapping[str, NDArray[np.float64]]


def read_columns(path: Path, *, instrument: str | None = None) -> CandleColumns:
    """Read a candle file by its suffix: `.csv`, `.csv.gz`, `.parquet` or `.feather`.

    Times without an offset are read as UTC. Raises `InvalidInput`, which names the file, the column
    and the rule, for a file that cannot be read, missing or ambiguous columns, and cells that are
    no time or no number.
    """
    frame = _read_frame(path)
    frame.columns = pd.Index(
        [str(name).strip().lower().replace(" ", "_") for name in frame.columns]
    )
    known = list(frame.columns)
    doubled = sorted({name for name in known if known.count(name) > 1})
    if doubled:
        raise _refused(path, "columns", "must each appear once", ", ".join(doubled))
    time = next((name for name in TIME_COLUMNS if name in known), None)
    if time is None:
        raise _refused(
            path, "columns", f"must name the time ({'|'.join(TIME_COLUMNS)})", ", ".join(known)
        )
    symbol = _symbol(path, frame)
    volume = _volume_column(known, instrument or symbol)
    missing = [name for name in (*PRICE_COLUMNS, volume) if name not in known]
    if missing:
        raise _refused(path, "columns", f"must include {', '.join(missing)}", ", ".join(known))
    numbers = {name: _numbers(path, frame[name]) for name in PRICE_COLUMNS}
    return CandleColumns(
        symbol=symbol,
        opened_at=_times(path, frame[time]),
        numbers=numbers | {"volume": _numbers(path, frame[volume])},
    )


def _refused(path: Path, column: str, rule: str, found: object) -> InvalidInput:
    return InvalidInput(field=f"{path.name}: {column}", rule=rule, found=found)


def _read_frame(path: Path) -> pd.DataFrame:
    name = path.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz")):
            return _read_csv(path)
        if name.endswith(".parquet"):
            frame = pd.read_parquet(path)
        elif name.endswith(".feather"):
            frame = pd.read_feather(path)
        else:
            raise _refused(
                path, "name", "must end in .csv, .csv.gz, .parquet or .feather", path.name
            )
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException) as error:
        raise _refused(
            path, "file", "must be readable", f"{type(error).__name__}: {error}"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _refused(path, "file", "must be a CSV table", str(error).strip()) from error
    if isinstance(frame.index, pd.DatetimeIndex):
        return frame.reset_index(names=frame.index.name or "time")
    return frame


def _read_csv(path: Path) -> pd.DataFrame:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw).decode("utf-8-sig")
    lines = text.split("\n", 2)
    # CryptoDataDownload writes one line about itself above the header.
    preface = not _is_header(lines[0]) and len(lines) > 1 and _is_header(lines[1])
    frame = pd.read_csv(io.StringIO(text), skiprows=1 if preface else 0)
    if not isinstance(frame.index, pd.RangeIndex):
        raise _refused(path, "file", "must have as many fields in a line as in the header", "more")
    return frame


def _is_header(line: str) -> bool:
    return set(PRICE_COLUMNS) <= {name.strip().lower() for name in line.split(",")}


def _symbol(path: Path, frame: pd.DataFrame) -> str | None:
    if "symbol" not in frame.columns or frame.empty:
        return None
    symbols = sorted({str(value) for value in frame["symbol"].unique()})
    if len(symbols) > 1:
        raise _refused(path, "symbol", "must be one instrument a file", ", ".join(symbols))
    return symbols[0]


def _volume_column(known: list[str], instrument: str | None) -> str:
    """`volume_btc` before `volume` for BTCUSD: there the plain name is the turnover in dollars."""
    if instrument is not None:
        for name in known:
            base = name.removeprefix("volume_")
            if base != name and base and instrument.lower().startswith(base):
                return name
    return "volume"


def _numbers(path: Path, column: pd.Series) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce")
    bad = (numbers.isna() & column.notna()).to_numpy(dtype=bool)
    if bad.any():
        row = int(bad.argmax())
        raise _refused(
            path,
            str(column.name),
            "must be a number",
            f"{column.iloc[row]!r} in data row {row + 1}",
        )
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _times(path: Path, column: pd.Series) -> NDArray[np.datetime64]:
    name = str(column.name)
    if column.empty:
        return np.empty(0, dtype="datetime64[us]")
    if column.isna().any():
        row = int(column.isna().to_numpy(dtype=bool).argmax())
        raise _refused(path, name, "must be a time", f"an empty cell in data row {row + 1}")
    if pd.api.types.is_integer_dtype(column):
        return _epochs(path, name, column.to_numpy(dtype=np.int64))
    if pd.api.types.is_datetime64_any_dtype(column):
        return _utc(pd.to_datetime(column, utc=True))
    text = column.astype(str).str.strip()
    if text.str.fullmatch(_CRYPTO_DATA_DOWNLOAD).all():
        parsed = pd.to_datetime(text, format="%Y-%m-%d %I-%p", errors="coerce", utc=True)
    else:
        parsed = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    if parsed.isna().any():
        row = int(parsed.isna().to_numpy(dtype=bool).argmax())
        rule = "must be ISO 8601, epoch s, ms or us, or `2019-10-17 09-AM`"
        raise _refused(path, name, rule, f"{text.iloc[row]!r} in data row {row + 1}")
    offsets = text.str.contains(_UTC_OFFSET, regex=True)
    if offsets.any() and not offsets.all():
        found = text[~offsets].iloc[0]
        raise _refused(path, name, "must have a UTC offset in every row or in none", found)
    return _utc(parsed)


def _utc(times: pd.Series) -> NDArray[np.datetime64]:
    naive: NDArray[np.datetime64] = times.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    return naive


def _epochs(path: Path, name: str, epochs: NDArray[np.int64]) -> NDArray[np.datetime64]:
    first, last = epochs.min(), epochs.max()
    for scale in _EPOCH_SCALES:
        if first >= _EPOCH_2000 * scale and last < _EPOCH_2100 * scale:
            return (epochs * (1_000_000 // scale)).view("datetime64[us]")
    rule = "must be epoch s, ms or us of 2000 to 2100, one unit a file"
    raise _refused(path, name, rule, f"{first} to {last}")
