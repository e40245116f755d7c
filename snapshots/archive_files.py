"""Archives of old decisions: Parquet files, each written once and never changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from bandit.core.errors import BanditError
from bandit.core.shadow import ShadowOutcome
from bandit.storage.archives import Archive, ArchivedBodies
from bandit.storage.outcomes import outcome_of
from bandit.storage.shadows import shadow_of
from snapshots.durable_files import appearing_whole

ROWS_AT_ONCE = 10_000

_MOMENT = pa.timestamp("us", tz="UTC")
# Money and returns as text: the exact decimals have no float to hide in.
SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("unit_id", pa.string()),
        ("assignment_id", pa.string()),
        ("instrument", pa.string()),
        ("policy", pa.string()),
        ("mode", pa.string()),
        ("role", pa.string()),
        ("allocation_version", pa.int64()),
        ("epoch", pa.int64()),
        ("propensity", pa.float64()),
        ("position_id", pa.string()),
        ("is_fallback", pa.bool_()),
        ("size_multiplier", pa.float64()),
        ("confidence_bump", pa.float64()),
        ("context", pa.string()),
        ("proposed_actions", pa.string()),
        ("decided_at", _MOMENT),
        ("expires_at", _MOMENT),
        ("claimed_at", _MOMENT),
        ("revision", pa.int32()),
        ("no_trade", pa.bool_()),
        ("pnl", pa.string()),
        ("return_ratio", pa.string()),
        ("r_multiple", pa.string()),
        ("fees", pa.string()),
        ("slippage", pa.string()),
        ("size", pa.string()),
        ("worst_excursion", pa.string()),
        ("opened_at", _MOMENT),
        ("closed_at", _MOMENT),
        ("expired", pa.bool_()),
        ("unclaimed", pa.bool_()),
        ("recorded_at", _MOMENT),
        ("revised_by", pa.string()),
        ("revision_reason", pa.string()),
        ("worst_marked_pnl", pa.string()),
        ("worst_marked_at", _MOMENT),
        ("superseded", pa.string()),
        ("shadows", pa.string()),
    ]
)
_DECIMALS = ("pnl", "return_ratio", "r_multiple", "fees", "slippage", "size", "worst_excursion")
_REMEDY = "put it back, or give it up with --abandon"
_BODIES = ["assignment_id", "no_trade", "opened_at", "closed_at", *_DECIMALS, "shadows"]


class ArchiveDamaged(BanditError):
    """The file of an archive is not what was registered, or is gone."""

    code = "archive_damaged"


class ArchiveNotWritten(BanditError):
    """An archive could not be written; nothing left the ledger for it."""

    code = "archive_not_written"


class ParquetArchives:
    """Archives as Parquet files in one directory."""

    def __init__(self, directory: Path) -> None:
        """Keep archives in `directory`, which need not be there yet."""
        self._directory = directory

    def write(self, name: str, rows: Iterable[Mapping[str, Any]]) -> tuple[bytes, int]:
        """Write `rows` to a new file; return its SHA-256 and how many they were.

        The file is there, complete and on disk, or not at all. Raises `ArchiveNotWritten`.
        """
        path = self._directory / name
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with appearing_whole(path) as part:
                n_rows = _write(part, rows)
                sha256 = _sha256(part)
        except OSError as error:
            raise ArchiveNotWritten(f"{path} could not be written: {error}") from error
        return sha256, n_rows

    def sha256(self, name: str) -> bytes | None:
        """Return the SHA-256 of an archive's file; None where there is none that can be read."""
        try:
            return _sha256(self._directory / name)
        except OSError:
            return None

    def body_hashes(self, archive: Archive) -> Iterator[tuple[UUID, ArchivedBodies]]:
        """Return each decision in the file with the hashes of its results as the file tells them.

        Raises `ArchiveDamaged`.
        """
        path = self._directory / archive.name
        found = self.sha256(archive.name)
        if found is None:
            raise ArchiveDamaged(f"{path}: the archive's file is gone; {_REMEDY}")
        if found != archive.sha256:
            message = f"{path}: its SHA-256 is {found.hex()}, not the registered one; {_REMEDY}"
            raise ArchiveDamaged(message)
        with pq.ParquetFile(path) as file:
            # A file that an older release wrote knows of no results on paper.
            columns = [name for name in _BODIES if name in file.schema_arrow.names]
            for block in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                for row in block.to_pylist():
                    yield UUID(row["assignment_id"]), _bodies(row)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    n_rows, left = 0, iter(rows)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while block := list(islice(left, ROWS_AT_ONCE)):
            writer.write_table(_table(block))
            n_rows += len(block)
    path.chmod(0o600)
    return n_rows


def _bodies(row: dict[str, Any]) -> ArchivedBodies:
    key = UUID(row["assignment_id"])
    outcome = None
    if row["no_trade"] is not None:
        decimals = {name: None if row[name] is None else Decimal(row[name]) for name in _DECIMALS}
        outcome = outcome_of(row | decimals | {"assignment_id": key}).body_hash()
    told = json.loads(row.get("shadows") or "[]")
    return ArchivedBodies(outcome, frozenset(_shadow(key, one).body_hash() for one in told))


def _shadow(key: UUID, told: dict[str, Any]) -> ShadowOutcome:
    moments = {
        name: datetime.fromisoformat(told[name]).astimezone(UTC)
        for name in ("opened_at", "closed_at")
    }
    earned = Decimal(told["return_ratio"])
    return shadow_of(told | moments | {"assignment_id": key, "return_ratio": earned})


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = [
        pa.array([_value(row[field.name]) for row in rows], type=field.type) for field in SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _value(value: Any) -> Any:
    match value:
        case Decimal():
            return f"{value:f}"
        case UUID():
            return str(value)
        case dict() | list():
            return json.dumps(value, sort_keys=True)
        case _:
            return value


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
