"""The trials of one sweep: which run, what they say, and how each is ended.

What ends a trial is written in an order that can be begun again anywhere: what it made, its record
among all backtests, then its end in the study.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Self, assert_never

import numpy as np

from bandit.core.backtest import BacktestRule
from bandit.core.optimization import OptimizationRun, study_of
from bandit.core.tunables import TUNABLES
from bandit.service import optimizing
from learners.backends import Backend
from learners.challenger import ChallengerPlan, data_digest
from learners.market.candles import Candles
from learners.study import Study, StudyTrial
from learners.tuned_plan import tuned_plan
from learners.tuning import FoldDone, Said, TrialBegun, TrialFailed, TrialLost, TrialMade, value_of
from learners.workshop import Fold, Workshop
from liveops.clock import monotonic
from liveops.learning import record_failure, recorded, subject_of
from liveops.recipes import Recipe
from liveops.trial_store import TrialStore
from liveops.wiring import App

ATTEMPTS_MAX: Final = 3
"""How often a trial is begun whose worker is lost each time."""

TICK_SECONDS: Final = 1.0
RULE: Final = BacktestRule()
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sweep:
    """What is asked: `trials` of `plan` on candles that were known when `day` began.

    `fixed` tunables are held; `recipe` is how the plan was asked for, but for what is tuned. Of the
    best `keep` trials the artefacts stay.
    """

    day: date
    plan: ChallengerPlan
    series: Sequence[Candles]
    trials: int
    fixed: Mapping[str, float | int]
    recipe: Recipe
    keep: int
    trial_seconds: float
    workers: int

    @property
    def study(self) -> str:
        """Return the name of the study, and of the search that the trials belong to."""
        return study_of(self.day)

    @property
    def asked(self) -> dict[str, Any]:
        """Return all that decides what comes of it; where and how many at a time does not."""
        return {
            "trials": self.trials,
            "fixed": dict(self.fixed),
            "plan": self.plan.digest,
            "candles": data_digest(self.series),
            "until": {
                each.instrument: each.opening(len(each) - 1).isoformat() for each in self.series
            },
            "bounds": {each.name: [each.lower, each.upper] for each in TUNABLES},
        }

    def on_bars_of(self, begun: OptimizationRun | None) -> Self:
        """Return it without the bars that came after `begun` took its own: those change nothing."""
        until = {} if begun is None else begun.asked.get("until", {})
        return replace(
            self, series=[_up_to(each, until.get(each.instrument)) for each in self.series]
        )

    def planned(self, parameters: Mapping[str, float | int]) -> ChallengerPlan:
        """Return the plan of a trial."""
        return tuned_plan(self.plan, parameters, self.series)


def _up_to(candles: Candles, newest: str | None) -> Candles:
    if newest is None:
        return candles
    at = np.datetime64(datetime.fromisoformat(newest).replace(tzinfo=None), "us")
    bars = int(np.searchsorted(candles.opened_at, at, side="right"))
    return candles.until(bars) if bars else candles


def workshop_of(asked: Sweep, plan: ChallengerPlan) -> Workshop:
    """Return where a plan's folds and markets are known; nothing is trained in it."""
    return Workshop(plan, asked.series, folder=Path(), clock=monotonic, report=lambda _: None)


@dataclass(slots=True)
class _Running:
    trial: StudyTrial
    plan: ChallengerPlan
    began: datetime
    until: float
    has_place: bool = False
    attempts: int = 1
    folds: list[Fold] = field(default_factory=list)


