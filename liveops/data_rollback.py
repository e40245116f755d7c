"""Taking back what nights loaded: pause, restore, validate, resume, verify.

Nothing is trained between pause and resume: `data_runs.require_whole` refuses it. A rollback that
was killed in between is paused still, and goes on when the same is asked again, or an earlier date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from bandit.core.data_runs import ROLLBACK, DataFact, DataStage, DataState, attempt_of
from bandit.core.errors import BanditError, DataPaused
from bandit.core.model import checked_text
from bandit.service import data_runs
from bandit.storage.locks import Require
from learners.market.candle_store import CandleStore, candles_of
from learners.market.candles import Candles
from learners.market.feature_store import require_same
from learners.market.store_switch import (
    Documents,
    Version,
    document_of,
    finish,
    version_digest,
    versions,
)
from learners.market.store_versions import forget, require_whole, restore, target_of, undone_by
from learners.market.stored_series import DamagedSeries, Document, StoredSeries, series_of
from liveops.candle_import import candle_store
from liveops.wiring import App


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What a rollback did now and before, and the digest of the store behind it."""

    day: date
    done: tuple[DataStage, ...]
    before: tuple[DataStage, ...]
    undone: tuple[date, ...]
    version: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "date": str(self.day),
            "done": [stage.value for stage in self.done],
            "done_before": [stage.value for stage in self.before],
            "undone": [str(date) for date in self.undone],
            "version": self.version,
        }


def roll_back(app: App, date: date, *, reason: str, actor: str) -> RolledBack:
    """Make the candles what they were before the load of a night, and all later ones.

    Again, when it is done, it does nothing. Raises `LockHeldElsewhere`, `UnknownName` where that
    load is not kept, `DataPaused` while another rollback is not finished that goes back at least
    as far, `DamagedSeries` and `FeaturesDiffer` where any series would not be sound afterwards:
    before the pause, nothing is changed then.
    """
    reason = checked_text(reason, field="reason", length_max=1000)
    store = candle_store(app.settings, demo=app.demo)
    with data_runs.alone(app.engine, doing=f"the rollback to before {date}") as require:
        facts = data_runs.of_date(app.engine, date)
        attempt = _begun(app, store, date, facts)
        if attempt is None and _is_back(store, date, facts):
            return _told(store, date, done=(), before=ROLLBACK, undone=())
        if attempt is None:
            _require_sound(store, target_of(undone_by(store.root, date)))
            attempt = attempt_of(facts)
        work = _Rollback(
            app=app,
            store=store,
            day=date,
            attempt=attempt,
            reason=reason,
            actor=actor,
            require=require,
        )
        return work.go_on(_done_before(facts, attempt))


