"""Formats a ledger can be exported to."""

from __future__ import annotations

from enum import StrEnum


class ExportFormat(StrEnum):
    """How the tables of an export are written."""

    PARQUET = "parquet"
    CSV = "csv"