@dataclass(slots=True)
class Trials:
    """The trials of one sweep: which run, what they say, and how each is ended."""

    app: App
    asked: Sweep
    study: Study
    backend: Backend
    store: TrialStore
    report: Callable[[str], None]
    actor: str
    running: dict[int, _Running] = field(default_factory=dict)

    def run(self, require_lease: Callable[[], None]) -> None:
        """Run them all; what an earlier process left is begun again first."""
        left = self.study.left()
        self._settle(left)
        while True:
            require_lease()
            while len(self.running) < self.asked.workers:
                following = left.pop(0) if left else self.study.ask()
                if following is None:
                    break
                self._begin(following)
            if not self.running:
                return
            for number, said in self.backend.heard(TICK_SECONDS):
                self._hear(number, said)
            self._end_late()

    def _begin(self, trial: StudyTrial) -> None:
        plan = self.asked.planned(trial.parameters)
        found = _Running(trial, plan, self.app.clock.now(), until=0.0)
        self.running[trial.number] = found
        self._place(found)
        self.report(f"trial {trial.number}: begins")

    def _place(self, found: _Running) -> None:
        # A cluster has it wait for a processor, at worst until all others are done.
        found.has_place = False
        found.until = monotonic() + self.asked.trials * self.asked.trial_seconds
        self.backend.begin(found.trial.number, found.plan)

    def _hear(self, number: int, said: Said) -> None:
        found = self.running[number]
        match said:
            case TrialBegun():
                found.has_place = True
                found.until = monotonic() + self.asked.trial_seconds
            case FoldDone():
                self._fold(found, said)
            case TrialMade():
                self._made(found, said)
            case TrialFailed():
                self._failed(found, said.reason)
            case TrialLost():
                self._lost(found, said.reason)
            case _:
                assert_never(said)

    def _fold(self, found: _Running, said: FoldDone) -> None:
        number, step = found.trial.number, said.fold.number
        found.folds.append(said.fold)
        self.report(f"trial {number}: fold {step + 1}, value {said.value:.6f}")
        if self.study.report(number, step, said.value):
            self.backend.end(number)
            reason = f"pruned after {step + 1} folds: worse than the median of the trials before"
            self._record_failure(found, reason)
            self.study.prune(number)
            self._is_over(number, "pruned")

    def _made(self, found: _Running, said: TrialMade) -> None:
        number = found.trial.number
        self.store.keep(number, said, found.folds)
        walked = workshop_of(self.asked, found.plan).gathered(found.folds)
        recorded(
            self.app,
            subject_of(found.plan, self.asked.series, family=self.asked.study),
            plan=found.plan,
            walked=walked,
            rule=RULE,
            began=found.began,
            actor=self.actor,
        )
        value = value_of(found.plan, walked.trades)
        self.study.complete(number, value)
        self._is_over(number, f"complete, value {value:.6f}")

    def _failed(self, found: _Running, reason: str) -> None:
        number = found.trial.number
        self.backend.end(number)
        self._record_failure(found, reason)
        self.study.fail(number)
        self._is_over(number, f"failed: {reason}")

    def _lost(self, found: _Running, reason: str) -> None:
        number = found.trial.number
        if found.attempts >= ATTEMPTS_MAX:
            self._failed(found, f"its worker was lost {ATTEMPTS_MAX} times")
            return
        log.warning("trial %d is begun again, its worker was lost: %s", number, reason)
        found.attempts += 1
        found.folds.clear()
        self._place(found)

    def _end_late(self) -> None:
        for found in list(self.running.values()):
            if monotonic() > found.until:
                late = f"not done within {self.asked.trial_seconds:g} s"
                self._failed(found, late if found.has_place else "found no free processor")

    def _record_failure(self, found: _Running, reason: str) -> None:
        subject = subject_of(found.plan, self.asked.series, family=self.asked.study)
        record_failure(self.app, subject, reason, began=found.began, actor=self.actor)

    def _is_over(self, number: int, what: str) -> None:
        del self.running[number]
        self.report(f"trial {number}: {what}")
        self._settle([found.trial for found in self.running.values()])

    def _settle(self, running: Sequence[StudyTrial]) -> None:
        """Write down how far the sweep is, and remove what is not needed any more."""
        best = self.study.best()
        first = best[0] if best else None
        optimizing.follow(
            self.app.engine,
            self.asked.study,
            counts=self.study.counts(),
            best_value=None if first is None else first.value,
            parameters={} if first is None else first.parameters,
            now=self.app.clock.now(),
        )
        self.store.forget_others(
            made=[trial.number for trial in best[: self.asked.keep]],
            work=[trial.number for trial in running],
        )
