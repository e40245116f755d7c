"""New bars that are unlike the history of their own instrument, though nothing is wrong in form.

Of each bar three things are measured: the size of its return, its volume and its range, the latter
two as logarithms, so that all three have a usual spread. How far a bar is out is told in robust
deviations (median and MAD). A bar is anomalous that is further out than `SCORE_MIN`, *and* than
every bar of the history: so, whatever the market's tails are, a bar that is drawn as the n of the
history were is one with probability 1 / (n + 1) at most. docs/data-pipeline.md has measured rates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from learners.market.candles import Candles
from learners.market.validation import OUTLIER_DEVIATIONS, FindingKind, Floats, examine

HISTORY_BARS: Final = 20_000
HISTORY_BARS_MIN: Final = 200
SCORE_MIN: Final = OUTLIER_DEVIATIONS
STILL_SCORE: Final = 3.0
"""Of a return: what is less than so many deviations is no jump."""

CRITICAL_TIMES: Final = 3.0
"""A return so many times as far out as any of the history is critical by itself."""

ALONE_TIMES: Final = 2.0
"""So many times, where instruments that usually move along stood still."""

PEER_CORRELATION: Final = 0.5
_DEVIATION_OF_MAD: Final = 1.4826
_OUTLIER_BARS: Final = 500


class AnomalyKind(StrEnum):
    """What is unlike before."""

    RETURN = "return"
    VOLUME = "volume"
    RANGE = "range"
    OUTLIER = "outlier"
    ZERO_VOLUME = "zero_volume"


class AnomalySeverity(StrEnum):
    """How sure it is that the bars are wrong, not the market."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """What was found in the new bars of a series: how often, and the one furthest out.

    `value` and `limit` are robust deviations, or bars where they are counted.
    """

    series: str
    kind: AnomalyKind
    severity: AnomalySeverity
    count: int
    value: float
    limit: float
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "series": self.series,
            "kind": self.kind.value,
            "severity": self.severity.value,
            "count": self.count,
            "value": self.value,
            "limit": self.limit,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewBars:
    """A series with its newest bars: those from `start` on are new."""

    candles: Candles
    start: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scores:
    """How far out each bar of a measure is; `usual` is the furthest of the history."""

    values: Floats
    usual: float


def anomalies_of(told: Mapping[str, NewBars]) -> tuple[list[Anomaly], list[str]]:
    """Look at the new bars of every series; also return the series with too short a history.

    A return is critical that is `CRITICAL_TIMES` as far out as any before, or `ALONE_TIMES` where
    instruments that usually move along stood still at the same bar; all else is a warning.
    """
    found: list[Anomaly] = []
    inconclusive = []
    tails = {name: _tail(bars) for name, bars in told.items()}
    for name, bars in tails.items():
        if bars.start == len(bars.candles):
            continue
        found += _counted(name, bars)
        if bars.start < HISTORY_BARS_MIN:
            inconclusive.append(name)
            continue
        for kind, measured in _measures(bars.candles).items():
            scores = _scores(measured, bars.start)
            if scores is not None:
                found += _judged(name, kind, bars, scores, tails)
    return found, inconclusive


def _tail(bars: NewBars) -> NewBars:
    first = max(bars.start - HISTORY_BARS, 0)
    if first == 0:
        return bars
    candles = bars.candles
    cut = Candles(
        instrument=candles.instrument,
        opened_at=candles.opened_at[first:],
        bar_interval=candles.interval,
        **{name: values[first:] for name, values in candles.numbers().items()},
    )
    return NewBars(candles=cut, start=bars.start - first)


def _measures(candles: Candles) -> dict[AnomalyKind, Floats]:
    with np.errstate(divide="ignore"):
        volume, size = np.log(candles.volume), np.log(np.log(candles.high / candles.low))
    return {
        AnomalyKind.RETURN: _returns(candles),
        AnomalyKind.VOLUME: np.where(np.isfinite(volume), volume, np.nan),
        AnomalyKind.RANGE: np.where(np.isfinite(size), size, np.nan),
    }


def _returns(candles: Candles) -> Floats:
    """Log returns from bar to bar; NaN for the first bar, and behind a gap."""
    moves = np.diff(np.log(candles.close))
    follows = np.diff(candles.opened_at) == np.timedelta64(candles.interval, "us")
    return np.concatenate(([np.nan], np.where(follows, moves, np.nan)))


def _scores(measured: Floats, start: int) -> _Scores | None:
    """Return how far out each bar is; None where the history has no usual spread."""
    history = measured[:start][np.isfinite(measured[:start])]
    if len(history) < HISTORY_BARS_MIN // 2:
        return None
    middle = float(np.median(history))
    spread = _DEVIATION_OF_MAD * float(np.median(np.abs(history - middle)))
    if spread == 0.0:
        return None
    values = np.abs(measured - middle) / spread
    return _Scores(values=values, usual=float(np.abs(history - middle).max() / spread))


def _judged(
    name: str, kind: AnomalyKind, bars: NewBars, scores: _Scores, tails: Mapping[str, NewBars]
) -> Iterator[Anomaly]:
    limit = max(SCORE_MIN, scores.usual)
    new = scores.values[bars.start :]
    out = np.flatnonzero(np.nan_to_num(new) > limit)
    by_severity: dict[AnomalySeverity, list[int]] = {}
    for bar in out.tolist():
        far = new[bar] / limit
        is_critical = kind is AnomalyKind.RETURN and (
            far > CRITICAL_TIMES
            or (far > ALONE_TIMES and _alone(name, bars, bars.start + bar, tails))
        )
        severity = AnomalySeverity.CRITICAL if is_critical else AnomalySeverity.WARNING
        by_severity.setdefault(severity, []).append(bar)
    for severity, places in by_severity.items():
        worst = max(places, key=lambda bar: float(new[bar]))
        at = bars.candles.opening(bars.start + worst).isoformat()
        yield Anomaly(
            series=name,
            kind=kind,
            severity=severity,
            count=len(places),
            value=round(float(new[worst]), 3),
            limit=round(limit, 3),
            detail=f"{kind.value} of the bar of {at} is the furthest out",
        )


def _alone(name: str, bars: NewBars, at: int, tails: Mapping[str, NewBars]) -> bool:
    """Say whether instruments that usually move along stood still when this bar jumped."""
    time, still = bars.candles.opened_at[at], []
    for other, peer in tails.items():
        if other == name or peer.candles.interval != bars.candles.interval:
            continue
        place = int(np.searchsorted(peer.candles.opened_at, time))
        if place == len(peer.candles) or peer.candles.opened_at[place] != time:
            continue
        scores = _scores(_returns(peer.candles), peer.start)
        if scores is None or not np.isfinite(scores.values[place]):
            continue
        if _correlation(bars, peer) >= PEER_CORRELATION:
            still.append(scores.values[place] < STILL_SCORE)
    return bool(still) and all(still)


def _correlation(bars: NewBars, peer: NewBars) -> float:
    """Return how returns of two histories go together; 0 where they have too few in common."""
    one, two = bars.candles.opened_at[: bars.start], peer.candles.opened_at[: peer.start]
    _, mine, its = np.intersect1d(one, two, return_indices=True)
    a, b = _returns(bars.candles)[mine], _returns(peer.candles)[its]
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < HISTORY_BARS_MIN or a[known].std() == 0 or b[known].std() == 0:
        return 0.0
    return float(np.corrcoef(a[known], b[known])[0, 1])


def _counted(name: str, bars: NewBars) -> Iterator[Anomaly]:
    """Yield what `examine` warns of, less what it would warn of without the new bars."""
    first = max(bars.start - _OUTLIER_BARS, 0)
    after = _warnings(bars.candles, first, len(bars.candles))
    before = _warnings(bars.candles, first, bars.start)
    for kind, found in (
        (AnomalyKind.OUTLIER, FindingKind.OUTLIER),
        (AnomalyKind.ZERO_VOLUME, FindingKind.ZERO_VOLUME),
    ):
        more = after.get(found, 0) - before.get(found, 0)
        if more > 0:
            yield Anomaly(
                series=name,
                kind=kind,
                severity=AnomalySeverity.WARNING,
                count=more,
                value=float(more),
                limit=0.0,
                detail=f"{more} new bars: {found.value.replace('_', ' ')}",
            )


def _warnings(candles: Candles, first: int, stop: int) -> dict[FindingKind, int]:
    numbers = {name: values[first:stop] for name, values in candles.numbers().items()}
    report = examine(candles.opened_at[first:stop], numbers, bars_min=0, interval=candles.interval)
    return {finding.kind: finding.count for finding in report.findings}
