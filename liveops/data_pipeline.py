"""The nightly data pipeline: from the feeds of the settings to candles and features in the store.

Every stage that ends is a fact of the ledger with an audit row. Loading is the one moment in which
anything becomes visible: all series at once, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from pathlib import Path
from typing import Any

from bandit.core.data_runs import (
    NIGHT,
    DataFact,
    DataStage,
    DataState,
    attempt_of,
    is_done,
    stages_done,
)
from bandit.core.errors import BanditError, InvalidInput
from bandit.service import data_runs
from bandit.storage.locks import Require
from learners.market.candles import shipped_candles
from learners.market.feeds import Feed
from learners.market.store_switch import version_digest
from liveops.candle_import import candle_store
from liveops.data_feeds import feeds_of
from liveops.data_night import DataRefused, Night, StageResult
from liveops.data_stages import STAGES, health
from liveops.ledger_server import data_archive_dir, state_home
from liveops.wiring import App


@dataclass(frozen=True, slots=True, kw_only=True)
class NightReport:
    """What became of a night: the stages done now and before, and the facts behind them."""

    day: date
    attempt: int
    done: tuple[DataStage, ...]
    before: tuple[DataStage, ...]
    version: str
    reports: Mapping[str, Mapping[str, Any]]

    @property
    def was_done(self) -> bool:
        """Whether there was nothing left to do."""
        return not self.done

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "date": str(self.day),
            "attempt": self.attempt,
            "state": "done",
            "done": [stage.value for stage in self.done],
            "done_before": [stage.value for stage in self.before],
            "version": self.version,
            "reports": dict(self.reports),
        }


def night_of(app: App, date: date | None) -> date:
    """Return the night that is meant: today's, or of the demo the last one of its candles.

    Raises `InvalidInput` for a night to come: its bars are not closed.
    """
    today = app.clock.now().astimezone(UTC).date()
    if date is None:
        shipped = shipped_candles() if app.demo else None
        return today if shipped is None else shipped.closing(len(shipped) - 1).date()
    if date > today:
        raise InvalidInput(field="--date", rule=f"must not be after {today} UTC", found=date)
    return date


def run_night(app: App, date: date, *, accepted: str | None, actor: str) -> NightReport:
    """Do what is left of a night; nothing where it is done.

    Raises `LockHeldElsewhere` while another process loads or rolls back, `LedgerUnavailable` where
    one may by now, `DataPaused` while a rollback is not finished, `DataRefused` where checks or
    anomalies stop the load, and whatever says that a source, the disk or the ledger failed. What
    was loaded before stays in each case.
    """
    feeds = feeds_of(app.settings, app.breakers, demo=app.demo)
    with data_runs.alone(app.engine, doing=f"the data of {date}") as require:
        data_runs.require_whole(app.engine)
        facts = data_runs.of_date(app.engine, date)
        night = _night(app, date, facts, feeds, accepted=accepted)
        if is_done(facts):
            night.end()
            return _told(night, done=[], before=facts)
        before = stages_done(facts, NIGHT)
        night.begin()
        done = [_do(app, night, stage, facts, require, actor=actor) for stage in NIGHT]
        night.end()
        return _told(night, done=[fact for fact in done if fact.stage not in before], before=facts)


def planned(app: App, date: date) -> dict[str, Any]:
    """Return what `run_night` would do now; nothing is fetched, and nothing written."""
    feeds = feeds_of(app.settings, app.breakers, demo=app.demo)
    data_runs.require_whole(app.engine)
    facts = data_runs.of_date(app.engine, date)
    night = _night(app, date, facts, feeds, accepted=None)
    done = stages_done(facts, NIGHT)
    series = {}
    for feed in feeds:
        kept = night.kept(feed.name)
        newest = None if kept is None else kept.closing(len(kept) - 1)
        due = None if newest is None else max((night.until - newest) // feed.name.interval, 0)
        series[str(feed.name)] = {
            "newest": None if newest is None else newest.isoformat(),
            "until": night.until.isoformat(),
            "bars_due": due,
        }
    return {
        "date": str(date),
        "attempt": night.attempt,
        "dry_run": True,
        "done_before": [stage.value for stage in done],
        "would_do": [stage.value for stage in NIGHT if stage not in done],
        "series": series,
    }


def unfed(app: App, date: date) -> dict[str, Any] | None:
    """Return what a night says where the settings name no series; None where they do."""
    if app.demo or app.settings.data.feeds:
        return None
    why = "data.feeds names no series"
    return {"date": str(date), "state": "idle", "done": [], "done_before": [], "why": why}


def data_home(app: App) -> tuple[Path, Path]:
    """Return where the pipeline works, and where it archives what came; the demo apart."""
    home = state_home(app.settings)
    chosen = None if app.demo else data_archive_dir(app.settings)
    home = (home / "demo" if app.demo else home) / "data"
    return home, chosen or home / "archive"


def _night(
    app: App,
    day: date,
    facts: Sequence[DataFact],
    feeds: Sequence[Feed],
    *,
    accepted: str | None,
) -> Night:
    home, archive = data_home(app)
    return Night(
        day=day,
        attempt=attempt_of(facts),
        feeds=feeds,
        store=candle_store(app.settings, demo=app.demo),
        home=home,
        archive=archive,
        rule=app.settings.data,
        accepted=accepted,
    )


def _do(
    app: App,
    night: Night,
    stage: DataStage,
    facts: Sequence[DataFact],
    require: Require,
    *,
    actor: str,
) -> DataFact:
    """Do a stage, or find it done, and record it: a kill in between records it the next time.

    So it is where `require` raises behind a stage: it is left as by a kill.
    """
    fact = night.done(stage)
    if fact is None:
        require()
        began = app.clock.now()
        try:
            result = _result(app, night, stage, facts)
        except (BanditError, OSError) as error:
            report = error.report if isinstance(error, DataRefused) else {}
            failed = StageResult(report={**report, "error": str(error)[:2000]})
            ended = app.clock.now()
            fact = night.fact(stage, failed, state=DataState.FAILED, began=began, ended=ended)
            data_runs.record(app.engine, [fact], now=ended, actor=actor)
            raise
        require()
        ended = app.clock.now()
        fact = night.fact(stage, result, state=DataState.DONE, began=began, ended=ended)
        night.mark(fact)
    data_runs.record(app.engine, [fact], now=app.clock.now(), actor=actor)
    return fact


def _result(app: App, night: Night, stage: DataStage, facts: Sequence[DataFact]) -> StageResult:
    if stage is not DataStage.HEALTH:
        return STAGES[stage](night)
    extracted = night.done(DataStage.EXTRACT)
    assert extracted is not None
    # What attempts that failed took counts: it is late all the same. A load that was taken back is
    # another matter.
    undone = [fact.attempt for fact in facts if fact.stage is DataStage.RESTORE]
    tried = [fact.began_at for fact in facts if fact.attempt > max(undone, default=0)]
    began = min([extracted.began_at, *tried])
    return health(night, began=began, now=app.clock.now())


def _told(night: Night, *, done: Sequence[DataFact], before: Sequence[DataFact]) -> NightReport:
    known = stages_done(before, NIGHT)
    reports = {fact.stage.value: fact.report for fact in before if fact.attempt == night.attempt}
    return NightReport(
        day=night.day,
        attempt=night.attempt,
        done=tuple(fact.stage for fact in done),
        before=known,
        version=version_digest(night.store.root),
        reports=reports | {fact.stage.value: fact.report for fact in done},
    )
