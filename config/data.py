"""The nightly data pipeline: which bars it brings in, and what it lets pass."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from config.section import Count, Number, Section, setting

StoredName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,62}$")]
"""An instrument, as the candle store names it."""

SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
"""Where candles came from, as the candle store names it."""

Interval = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}[smhdw]$")]
"""Length of a bar."""


class FeedEntry(Section):
    """One series: its bars come either from files or from an exchange."""

    instrument: StoredName = setting(..., meaning="Instrument, such as BTC/USDT.", unit="name")
    interval: Interval = setting(
        "1h", meaning="Length of a bar, such as 5m or 1h.", unit="number and s, m, h, d or w"
    )
    files: Path | None = setting(
        None,
        meaning="Candle files: one, a pattern such as /data/BTC-*.csv.gz, or a directory.",
        unit="path",
    )
    exchange: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,40}$")] | None = (
        setting(None, meaning="Exchange to fetch from, by its ccxt name.", unit="name")
    )
    source: SourceName | None = setting(
        None, meaning="Its name in the candle store; empty: the exchange's, or file.", unit="name"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.files is None) == (self.exchange is None):
            raise PydanticCustomError("one_origin", "must have either files or exchange")
        return self

    @property
    def named(self) -> tuple[str, str, str]:
        """What tells it from other feeds: source, instrument and interval."""
        return self.source or self.exchange or "file", self.instrument, self.interval


def _each_once(entries: tuple[FeedEntry, ...]) -> tuple[FeedEntry, ...]:
    if len({entry.named for entry in entries}) < len(entries):
        raise ValueError("must name each series once")
    return entries


class Data(Section):
    """The nightly data pipeline (docs/data-pipeline.md)."""

    feeds: Annotated[tuple[FeedEntry, ...], AfterValidator(_each_once)] = setting(
        (), meaning="The series that each night brings in.", unit="list of feeds"
    )
    exchange_options_file: Path | None = setting(
        None, meaning="JSON file with options of ccxt, such as proxies.", unit="path"
    )
    history_days: Count = setting(
        730, meaning="So far back a new series of an exchange begins.", unit="days", ge=1, le=10_000
    )
    missing_max: Number = setting(
        0.05,
        meaning="A night's load may lack so much of the bars due.",
        unit="fraction",
        ge=0,
        lt=1,
    )
    anomalies_block: Literal["critical", "warning", "never"] = setting(
        "critical", meaning="Anomalies of this severity, or worse, stop the load.", unit="name"
    )
    archive_dir: Path | None = setting(
        None, meaning="Directory of what came, by date; empty is under `home`.", unit="path"
    )
    archive_days: Count = setting(
        365, meaning="So long what came is kept there.", unit="days", ge=1, le=36_500
    )
    rollback_days: Count = setting(
        30, meaning="So long a night's load can be rolled back.", unit="days", ge=1, le=3650
    )
    sla_minutes: Count = setting(
        120, meaning="A night's work takes so long at most.", unit="minutes", ge=1, le=1440
    )
