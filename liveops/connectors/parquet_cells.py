"""Rows of Parquet files as Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


def rows_of(batch: pyarrow.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a batch; times are cut to the microseconds that `datetime` has.

    A time that Python cannot hold, such as one of the year 294247 or in a zone that nobody knows,
    is told as text, so that it is refused in its own row.
    """
    cut = _in_microseconds(batch)
    try:
        rows: list[dict[str, Any]] = cut.to_pylist()
    except (OverflowError, LookupError):
        columns = [[_told(cell) for cell in column] for column in cut.columns]
        return [
            dict(zip(cut.schema.names, cells, strict=True)) for cells in zip(*columns, strict=True)
        ]
    return rows


def _in_microseconds(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    # Imported here: it takes longer to load than most files take to read.
    import pyarrow

    for index, column in enumerate(batch.schema):
        # Only what is finer is cast: years that are coarser would wrap round, unseen.
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            coarse = pyarrow.timestamp("us", column.type.tz)
            cut = batch.column(index).cast(coarse, safe=False)
            batch = batch.set_column(index, column.name, cut)
    return batch


def _told(cell: pyarrow.Scalar) -> object:
    try:
        return cell.as_py()
    except (OverflowError, LookupError):
        return f"{cell.value} as {cell.type}"