def planned(app: App, date: date) -> dict[str, Any]:
    """Return what `roll_back` would do now; nothing is written."""
    store = candle_store(app.settings, demo=app.demo)
    facts = data_runs.of_date(app.engine, date)
    attempt = _begun(app, store, date, facts)
    done = () if attempt is None else _done_before(facts, attempt)
    if attempt is None and _is_back(store, date, facts):
        return {"date": str(date), "dry_run": True, "would_do": [], "undone": [], "series": {}}
    kept = DataStage.RESTORE not in done
    undone = undone_by(store.root, date) if kept else []
    target = target_of(undone)
    return {
        "date": str(date),
        "dry_run": True,
        "would_do": [stage.value for stage in ROLLBACK if stage not in done],
        "undone": [str(version.day) for version in undone],
        "series": {
            folder: {"bars": _bars(document_of(store.root, folder)), "would_be": _bars(document)}
            for folder, document in target.items()
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollback:
    app: App
    store: CandleStore
    day: date
    attempt: int
    reason: str
    actor: str
    require: Require

    def go_on(self, before: Sequence[DataStage]) -> RolledBack:
        """Do what is left."""
        restored = self._restored() if DataStage.RESTORE in before else None
        undone = self._undone(restored)
        days = [version.day for version in undone]
        if restored is not None:
            days = [date.fromisoformat(told) for told in restored.report["undone"]]
        stages: Mapping[DataStage, Callable[[], Mapping[str, Any]]] = {
            DataStage.PAUSE: dict,
            DataStage.RESTORE: lambda: self._restore(undone),
            DataStage.REVALIDATE: self._sound,
            DataStage.RESUME: dict,
            DataStage.VERIFY: self._verify,
        }
        for stage in ROLLBACK:
            self.require()
            if stage not in before:
                self._do(stage, stages[stage], undone)
            if stage is DataStage.RESTORE:
                # Also where a kill came before it: the facts are there, the versions still are.
                forget(self.store.root, undone)
        done = tuple(stage for stage in ROLLBACK if stage not in before)
        return _told(
            self.store,
            self.day,
            done=done,
            before=before,
            undone=days,
        )

    def _undone(self, restored: DataFact | None) -> list[Version]:
        """Return the loads that are to be undone, or were undone and are not forgotten yet."""
        root = self.store.root
        if restored is not None and version_digest(root) != restored.version_after:
            # Loaded since: it was resumed, and the ledger may be one from before that, restored.
            return []
        return [version for version in versions(root) if version.day >= self.day]

    def _restored(self) -> DataFact:
        [restored] = [
            fact
            for fact in data_runs.of_date(self.app.engine, self.day)
            if (fact.stage, fact.attempt, fact.state)
            == (DataStage.RESTORE, self.attempt, DataState.DONE)
        ]
        return restored

    def _do(
        self,
        stage: DataStage,
        work: Callable[[], Mapping[str, Any]],
        undone: Sequence[Version],
    ) -> None:
        began, before = self.app.clock.now(), version_digest(self.store.root)
        try:
            report = {"reason": self.reason, **work()}
        except (BanditError, OSError) as error:
            report = {"reason": self.reason, "error": str(error)[:2000]}
            self._record([self._fact(stage, DataState.FAILED, report, began, None)])
            raise
        changed = (before, version_digest(self.store.root))
        versions_of = changed if stage is DataStage.RESTORE else None
        facts = [self._fact(stage, DataState.DONE, report, began, versions_of)]
        if stage is DataStage.RESTORE:
            facts += self._later(undone, report, began, changed)
        self._record(facts)

    def _later(
        self,
        undone: Sequence[Version],
        report: Mapping[str, Any],
        began: datetime,
        changed: tuple[str, str],
    ) -> list[DataFact]:
        """Return that the later nights are undone too: each is to be done anew."""
        later = [version.day for version in undone if version.day != self.day]
        return [
            self._fact(
                DataStage.RESTORE,
                DataState.DONE,
                report,
                began,
                changed,
                day=date,
                attempt=attempt_of(data_runs.of_date(self.app.engine, date)),
            )
            for date in later
        ]

    def _restore(self, undone: Sequence[Version]) -> Mapping[str, Any]:
        restore(self.store, undone)
        series = {
            folder: None
            if document is None
            else {"bars": document["bars"], "digest": document["digest"]}
            for folder, document in target_of(undone).items()
        }
        return {"undone": [str(version.day) for version in undone], "series": series}

    def _sound(self) -> Mapping[str, Any]:
        """Read every series of the store in full, and compute its stored features anew."""
        finish(self.store.root)
        told = {}
        for stored in self.store.series():
            candles = self.store.load(stored.name)
            rows = _features_checked(self.store, stored, candles)
            told[str(stored.name)] = {"bars": len(candles), "features_checked": rows}
        return {"series": told}

    def _verify(self) -> Mapping[str, Any]:
        """Look whether each series begins with what was restored, and may be trained on again."""
        data_runs.require_whole(self.app.engine)
        now = {stored.name.folder.as_posix(): stored for stored in self.store.series()}
        for folder, told in self._restored().report["series"].items():
            if told is None:
                continue
            # Bars that somebody appended since may be there.
            found = self.store.load(now[folder].name).until(told["bars"]) if folder in now else None
            if found is None or found.digest != told["digest"]:
                raise DamagedSeries(f"{folder} does not begin with the bars that were restored")
        return {"version": version_digest(self.store.root)}

    def _fact(
        self,
        stage: DataStage,
        state: DataState,
        report: Mapping[str, Any],
        began: datetime,
        changed: tuple[str, str] | None,
        *,
        day: date | None = None,
        attempt: int | None = None,
    ) -> DataFact:
        before, after = changed or (None, None)
        return DataFact(
            day=day or self.day,
            attempt=attempt or self.attempt,
            stage=stage,
            state=state,
            report=report,
            version_before=before,
            version_after=after,
            began_at=began,
            ended_at=self.app.clock.now(),
        )

    def _record(self, facts: Sequence[DataFact]) -> None:
        data_runs.record(self.app.engine, facts, now=self.app.clock.now(), actor=self.actor)


def _begun(app: App, store: CandleStore, date: date, facts: Sequence[DataFact]) -> int | None:
    """Return the attempt that is to go on; None where a new one is to begin.

    Raises `DataPaused` while a rollback of another date is not finished, unless this one undoes
    what that does and more: then it takes the pause over.
    """
    paused = data_runs.paused(app.engine)
    loads = [version.day for version in versions(store.root)]
    if paused is not None and paused.day != date:
        if date > paused.day or date not in loads:
            since = paused.began_at.isoformat()
            raise DataPaused(date=paused.day.isoformat(), since=since)
        return None
    if paused is not None:
        return paused.attempt
    attempt = max((fact.attempt for fact in facts if fact.stage is DataStage.RESUME), default=None)
    if attempt is None or DataStage.VERIFY in _done_before(facts, attempt):
        return None
    # It was cut off before it was verified: another matter once nights have loaded again.
    return None if any(day >= date for day in loads) else attempt


def _done_before(facts: Sequence[DataFact], attempt: int) -> tuple[DataStage, ...]:
    return tuple(
        stage
        for stage in ROLLBACK
        if any(
            fact.stage is stage and fact.attempt == attempt and fact.state is DataState.DONE
            for fact in facts
        )
    )


def _is_back(store: CandleStore, date: date, facts: Sequence[DataFact]) -> bool:
    """Say whether a load was taken back, and nothing of that night or later was loaded since."""
    loaded = any(version.day >= date for version in versions(store.root))
    return not loaded and any(fact.stage is DataStage.PAUSE for fact in facts)


def _require_sound(store: CandleStore, target: Documents) -> None:
    """Raise for what `_Rollback._sound` would find once the store is restored to `target`."""
    require_whole(store.root, target)
    for folder, document in target.items():
        if document is not None:
            stored = series_of(document, where=store.root / folder)
            _features_checked(store, stored, candles_of(store.root, stored))
    for stored in store.series():
        if stored.name.folder.as_posix() not in target:
            _features_checked(store, stored, store.load(stored.name))


def _features_checked(store: CandleStore, stored: StoredSeries, candles: Candles) -> int:
    try:
        return require_same(store.root, stored, candles)
    except FileNotFoundError as error:
        raise DamagedSeries(f"{error.filename} is missing") from error


def _told(
    store: CandleStore,
    day: date,
    *,
    done: Sequence[DataStage],
    before: Sequence[DataStage],
    undone: Sequence[date],
) -> RolledBack:
    return RolledBack(
        day=day,
        done=tuple(done),
        before=tuple(before),
        undone=tuple(undone),
        version=version_digest(store.root),
    )


def _bars(document: Document | None) -> int:
    return 0 if document is None else int(document["bars"])
