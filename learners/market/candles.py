"""Candles: what a market did, bar by bar, checked before anything is decided on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.market.candle_files import PRICE_COLUMNS, read_columns

Times = NDArray[np.datetime64]
Floats = NDArray[np.float64]

SHIPPED_FILE = Path(__file__).parent / "data" / "btcusd_1h.csv.gz"


class FindingKind(StrEnum):
    """What can be wrong with a series of candles."""

    TOO_FEW = "too_few"
    DUPLICATE = "duplicate"
    DISORDER = "disorder"
    IRREGULAR = "irregular"
    GAP = "gap"
    NOT_FINITE = "not_finite"
    NOT_POSITIVE = "not_positive"
    OUTSIDE_BAR = "outside_bar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of fault in one column: how often, and where first."""

    kind: FindingKind
    column: str
    rule: str
    found: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What was seen in a series of candles; `interval` is its most frequent spacing."""

    bars: int
    first: datetime | None
    last: datetime | None
    interval: timedelta | None
    findings: tuple[Finding, ...]

    def refuse(self, *, source: str, allow_gaps: bool) -> None:
        """Raise `InvalidInput` for the first finding; gaps alone pass where they are allowed."""
        for finding in self.findings:
            if allow_gaps and finding.kind is FindingKind.GAP:
                continue
            raise InvalidInput(
                field=f"{source}: {finding.column}", rule=finding.rule, found=finding.found
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candles:
    """One instrument's bars in time order; every array has one entry a bar and cannot be written.

    `opened_at` is the open time in UTC, prices are in quote currency, `volume` in base currency;
    `interval` is the most frequent spacing. `digest` names the content: equal digests, equal bars.
    Raises `InvalidInput` for what `examine` finds, gaps excepted.
    """

    instrument: str
    opened_at: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    interval: timedelta = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        report = examine(self.opened_at, self.numbers())
        report.refuse(source=self.instrument, allow_gaps=True)
        for name, values in {"opened_at": self.opened_at, **self.numbers()}.items():
            kept = values.copy()
            kept.flags.writeable = False
            object.__setattr__(self, name, kept)
        object.__setattr__(self, "interval", report.interval)
        object.__setattr__(self, "digest", self._content_digest())

    def __len__(self) -> int:
        """Return the number of bars."""
        return len(self.opened_at)

    def numbers(self) -> dict[str, Floats]:
        """Return the float columns by name."""
        return {name: getattr(self, name) for name in (*PRICE_COLUMNS, "volume")}

    def opening(self, bar: int) -> datetime:
        """Return when a bar opens, aware UTC."""
        return _aware(self.opened_at[bar])

    def closing(self, bar: int) -> datetime:
        """Return when a bar is complete and may be decided on, aware UTC."""
        return self.opening(bar) + self.interval

    def last_nights(self, nights: int) -> range:
        """Return the bars that close within the last `nights` times 24 hours of the series."""
        start = self.opened_at[-1] - np.timedelta64(timedelta(days=nights))
        return range(int(np.searchsorted(self.opened_at, start, side="right")), len(self))

    def _content_digest(self) -> str:
        digest = hashlib.sha256(f"{self.instrument}|{self.interval.total_seconds()}|".encode())
        digest.update(self.opened_at.astype("<i8").tobytes())
        for array in self.numbers().values():
            digest.update(array.astype("<f8").tobytes())
        return digest.hexdigest()


def load_candles(
    path: Path, *, instrument: str | None = None, allow_gaps: bool = False, bars_min: int = 2
) -> Candles:
    """Read and check a candle file: CSV (also gzipped, newest first or last), Parquet or feather.

    The instrument is the one given, else the file's `symbol` column, else the file name up to its
    first dot. Gaps are refused unless allowed; then the series simply goes on later, nothing is
    filled in. Raises `InvalidInput`, which names the file, the column and the rule.

    >>> candles = load_candles(SHIPPED_FILE, instrument="BTCUSD")
    >>> len(candles), candles.interval, candles.opening(0).isoformat()
    (16901, datetime.timedelta(seconds=3600), '2017-11-12T04:00:00+00:00')
    """
    columns = read_columns(path, instrument=instrument)
    opened_at, numbers = columns.opened_at, columns.numbers
    if _newest_first(opened_at):
        opened_at = opened_at[::-1]
        numbers = {name: values[::-1] for name, values in numbers.items()}
    report = examine(opened_at, numbers, bars_min=bars_min)
    report.refuse(source=path.name, allow_gaps=allow_gaps)
    named = (instrument, columns.symbol, path.name.split(".")[0])
    return Candles(
        instrument=next(name for name in named if name is not None),
        opened_at=opened_at,
        **numbers,
    )


def shipped_candles() -> Candles:
    """Return the hourly BTCUSD bars that come with the product, see `data/README.md`."""
    return load_candles(SHIPPED_FILE, instrument="BTCUSD")


def examine(
    opened_at: Times, numbers: Mapping[str, Floats], *, bars_min: int = 2
) -> ValidationReport:
    """Look for every kind of fault in bars that should be in ascending order.

    >>> hours = np.datetime64("2024-01-01", "us") + np.array([0, 1, 3], dtype="timedelta64[h]")
    >>> flat = {name: np.ones(3) for name in (*PRICE_COLUMNS, "volume")}
    >>> [(finding.kind.value, finding.found) for finding in examine(hours, flat).findings]
    [('gap', 'no bar from 2024-01-01T02:00:00Z to 2024-01-01T02:00:00Z')]
    """
    times = np.unique(opened_at)
    interval = _usual_spacing(times)
    findings: list[Finding] = []
    if len(opened_at) < bars_min:
        findings.append(
            Finding(
                kind=FindingKind.TOO_FEW,
                column="bars",
                rule=f"must be at least {bars_min}",
                found=str(len(opened_at)),
                count=1,
            )
        )
    findings += _order_findings(opened_at, times)
    if interval is not None:
        findings += _spacing_findings(times, interval)
    findings += _number_findings(opened_at, numbers)
    return ValidationReport(
        bars=len(opened_at),
        first=_aware(times[0]) if len(times) else None,
        last=_aware(times[-1]) if len(times) else None,
        interval=interval,
        findings=tuple(findings),
    )


def _newest_first(opened_at: Times) -> bool:
    steps = np.diff(opened_at).astype(np.int64)
    return bool((steps < 0).sum() > (steps > 0).sum())


def _usual_spacing(times: Times) -> timedelta | None:
    if len(times) < 2:
        return None
    spacings, counts = np.unique(np.diff(times).astype(np.int64), return_counts=True)
    return timedelta(microseconds=int(spacings[counts.argmax()]))


def _order_findings(opened_at: Times, times: Times) -> list[Finding]:
    findings = []
    repeated = len(opened_at) - len(times)
    if repeated:
        values, counts = np.unique(opened_at, return_counts=True)
        first = int((counts > 1).argmax())
        findings.append(
            Finding(
                kind=FindingKind.DUPLICATE,
                column="time",
                rule=f"must not repeat ({repeated} bars too many)",
                found=f"{_shown(values[first])} {counts[first]} times",
                count=repeated,
            )
        )
    backward = np.diff(opened_at).astype(np.int64) < 0
    if backward.any():
        bar = int(backward.argmax())
        findings.append(
            Finding(
                kind=FindingKind.DISORDER,
                column="time",
                rule="must rise or fall throughout",
                found=f"{_shown(opened_at[bar + 1])} after {_shown(opened_at[bar])}",
                count=int(backward.sum()),
            )
        )
    return findings


def _spacing_findings(times: Times, interval: timedelta) -> list[Finding]:
    step = int(np.timedelta64(interval, "us").astype(np.int64))
    spacings = np.diff(times).astype(np.int64)
    findings = []
    irregular = spacings % step != 0
    if irregular.any():
        bar = int(irregular.argmax())
        findings.append(
            Finding(
                kind=FindingKind.IRREGULAR,
                column="time",
                rule=f"must be whole multiples of {interval} apart",
                found=f"{_shown(times[bar])} then {_shown(times[bar + 1])}",
                count=int(irregular.sum()),
            )
        )
    wide = ~irregular & (spacings > step)
    if wide.any():
        bar, missing = int(wide.argmax()), int((spacings[wide] // step - 1).sum())
        hole = _shown(times[bar] + step), _shown(times[bar + 1] - step)
        findings.append(
            Finding(
                kind=FindingKind.GAP,
                column="time",
                rule=f"must have a bar every {interval} ({wide.sum()} gaps, {missing} bars)",
                found=f"no bar from {hole[0]} to {hole[1]}",
                count=missing,
            )
        )
    return findings


def _number_findings(opened_at: Times, numbers: Mapping[str, Floats]) -> list[Finding]:
    low, high, volume = numbers["low"], numbers["high"], numbers["volume"]
    rules = [
        (FindingKind.NOT_FINITE, name, "must be finite", ~np.isfinite(values))
        for name, values in numbers.items()
    ]
    rules += [
        (FindingKind.NOT_POSITIVE, name, "must be above zero", numbers[name] <= 0)
        for name in PRICE_COLUMNS
    ]
    rules.append((FindingKind.NOT_POSITIVE, "volume", "must not be negative", volume < 0))
    rules.append((FindingKind.OUTSIDE_BAR, "high", "must not be below low", high < low))
    rules += [
        (
            FindingKind.OUTSIDE_BAR,
            name,
            "must lie between low and high",
            (numbers[name] > high) | (numbers[name] < low),
        )
        for name in ("open", "close")
    ]
    findings = []
    for kind, name, rule, wrong in rules:
        if wrong.any():
            bar, count = int(wrong.argmax()), int(wrong.sum())
            value, bars = f"{numbers[name][bar]:.12g}", f"{count} of {len(wrong)} bars"
            found = f"{value} at {_shown(opened_at[bar])}, {bars}"
            findings.append(Finding(kind=kind, column=name, rule=rule, found=found, count=count))
    return findings


def _aware(time: np.datetime64) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(time.astype(np.int64)))


def _shown(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='s')}Z"
