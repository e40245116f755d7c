"""What is stored of a night, looked at again: bars, features, and the archive of what came."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bandit.core.errors import BanditError
from bandit.core.model import Verdict
from learners.market.candle_store import CandleStore
from learners.market.feature_store import require_same
from learners.market.feeds import Feed, moment
from liveops.candle_import import candle_store
from liveops.data_feeds import feeds_of
from liveops.data_pipeline import data_home
from liveops.data_stages import MANIFEST, archived
from liveops.wiring import App

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheck:
    """One answer about what is stored; `value` is None where it could not be asked."""

    subject: str
    check: str
    verdict: Verdict
    value: float | None
    limit: float
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "subject": self.subject,
            "check": self.check,
            "verdict": self.verdict.value,
            "value": self.value,
            "limit": self.limit,
            "detail": self.detail,
        }


def validated(app: App, date: date) -> list[StoredCheck]:
    """Check what is stored of the day that ended with a night; nothing is written.

    Of each series: its files are those that were written, the day's bars are there, and its stored
    features are those that are computed now. Of the archive: its files have their hashes.
    """
    store = candle_store(app.settings, demo=app.demo)
    checks: list[StoredCheck] = []
    for feed in feeds_of(app.settings, app.breakers, demo=app.demo):
        checks += _of_series(store, feed, date, missing_max=app.settings.data.missing_max)
    checks += _of_archive(data_home(app)[1], date)
    return checks


def verdict_of(checks: Sequence[StoredCheck]) -> Verdict:
    """Return FAIL where anything is wrong, else INCONCLUSIVE where anything could not be asked.

    >>> verdict_of([])
    <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
    """
    found = {check.verdict for check in checks}
    if Verdict.FAIL in found:
        return Verdict.FAIL
    return Verdict.PASS if found == {Verdict.PASS} else Verdict.INCONCLUSIVE


def _of_series(
    store: CandleStore, feed: Feed, date: date, *, missing_max: float
) -> Iterator[StoredCheck]:
    subject, stored = str(feed.name), store.stored(feed.name)
    if stored is None:
        yield _unknown(subject, "files", 0.0, "nothing of it is stored")
        return
    try:
        candles = store.load(feed.name)
        rows = require_same(store.root, stored, candles)
    except (BanditError, FileNotFoundError) as error:
        yield _answer(subject, "files", 1, 0.0, str(error))
        return
    yield _answer(subject, "files", 0, 0.0, f"{len(candles)} bars, {rows} rows of features agree")
    until = datetime(date.year, date.month, date.day, tzinfo=UTC)
    step = np.timedelta64(feed.name.interval, "us")
    closes = candles.opened_at + step
    due = max(int(DAY / feed.name.interval), 1)
    have = int(((closes > moment(until - DAY)) & (closes <= moment(until))).sum())
    if closes[-1] <= moment(until - DAY) or closes[0] > moment(until):
        newest = f"bars are stored up to {candles.closing(len(candles) - 1).isoformat()}"
        yield _unknown(subject, "completeness", missing_max, newest)
        return
    missing = max(1 - have / due, 0.0)
    yield _answer(subject, "completeness", missing, missing_max, f"{have} of {due} bars of the day")


def _of_archive(folder: Path, date: date) -> Iterator[StoredCheck]:
    for attempt in archived(folder, date):
        files = json.loads((attempt / MANIFEST).read_bytes())["files"]
        wrong = [name for name, sha256 in files.items() if _sha256(attempt / name) != sha256]
        told = f"{len(files)} files" if not wrong else f"not what was written: {', '.join(wrong)}"
        yield _answer(f"archive {date}/{attempt.name}", "hashes", len(wrong), 0.0, told)


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _answer(subject: str, check: str, value: float, limit: float, detail: str) -> StoredCheck:
    return StoredCheck(
        subject=subject,
        check=check,
        verdict=Verdict.FAIL if value > limit else Verdict.PASS,
        value=float(value),
        limit=limit,
        detail=detail,
    )


def _unknown(subject: str, check: str, limit: float, detail: str) -> StoredCheck:
    return StoredCheck(
        subject=subject,
        check=check,
        verdict=Verdict.INCONCLUSIVE,
        value=None,
        limit=limit,
        detail=detail,
    )
