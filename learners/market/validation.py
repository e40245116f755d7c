"""Validation of candles: each kind of fault, how often, where first, and if it forbids use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.market.candle_files import PRICE_COLUMNS

Times = NDArray[np.datetime64]
Floats = NDArray[np.float64]

# A bar whose close leaps this many usual moves (standard deviations, from the median size of a
# move), of which the next bar takes back three quarters or more, looks like a bad print. Markets
# do that too: so it is a warning.
OUTLIER_DEVIATIONS = 10.0
_OUTLIER_LEFT = 0.25
_DEVIATION_OF_MEDIAN = 1.4826  # of a normal distribution around zero


class Severity(StrEnum):
    """Whether bars with a finding may be used."""

    ERROR = "error"
    WARNING = "warning"


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
    OUTLIER = "outlier"
    ZERO_VOLUME = "zero_volume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of fault in one column: how often, and where first."""

    kind: FindingKind
    column: str
    rule: str
    found: str
    count: int

    @property
    def severity(self) -> Severity:
        """Return whether it forbids use."""
        suspicious = self.kind in (FindingKind.OUTLIER, FindingKind.ZERO_VOLUME)
        return Severity.WARNING if suspicious else Severity.ERROR

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON document."""
        return {
            "kind": self.kind.value,
            "severity": self.severity.value,
            "column": self.column,
            "rule": self.rule,
            "found": self.found,
            "count": self.count,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What was seen in a series of candles; `interval` is given, or its most frequent spacing."""

    bars: int
    first: datetime | None
    last: datetime | None
    interval: timedelta | None
    findings: tuple[Finding, ...]

    def refuse(self, *, source: str, allow_gaps: bool) -> None:
        """Raise `InvalidInput` for the first error; gaps alone pass where they are allowed."""
        for finding in self.findings:
            if finding.severity is Severity.WARNING:
                continue
            if allow_gaps and finding.kind is FindingKind.GAP:
                continue
            raise InvalidInput(
                field=f"{source}: {finding.column}", rule=finding.rule, found=finding.found
            )

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return {
            "bars": self.bars,
            "first": None if self.first is None else self.first.isoformat(),
            "last": None if self.last is None else self.last.isoformat(),
            "interval_seconds": None if self.interval is None else self.interval.total_seconds(),
            "findings": [finding.to_json() for finding in self.findings],
        }


def examine(
    opened_at: Times,
    numbers: Mapping[str, Floats],
    *,
    bars_min: int = 2,
    interval: timedelta | None = None,
) -> ValidationReport:
    """Look for every kind of fault in bars that should be in ascending order.

    `interval` is the length of a bar, or None to take the most frequent spacing for it.

    >>> hours = np.datetime64("2024-01-01", "us") + np.array([0, 1, 3], dtype="timedelta64[h]")
    >>> flat = {name: np.ones(3) for name in (*PRICE_COLUMNS, "volume")}
    >>> [(finding.kind.value, finding.found) for finding in examine(hours, flat).findings]
    [('gap', 'no bar from 2024-01-01T02:00:00Z to 2024-01-01T02:00:00Z')]
    """
    times = np.unique(opened_at)
    if interval is None:
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
    if interval is not None and all(finding.kind is FindingKind.GAP for finding in findings):
        findings += _outlier_findings(opened_at, numbers["close"], interval)
    findings += _standstill_findings(opened_at, numbers["volume"])
    return ValidationReport(
        bars=len(opened_at),
        first=instant(times[0]) if len(times) else None,
        last=instant(times[-1]) if len(times) else None,
        interval=interval,
        findings=tuple(findings),
    )


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


def _outlier_findings(opened_at: Times, close: Floats, interval: timedelta) -> list[Finding]:
    moves = np.diff(np.log(close))
    neighbours = np.diff(opened_at) == np.timedelta64(interval, "us")
    if not neighbours.any():
        return []
    deviation = _DEVIATION_OF_MEDIAN * float(np.median(np.abs(moves[neighbours])))
    if deviation == 0.0:  # a market that mostly stands still has no usual move
        return []
    leaps = np.abs(moves[:-1]) > OUTLIER_DEVIATIONS * deviation
    taken_back = np.abs(moves[:-1] + moves[1:]) <= _OUTLIER_LEFT * np.abs(moves[:-1])
    outliers = leaps & taken_back & neighbours[:-1] & neighbours[1:]
    if not outliers.any():
        return []
    bar, count = int(outliers.argmax()) + 1, int(outliers.sum())
    size = abs(moves[bar - 1]) / deviation
    return [
        Finding(
            kind=FindingKind.OUTLIER,
            column="close",
            rule=f"should not leap {OUTLIER_DEVIATIONS:g} usual moves and come back",
            found=f"{close[bar]:.12g} at {_shown(opened_at[bar])}, {size:.1f} usual moves, "
            f"{count} of {len(close)} bars",
            count=count,
        )
    ]


def _standstill_findings(opened_at: Times, volume: Floats) -> list[Finding]:
    still = volume == 0
    if not still.any():
        return []
    count = int(still.sum())
    return [
        Finding(
            kind=FindingKind.ZERO_VOLUME,
            column="volume",
            rule="should not be zero",
            found=f"0 at {_shown(opened_at[int(still.argmax())])}, {count} of {len(volume)} bars",
            count=count,
        )
    ]


def instant(time: np.datetime64) -> datetime:
    """Return a time of candles as an aware one, UTC."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(time.astype(np.int64)))


def _shown(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='s')}Z"
