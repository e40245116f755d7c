"""What the pipeline asks of new bars before it loads them, each with value, limit and verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import numpy as np

from bandit.core.model import Verdict
from learners.market.candles import Candles
from learners.market.feeds import COLUMNS, RawBars, moment
from learners.market.stored_series import SeriesName
from learners.market.validation import FindingKind, Times, examine


class BarCheckKind(StrEnum):
    """What is asked of new bars."""

    SCHEMA = "schema"
    DUPLICATES = "duplicates"
    ORDER = "order"
    GRID = "grid"
    VALUES = "values"
    COMPLETENESS = "completeness"
    AGREEMENT = "agreement"


_COUNTED: Final = {
    BarCheckKind.DUPLICATES: (FindingKind.DUPLICATE,),
    BarCheckKind.ORDER: (FindingKind.DISORDER,),
    BarCheckKind.GRID: (FindingKind.IRREGULAR,),
    BarCheckKind.VALUES: (
        FindingKind.NOT_FINITE,
        FindingKind.NOT_POSITIVE,
        FindingKind.OUTSIDE_BAR,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BarCheck:
    """One answer; without `value` it could not be asked, and `detail` says why."""

    series: str
    kind: BarCheckKind
    verdict: Verdict
    value: float | None
    limit: float
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "series": self.series,
            "check": self.kind.value,
            "verdict": self.verdict.value,
            "value": self.value,
            "limit": self.limit,
            "detail": self.detail,
        }


def check_bars(
    name: SeriesName,
    bars: RawBars | str,
    kept: Candles | None,
    *,
    until: datetime,
    missing_max: float,
) -> list[BarCheck]:
    """Check what came against what is kept; `bars` is the reason where nothing could be read.

    Counted is what is wrong, and 0 allowed; completeness is the part of the bars due by `until`
    that is missing, at most `missing_max`. Bars that are kept already have to be the same.
    """
    if isinstance(bars, str):
        return list(_unread(name, bars, missing_max=missing_max))
    checks = [_checked(name, BarCheckKind.SCHEMA, 0, 0.0, f"{len(bars)} bars")]
    report = examine(bars.opened_at, bars.numbers, bars_min=0, interval=name.interval)
    for kind, findings in _COUNTED.items():
        found = [finding for finding in report.findings if finding.kind in findings]
        told = "; ".join(f"{each.column} {each.rule}, found {each.found}" for each in found)
        checks.append(_checked(name, kind, sum(each.count for each in found), 0.0, told))
    checks.append(_completeness(name, bars.opened_at, kept, until=until, missing_max=missing_max))
    checks.append(_agreement(name, bars, kept))
    return checks


def new_bars(bars: RawBars, kept: Candles | None) -> RawBars:
    """Return the bars that are newer than the newest kept."""
    return bars if kept is None else bars.where(bars.opened_at > kept.opened_at[-1])


def _unread(name: SeriesName, why: str, *, missing_max: float) -> Iterator[BarCheck]:
    yield _checked(name, BarCheckKind.SCHEMA, 1, 0.0, why)
    for kind in BarCheckKind:
        if kind is not BarCheckKind.SCHEMA:
            yield BarCheck(
                series=str(name),
                kind=kind,
                verdict=Verdict.INCONCLUSIVE,
                value=None,
                limit=missing_max if kind is BarCheckKind.COMPLETENESS else 0.0,
                detail="nothing could be read",
            )


def _completeness(
    name: SeriesName, times: Times, kept: Candles | None, *, until: datetime, missing_max: float
) -> BarCheck:
    step, kind = np.timedelta64(name.interval, "us"), BarCheckKind.COMPLETENESS
    if kept is None and not len(times):
        return _checked(name, kind, 1.0, missing_max, "no bar came, and none is kept")
    first = times.min() if kept is None else kept.opened_at[-1] + step
    due = max(int((moment(until) - first) // step), 0)
    found = len(np.unique(times[times >= first]))
    missing = max(1 - found / due, 0.0) if due else 0.0
    told = f"{found} of {due} bars due by {until:%Y-%m-%d %H:%M} UTC"
    return _checked(name, kind, missing, missing_max, told)


def _agreement(name: SeriesName, bars: RawBars, kept: Candles | None) -> BarCheck:
    kind = BarCheckKind.AGREEMENT
    if kept is None:
        return _checked(name, kind, 0, 0.0, "nothing is kept yet")
    old = bars.where((bars.opened_at >= kept.opened_at[0]) & (bars.opened_at <= kept.opened_at[-1]))
    places = np.searchsorted(kept.opened_at, old.opened_at)
    differs = kept.opened_at[places] != old.opened_at
    for column in COLUMNS:
        differs |= getattr(kept, column)[places] != old.numbers[column]
    told = f"{len(old)} bars that are kept came again"
    if differs.any():
        first = np.datetime_as_string(old.opened_at[differs.argmax()], unit="s")
        told = f"{told}; the first that differs is of {first}Z"
    return _checked(name, kind, int(differs.sum()), 0.0, told)


def _checked(
    name: SeriesName, kind: BarCheckKind, value: float, limit: float, detail: str
) -> BarCheck:
    return BarCheck(
        series=str(name),
        kind=kind,
        verdict=Verdict.FAIL if value > limit else Verdict.PASS,
        value=float(value),
        limit=limit,
        detail=detail[:500],
    )
