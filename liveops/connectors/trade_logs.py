"""Trade logs from files: our own CSV or Parquet, and freqtrade backtest results (JSON or zip).

A file is data from outside: its size is bounded, every field is checked, and a row that breaks a
rule is named.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

from bandit.core.errors import InvalidInput
from liveops.connectors.freqtrade_backtest import backtest_log, is_backtest_result
from liveops.connectors.logged_trade import (
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    TRADES_MAX,
    AccountLog,
    LoggedTrade,
    TradeLog,
    trade_from_row,
)
from liveops.connectors.parquet_cells import rows_of

__all__ = ["AccountLog", "LoggedTrade", "TradeLog", "load_trades"]

FILE_BYTES_MAX: Final = 256 * 1024 * 1024  # unpacked; a year of trades is a few megabytes


def load_trades(path: Path) -> TradeLog:
    """Read `.csv`, `.parquet`, `.json` (also `.csv.gz`, `.json.gz`) or `.zip`.

    The formats are described in docs/definitions.md. Raises `InvalidInput` naming line (or trade),
    field and rule, and for a file that is missing, too large or damaged.
    """
    suffix = path.name.lower()
    try:
        if suffix.endswith((".csv", ".csv.gz")):
            return _from_csv(_text(path))
        if suffix.endswith((".json", ".json.gz")):
            return backtest_log(_json(_text(path), name=path.name))
        if suffix.endswith(".zip"):
            return backtest_log(_backtest_in_zip(path))
        if suffix.endswith(".parquet"):
            return _from_parquet(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InvalidInput(field=path.name, rule="must be a readable file", found=error) from error
    raise InvalidInput(
        field=path.name,
        rule="must end in .csv, .csv.gz, .parquet, .json, .json.gz or .zip",
        found=path.suffix or "no suffix",
    )


def _text(path: Path) -> str:
    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as unpacked:
            return _bounded_text(unpacked, name=path.name)
    with path.open("rb") as file:
        return _bounded_text(file, name=path.name)


def _checked_size(size: int, *, name: str) -> None:
    if size > FILE_BYTES_MAX:
        raise InvalidInput(
            field=name, rule=f"must not exceed {FILE_BYTES_MAX} bytes unpacked", found="more"
        )


def _bounded_text(file: IO[bytes] | gzip.GzipFile, *, name: str) -> str:
    data = file.read(FILE_BYTES_MAX + 1)
    _checked_size(len(data), name=name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(field=name, rule="must be UTF-8 text", found=error) from error


def _from_csv(text: str) -> TradeLog:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    trades: list[LoggedTrade] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        ignored = _checked_header(header)
        for cells in reader:
            where = f"line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise InvalidInput(
                    field=where, rule=f"must have {len(header)} cells", found=len(cells)
                )
            raw = {name: cell.strip() or None for name, cell in zip(header, cells, strict=True)}
            trades.append(trade_from_row(raw, where=where, row=len(trades) + 1))
    except csv.Error as error:
        where = f"line {reader.line_num}"
        raise InvalidInput(field=where, rule="must be CSV", found=error) from error
    return TradeLog(accounts=(AccountLog(trades=tuple(trades)),), ignored_columns=ignored)


def _checked_header(header: list[str]) -> tuple[str, ...]:
    """The columns that mean nothing here."""
    if not set(REQUIRED_COLUMNS) <= set(header):
        raise InvalidInput(
            field="header",
            rule=f"must have the columns {' and '.join(REQUIRED_COLUMNS)}",
            found=", ".join(header) or "an empty file",
        )
    if len(set(header)) < len(header):
        raise InvalidInput(
            field="header", rule="must name no column twice", found=", ".join(header)
        )
    return tuple(name for name in header if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS)


def _from_parquet(path: Path) -> TradeLog:
    # Imported here: it takes longer to load than most logs take to evaluate.
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names, count = list(file.schema_arrow.names), file.metadata.num_rows
            ignored = _checked_header(names)
            if count > TRADES_MAX:
                raise InvalidInput(
                    field="trades", rule=f"must be at most {TRADES_MAX}", found=count
                )
            table = file.read(columns=[name for name in names if name not in ignored])
    except pyarrow.ArrowException as error:
        raise InvalidInput(field=path.name, rule="must be Parquet", found=error) from error
    rows = (raw for batch in table.to_batches(max_chunksize=10_000) for raw in rows_of(batch))
    trades = tuple(
        trade_from_row(raw, where=f"row {row}", row=row) for row, raw in enumerate(rows, start=1)
    )
    return TradeLog(accounts=(AccountLog(trades=trades),), ignored_columns=ignored)


def _json(text: str, *, name: str) -> object:
    try:
        # Numbers stay text: money is read exactly, and a NaN among the metrics, which nobody
        # reads, refuses nothing.
        return json.loads(text, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(field=name, rule="must be JSON", found=error) from error


def _backtest_in_zip(path: Path) -> object:
    """The one backtest result among the members; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".json")]
            # zipfile never reads more of a member than its entry declares.
            _checked_size(sum(member.file_size for member in members), name=path.name)
            contents = []
            for member in members:
                with archive.open(member) as unpacked:
                    contents.append(_json(_bounded_text(unpacked, name=path.name), name=path.name))
    # zipfile raises RuntimeError for a password and for a compression it does not know.
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise InvalidInput(field=path.name, rule="must be a readable zip", found=error) from error
    results = [content for content in contents if is_backtest_result(content)]
    if len(results) != 1:
        raise InvalidInput(
            field=path.name, rule="must hold one freqtrade backtest result", found=len(results)
        )
    return results[0]
