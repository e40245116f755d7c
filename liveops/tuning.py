"""Sweeps: a day's search for better values, in trials that go on where they were killed.

One process at a time runs the sweeps of a ledger, so that what it finds begun nobody is at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from bandit.core.errors import BanditError
from bandit.core.model import PolicyName
from bandit.core.optimization import OptimizationRun, RunState, policy_of
from bandit.service import data_runs, learner_jobs, optimizing, policies
from bandit.storage.locks import LockClass, leased
from learners.backends import Backend
from learners.market.candles import Candles
from learners.study import Study, StudyTrial
from liveops.deciders import artifact_home
from liveops.learning import Learned, Made, enrolled, subject_of
from liveops.ledger_server import tuning_dir
from liveops.sweep_trials import RULE, Sweep, Trials, workshop_of
from liveops.trial_store import KeptTrial, TrialStore
from liveops.wiring import App


class SweepFailed(BanditError):
    """A sweep has no policy: no trial could be measured, or what the best made is gone."""

    code = "sweep_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A sweep that is complete; `learned` is what was registered now, if anything was."""

    run: OptimizationRun
    kept: Sequence[int]
    learned: Learned | None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        made = None if self.learned is None else self.learned.to_json()
        best = "none" if self.run.best_value is None else f"{self.run.best_value:.6f}"
        said = f"{self.run.trials} trials, best {best}: {self.run.policy or 'no policy'}"
        told = {**self.run.to_json(), "kept": list(self.kept), "registered": made}
        return {"done": [said] if made is not None else [], **told}


def sweep(
    app: App,
    asked: Sweep,
    *,
    backend: Callable[[Sequence[Candles], TrialStore], Backend],
    report: Callable[[str], None],
    actor: str,
) -> Swept:
    """Run a day's sweep to its end, or go on with it; one that is complete stays as it is.

    It goes on with the bars that it was begun with, which `backend` is given; later ones wait.
    Raises `LockHeldElsewhere` while another process runs one, `Conflict` where that day's was begun
    otherwise, `SweepFailed` where nothing came of it or what its best made is gone, and
    `InvalidInput` for candles too few.
    """
    data_runs.require_whole(app.engine)
    optimizing.require_room(app.engine)
    store = TrialStore(tuning_dir(app.settings, demo=app.demo) / asked.study)
    with leased(app.engine, LockClass.TUNING, 0, doing="sweep") as require_lease:
        asked = _as_begun(asked, optimizing.find(app.engine, asked.study))
        now = app.clock.now()
        run = optimizing.begin(
            app.engine, asked.study, trials=asked.trials, asked=asked.asked, now=now, actor=actor
        )
        with closing(_study(app, asked)) as study:
            if run.state is RunState.RUNNING:
                with closing(backend(asked.series, store)) as running:
                    trials = Trials(app, asked, study, running, store, report, actor)
                    trials.run(require_lease)
                require_lease()
            return _ended(app, asked, study, store, actor=actor)


def outlook(app: App, asked: Sweep) -> dict[str, Any]:
    """Return what `sweep` would do now, and write nothing; raises as it does."""
    data_runs.require_whole(app.engine)
    optimizing.require_room(app.engine)
    found = optimizing.find(app.engine, asked.study)
    asked = _as_begun(asked, found)
    ended = 0 if found is None else found.counts.ended
    state = "new" if found is None else found.state.value
    is_over = found is not None and found.state is not RunState.RUNNING
    left = 0 if is_over else asked.trials - ended
    would = [
        f"run {left} of {asked.trials} trials",
        f"keep the artefacts of the best {asked.keep}",
        f"register the best as {policy_of(asked.day)}",
    ]
    return {
        "would": [] if is_over else would,
        "study": asked.study,
        "state": state,
        "trials": asked.trials,
        "ended": ended,
        "bars": len(asked.series[0]),
        "folds": len(workshop_of(asked, asked.planned(asked.fixed)).splits),
        "fixed": dict(asked.fixed),
    }


def _as_begun(asked: Sweep, begun: OptimizationRun | None) -> Sweep:
    """Return a sweep on the bars that it was begun with; raises where it cannot be gone on with."""
    asked = asked.on_bars_of(begun)
    if begun is not None:
        optimizing.require_same(begun, asked.asked)
    workshop_of(asked, asked.planned(asked.fixed)).splits  # noqa: B018 - raises where none fits
    return asked


def _ended(app: App, asked: Sweep, study: Study, store: TrialStore, *, actor: str) -> Swept:
    """Register the best trial, and end the run; nothing where that was done before."""
    best = study.best()
    kept = [trial.number for trial in best[: asked.keep]]
    found = optimizing.find(app.engine, asked.study)
    assert found is not None
    policy, learned = None, None
    if found.state is RunState.RUNNING:
        if best:
            policy, learned = _registered(app, asked, best[0], store, actor=actor)
        now = app.clock.now()
        found = optimizing.end(app.engine, asked.study, policy=policy, now=now, actor=actor)
    if found.state is RunState.FAILED:
        raise SweepFailed(f"{asked.study}: none of its {asked.trials} trials could be measured")
    return Swept(run=found, kept=kept, learned=learned)


def _registered(
    app: App, asked: Sweep, best: StudyTrial, store: TrialStore, *, actor: str
) -> tuple[PolicyName, Learned | None]:
    """Register what the best trial made, as `liveops learn` does.

    Without news since a sweep before, the best is what that one registered: then nothing is new.
    """
    plan, kept = asked.planned(best.parameters), _kept(asked, best, store)
    subject = subject_of(plan, asked.series, family=asked.study)
    for held in (record.policy for record in policies.listed(app.engine)):
        if held.sha == kept.sha and held.metadata.get("trial") != subject.trial_id():
            return held.name, None
    workshop = workshop_of(asked, plan)
    made = Made(
        plan=plan,
        workshop=workshop,
        walked=workshop.gathered(kept.folds),
        artifact=store.publish(best.number, artifact_home(app.settings)),
        began=app.clock.now(),
    )
    learned = enrolled(
        app, name=policy_of(asked.day), subject=subject, made=made, rule=RULE, actor=actor
    )
    texts = [f"{name}={value!r}" for name, value in best.parameters.items()]
    recipe = replace(asked.recipe, options={**asked.recipe.options, "tuned": texts})
    learner_jobs.keep_recipe(app.engine, learned.policy.name, recipe.to_json(), now=app.clock.now())
    return learned.policy.name, learned


def _kept(asked: Sweep, best: StudyTrial, store: TrialStore) -> KeptTrial:
    # A ledger that was restored may know of a trial whose files were removed since, or never here.
    try:
        return store.load(best.number)
    except FileNotFoundError:
        folder = store.made(best.number)
        raise SweepFailed(
            f"{asked.study}: its best is trial {best.number}, and {folder} is not whole: bring it "
            "back from where the sweep ran, or begin a sweep of another day with --date"
        ) from None


def _study(app: App, asked: Sweep) -> Study:
    url, connect_args = optimizing.study_place(app.engine)
    return Study(
        url,
        asked.study,
        connect_args=connect_args,
        trials=asked.trials,
        fixed=asked.fixed,
        seed=asked.plan.training.seed,
    )
