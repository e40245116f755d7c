"""The stages of a night of the data pipeline; each reads what those before it left."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from bandit.core.data_runs import NIGHT, DataStage
from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from learners.durable_files import sync_directory, write_durably
from learners.market.anomalies import Anomaly, AnomalySeverity, NewBars, anomalies_of
from learners.market.bar_checks import check_bars, new_bars
from learners.market.candles import Candles
from learners.market.feature_store import FeaturePart, last_of, part_after, require_same
from learners.market.features import FeatureSpec, features_of
from learners.market.feeds import COLUMNS, Feed, RawBars, moment
from learners.market.store_switch import forget_version, versions
from learners.market.store_versions import Offer, load
from learners.market.stored_series import SeriesName
from liveops.data_night import DataRefused, Night, StageResult

OVERLAP: Final = timedelta(days=1)
"""How far what comes reaches back into what is kept: a source that changed is noticed."""

HEALTH_DAYS: Final = 30
MANIFEST: Final = "manifest.json"


def extract(night: Night) -> StageResult:
    """Fetch the bars of every feed since the newest kept, and keep them as they came."""
    told, rows = {}, 0
    for feed in night.feeds:
        series, problem, sha256 = str(feed.name), None, None
        bars: RawBars | None = None
        kept = night.kept(feed.name)
        since = None if kept is None else kept.opening(len(kept) - 1) - OVERLAP
        try:
            bars = feed.bars(since=since, until=night.until)
        except InvalidInput as error:
            problem = str(error)
        if bars is not None:
            sha256, rows = night.keep_raw(feed.name, bars), rows + len(bars)
        told[series] = {
            "since": None if since is None else since.isoformat(),
            "rows": 0 if bars is None else len(bars),
            "sha256": sha256,
            "problem": problem,
        }
    report = {"until": night.until.isoformat(), "series": told}
    return StageResult(report=report, rows_in=rows, rows_out=rows)


def validate(night: Night) -> StageResult:
    """Check what came; raises `DataRefused` where any check fails."""
    checks, came, new = [], 0, 0
    for feed in night.feeds:
        raw, kept = night.raw(feed.name), night.kept(feed.name)
        checks += check_bars(
            feed.name, raw, kept, until=night.until, missing_max=night.rule.missing_max
        )
        if not isinstance(raw, str):
            came, new = came + len(raw), new + len(new_bars(raw, kept))
    report = {"checks": [check.to_json() for check in checks]}
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    if failed:
        what = "; ".join(
            f"{check.series} {check.kind.value} {check.value:g} > {check.limit:g} ({check.detail})"
            for check in failed[:3]
        )
        raise DataRefused(_not_loaded(night, f"{len(failed)} checks failed: {what}"), report=report)
    return StageResult(report=report, rows_in=came, rows_out=new)


def find_anomalies(night: Night) -> StageResult:
    """Hold the new bars against their history; raises `DataRefused` where that stops the load."""
    told = {}
    for feed in night.feeds:
        grown, start = _grown(night, feed)
        if grown is not None:
            told[str(feed.name)] = NewBars(candles=grown, start=start)
    found, inconclusive = anomalies_of(told)
    rows = sum(len(bars.candles) - bars.start for bars in told.values())
    report: dict[str, Any] = {
        "anomalies": [anomaly.to_json() for anomaly in found],
        "too_short": inconclusive,
    }
    blocking = [anomaly for anomaly in found if _blocks(anomaly, night)]
    if blocking and night.accepted is None:
        what = "; ".join(
            f"{each.series} {each.kind.value} {each.value:g} > {each.limit:g} ({each.detail})"
            for each in blocking[:3]
        )
        message = f"{len(blocking)} anomalies stop the load: {what}. Where the market did that"
        message = f"{message}, run it again with --accept REASON"
        raise DataRefused(_not_loaded(night, message), report=report)
    if blocking:
        report["accepted"] = night.accepted
    return StageResult(report=report, rows_in=rows, rows_out=rows)


def transform(night: Night) -> StageResult:
    """Compute the features of the bars that have none stored yet."""
    told, rows, bars = {}, 0, 0
    for feed in night.feeds:
        grown, start = _grown(night, feed)
        if grown is None:
            continue
        bars += len(grown) - start
        spec = FeatureSpec(interval=feed.name.interval)
        last = last_of(night.store.stored(feed.name), spec)
        part = part_after(features_of(grown, spec), last)
        if part is not None:
            write_durably(night.path_of("features", feed.name), part.content)
            rows += part.rows
            told[str(feed.name)] = {
                **part.told(hashlib.sha256(part.content).hexdigest()),
                "spec": part.spec_digest,
            }
    return StageResult(report={"features": told}, rows_in=bars, rows_out=rows)


def load_all(night: Night) -> StageResult:
    """Bring bars and features into the store, all at once."""
    offers, came = [], 0
    for feed in night.feeds:
        raw = night.raw(feed.name)
        assert not isinstance(raw, str), "what could not be read was refused before"
        came += len(raw)
        candles = _candles(feed.name, raw) if len(raw) else None
        offers.append(Offer(name=feed.name, candles=candles, features=_part(night, feed.name)))
    loaded = load(night.store, night.day, offers, now=night.until)
    night.look_again()
    return StageResult(
        report={"new": dict(loaded.new)},
        rows_in=came,
        rows_out=sum(loaded.new.values()),
        versions=(loaded.before, loaded.after),
    )


def archive(night: Night) -> StageResult:
    """Keep what came, with its hashes, and let go of what is kept long enough."""
    folder = night.archive / str(night.day) / str(night.attempt)
    extracted = night.done(DataStage.EXTRACT)
    assert extracted is not None
    part = folder.with_name(f"{folder.name}.part")
    if not folder.exists():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        files = {}
        for path in sorted(night.folder.glob("raw.*.parquet")):
            write_durably(part / path.name, path.read_bytes())
            files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest = {"date": str(night.day), "files": files, **extracted.report}
        write_durably(part / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())
        part.rename(folder)
        sync_directory(folder.parent)
    gone = [*_let_go(night)]
    return StageResult(
        report={"folder": str(folder), "let_go": gone},
        rows_in=extracted.rows_out,
        rows_out=extracted.rows_out,
    )


def health(night: Night, *, began: datetime, now: datetime) -> StageResult:
    """Say how fresh and complete each series is now, and whether the night kept its time."""
    series = {}
    for feed in night.feeds:
        kept = night.kept(feed.name)
        if kept is not None:
            series[str(feed.name)] = _health_of(night, feed, kept)
    seconds, limit = (now - began).total_seconds(), night.rule.sla_minutes * 60.0
    anomalies, loaded = night.done(DataStage.ANOMALIES), night.done(DataStage.LOAD)
    found = [] if anomalies is None else anomalies.report["anomalies"]
    report = {
        "series": series,
        "seconds": seconds,
        "sla_seconds": limit,
        "in_time": seconds <= limit,
        "rows": 0 if loaded is None else loaded.rows_out,
        "anomalies": {
            severity.value: sum(each["count"] for each in found if each["severity"] == severity)
            for severity in AnomalySeverity
        },
        "healthy": seconds <= limit and all(each["fresh"] for each in series.values()),
    }
    rows = sum(int(each["bars"]) for each in series.values())
    return StageResult(report=report, rows_in=rows, rows_out=rows)


STAGES: Final[Mapping[DataStage, Callable[[Night], StageResult]]] = {
    DataStage.EXTRACT: extract,
    DataStage.VALIDATE: validate,
    DataStage.ANOMALIES: find_anomalies,
    DataStage.TRANSFORM: transform,
    DataStage.LOAD: load_all,
    DataStage.ARCHIVE: archive,
}
assert {*STAGES, DataStage.HEALTH} == set(NIGHT)


def archived(folder: Path, date: date) -> Iterator[Path]:
    """Yield the archive of each attempt at a night."""
    yield from sorted(path for path in (folder / str(date)).glob("*[0-9]") if path.is_dir())


def _health_of(night: Night, feed: Feed, kept: Candles) -> dict[str, Any]:
    step = np.timedelta64(feed.name.interval, "us")
    start = max(kept.opened_at[0], moment(night.until - timedelta(days=HEALTH_DAYS)))
    # Due are the bars that open on the grid of the series, from `start` on, and close by `until`.
    first = kept.opened_at[0] + -(-(start - kept.opened_at[0]) // step) * step
    due = max(int((moment(night.until) - first) // step), 0)
    have = int(((kept.opened_at >= first) & (kept.opened_at + step <= moment(night.until))).sum())
    age = (night.until - kept.closing(len(kept) - 1)).total_seconds()
    slack = max(feed.name.interval, timedelta(days=night.rule.missing_max)).total_seconds()
    stored = night.store.stored(feed.name)
    assert stored is not None
    return {
        "bars": len(kept),
        "newest": kept.closing(len(kept) - 1).isoformat(),
        "age_seconds": age,
        "age_seconds_max": slack,
        "fresh": age <= slack,
        "completeness": have / due if due else 1.0,
        "features_checked": require_same(night.store.root, stored, kept),
    }


def _grown(night: Night, feed: Feed) -> tuple[Candles | None, int]:
    """Return the candles with the new bars, and where these begin; None where there are none."""
    raw, kept = night.raw(feed.name), night.kept(feed.name)
    assert not isinstance(raw, str), "what could not be read was refused before"
    new = new_bars(raw, kept)
    if kept is None:
        return (_candles(feed.name, new), 0) if len(new) else (None, 0)
    if not len(new):
        return kept, len(kept)
    numbers = {name: np.concatenate([getattr(kept, name), new.numbers[name]]) for name in COLUMNS}
    times = np.concatenate([kept.opened_at, new.opened_at])
    return _candles(feed.name, RawBars(opened_at=times, numbers=numbers)), len(kept)


def _candles(name: SeriesName, bars: RawBars) -> Candles:
    return Candles(
        instrument=name.instrument,
        opened_at=bars.opened_at,
        bar_interval=name.interval,
        **bars.numbers,
    )


def _part(night: Night, name: SeriesName) -> FeaturePart | None:
    made = night.done(DataStage.TRANSFORM)
    assert made is not None
    told = made.report["features"].get(str(name))
    if told is None:
        return None
    content = night.path_of("features", name).read_bytes()
    return FeaturePart(
        spec_digest=told["spec"],
        content=content,
        rows=told["rows"],
        first=told["first"],
        last=told["last"],
    )


def _blocks(anomaly: Anomaly, night: Night) -> bool:
    match night.rule.anomalies_block:
        case "never":
            return False
        case "warning":
            return True
        case "critical":
            return anomaly.severity is AnomalySeverity.CRITICAL


def _not_loaded(night: Night, why: str) -> str:
    return (
        f"nothing of {night.day} was loaded, what was loaded before stays: {why}. "
        f"Mend the source and run `liveops data run --date {night.day}` again"
    )


def _let_go(night: Night) -> Iterator[str]:
    oldest = night.day - timedelta(days=night.rule.archive_days)
    for folder in sorted(night.archive.glob("????-??-??")):
        if folder.name < str(oldest):
            shutil.rmtree(folder)
            yield folder.name
    kept_from = night.day - timedelta(days=night.rule.rollback_days)
    for version in versions(night.store.root):
        if version.day < kept_from:
            forget_version(night.store.root, version.day)
            yield f"rollback to before {version.day}"
