"""Export the ledger to files that any tool reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine

from bandit.core.errors import InvalidInput
from bandit.service.ledger import read_tables
from snapshots.formats import ExportFormat

ROWS_AT_ONCE = 10_000


def export_ledger(engine: Engine, directory: Path, *, form: ExportFormat) -> list[tuple[Path, int]]:
    """Write every canonical table into a new directory and return the files with their rows.

    All tables are read in one snapshot. Money and returns stay exact: they are written as decimal
    text. Raises `InvalidInput` when the directory exists and is not empty.
    """
    if directory.exists() and any(directory.iterdir()):
        rule = "must be a new or empty directory"
        raise InvalidInput(field="directory", rule=rule, found=directory)
    directory.mkdir(parents=True, exist_ok=True)
    written: list[tuple[Path, int]] = []

    def write(table: str, columns: list[str], rows: Iterator[tuple[object, ...]]) -> None:
        path = directory / f"{table}.{form.value}"
        save = _write_parquet if form is ExportFormat.PARQUET else _write_csv
        written.append((path, save(path, columns, rows)))

    read_tables(engine, write)
    return written


def _write_csv(path: Path, columns: list[str], rows: Iterator[tuple[object, ...]]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for count, row in enumerate(rows, start=1):  # noqa: B007 - the last count is the result
            writer.writerow([_text(value) for value in row])
    return count


def _write_parquet(path: Path, columns: list[str], rows: Iterator[tuple[object, ...]]) -> int:
    # Every column as text: the exact decimals of money have no float to hide in.
    schema = pa.schema([pa.field(name, pa.string()) for name in columns])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        while block := list(islice(rows, ROWS_AT_ONCE)):
            arrays = [[_text(row[i]) for row in block] for i in range(len(columns))]
            writer.write_table(pa.table(arrays, schema=schema))
            count += len(block)
    return count


def _text(value: object) -> str | None:
    match value:
        case None:
            return None
        case Decimal():
            return f"{value:f}"
        case datetime() | date():
            return value.isoformat()
        case dict() | list():
            return json.dumps(value, sort_keys=True)
        case float():
            return repr(value)
        case _:
            return str(value)
