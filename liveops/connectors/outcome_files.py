"""Outcomes from CSV and Parquet files, row by row: a file may be larger than memory."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import UUID

from bandit.core.errors import InvalidInput
from bandit.core.outcomes import Outcome, declined, trade
from liveops.connectors.logged_trade import flag, instant, money
from liveops.connectors.parquet_cells import rows_of

AMOUNTS: Final = ("pnl", "return", "fees", "slippage", "size", "r_multiple", "worst_excursion")
TIMES: Final = ("opened_at", "closed_at")
COLUMNS: Final = ("assignment_id", "no_trade", *AMOUNTS[:2], *TIMES, *AMOUNTS[2:])
"""The fields of `POST /v1/outcomes`, under the same names."""

_ROWS_AT_ONCE = 1000
_CELL_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """What one row of a file tells, or why it tells nothing; `line` counts as an editor does.

    In Parquet, which has no lines, it counts rows from 1. `share` is how much of the file is read.
    """

    line: int
    told: Outcome | InvalidInput
    share: float


def outcome_rows(path: Path) -> Iterator[FileRow]:
    """Yield the rows of a `.csv`, `.csv.gz` or `.parquet` file.

    A row that breaks a rule is told as such, and the next ones follow. Raises `InvalidInput` for a
    file that cannot be read, and for columns without a meaning: a misspelt one would lose money.
    """
    suffix = path.name.lower()
    try:
        if suffix.endswith((".csv", ".csv.gz")):
            yield from _csv_rows(path)
        elif suffix.endswith(".parquet"):
            yield from _parquet_rows(path)
        else:
            rule = "must end in .csv, .csv.gz or .parquet"
            raise InvalidInput(field=path.name, rule=rule, found=path.suffix or "no suffix")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidInput(field=path.name, rule="must be a readable file", found=error) from error


def outcome_of(cells: Mapping[str, object]) -> Outcome:
    """Return the outcome that a row's cells tell: text, numbers, times or None.

    >>> row = {"assignment_id": "01234567-89ab-8def-8123-456789abcdef", "no_trade": "true"}
    >>> outcome_of(row).no_trade
    True

    Raises `InvalidInput` naming the column and the rule.
    """
    assignment_id = _uuid(cells.get("assignment_id"))
    if flag(cells.get("no_trade"), field="no_trade"):
        for name in (*AMOUNTS, *TIMES):
            if cells.get(name) is not None:
                rule = "must be left out when no_trade is true"
                raise InvalidInput(field=name, rule=rule, found=cells[name])
        return declined(assignment_id)
    required = ("pnl", "return", *TIMES)
    for name in required:
        if cells.get(name) is None:
            rule = "is required unless no_trade is true"
            raise InvalidInput(field=name, rule=rule, found="nothing")
    amounts: dict[str, Decimal | None] = {n: money(cells.get(n), field=n) for n in AMOUNTS}
    opened_at, closed_at = (instant(cells.get(name), field=name) for name in TIMES)
    pnl, earned = amounts.pop("pnl"), amounts.pop("return")
    assert pnl is not None
    assert earned is not None
    assert opened_at is not None
    assert closed_at is not None
    return trade(
        assignment_id,
        pnl=pnl,
        return_ratio=earned,
        opened_at=opened_at,
        closed_at=closed_at,
        **amounts,
    )


def _csv_rows(path: Path) -> Iterator[FileRow]:
    size = max(path.stat().st_size, 1)
    with path.open("rb") as file, _text(path, file) as text:
        reader = csv.reader(text, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            _check_columns(header)
            for cells in reader:
                if cells:
                    told = _told_by_cells(header, cells)
                    yield FileRow(line=reader.line_num, told=told, share=file.tell() / size)
        except csv.Error as error:
            where = f"line {reader.line_num}"
            raise InvalidInput(field=where, rule="must be CSV", found=error) from error


@contextmanager
def _text(path: Path, file: io.BufferedReader) -> Iterator[io.TextIOWrapper]:
    unpacked = gzip.GzipFile(fileobj=file) if path.name.lower().endswith(".gz") else file
    with io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="") as text:
        yield text


def _told_by_cells(header: list[str], cells: list[str]) -> Outcome | InvalidInput:
    if len(cells) != len(header):
        rule = f"must have {len(header)} cells"
        return InvalidInput(field="row", rule=rule, found=len(cells))
    if max(map(len, cells)) > _CELL_CHARACTERS_MAX:
        rule = f"must have at most {_CELL_CHARACTERS_MAX} characters a cell"
        return InvalidInput(field="row", rule=rule, found="more")
    return _told({name: cell.strip() or None for name, cell in zip(header, cells, strict=True)})


def _told(cells: Mapping[str, object]) -> Outcome | InvalidInput:
    try:
        return outcome_of(cells)
    except InvalidInput as error:
        return error


def _parquet_rows(path: Path) -> Iterator[FileRow]:
    # Imported here: it takes longer to load than most files take to read.
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(list(file.schema_arrow.names))
            count, line = max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for cells in rows_of(batch):
                    line += 1
                    yield FileRow(line=line, told=_told(cells), share=line / count)
    except pyarrow.ArrowException as error:
        raise InvalidInput(field=path.name, rule="must be Parquet", found=error) from error


def _check_columns(names: list[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or "assignment_id" not in names or len(set(names)) < len(names):
        raise InvalidInput(
            field="columns",
            rule=f"must be assignment_id and others of {', '.join(COLUMNS)}, each once",
            found=", ".join(unknown or names) or "an empty file",
        )


def _uuid(value: object) -> UUID:
    text = str(value)
    try:
        found = UUID(text)
    except ValueError:
        found = None
    if found is None or str(found) != text.lower():
        shown = "nothing" if value is None else value
        raise InvalidInput(field="assignment_id", rule="must be a UUID", found=shown)
    return found
