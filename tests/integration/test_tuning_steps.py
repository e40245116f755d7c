"""Each step that ends a trial or a sweep: broken off after it, and begun again to the same end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from api_service import application
from made_up_candles import HOUR, part, random_walk
from postgres_server import PostgresServer
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, InternalError
from sweeps import STUDY, a_sweep, trials_of

from bandit.core.errors import Conflict, InvalidInput, LockHeldElsewhere
from bandit.core.optimization import RunState, TrialCounts
from bandit.service import learner_jobs, optimizing, policies, trials
from bandit.storage.engine import connect
from bandit.storage.locks import Lease, LockClass
from learners.challenger import ChallengerPlan
from learners.market.candles import Candles
from learners.study import Study
from learners.tuning import FoldDone, Said, TrialBegun, TrialFailed, TrialLost, TrialMade, trial
from liveops import sweep_trials, tuning
from liveops.clock import VirtualClock, monotonic
from liveops.learning import Learned
from liveops.ledger_server import tuning_dir
from liveops.sweep_trials import ATTEMPTS_MAX, Sweep
from liveops.trial_store import TrialStore
from liveops.tuning import SweepFailed, Swept, outlook, sweep
from liveops.wiring import App

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")

WALK = random_walk(1_620, seed=5)
SERIES = [part(WALK, 0, 1_560)]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Words = Callable[[int, int], Sequence[Said]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Said]:
    """What one real trial says, to be said again in the place of others."""
    folder = tmp_path_factory.mktemp("trial")
    asked = a_sweep(application_settings(folder), SERIES, trials=1)
    words = list(trial(asked.planned(asked.fixed), SERIES, folder=folder, clock=monotonic))
    assert isinstance(words[-1], TrialMade)
    return words


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    found = application(engine, clock=VirtualClock(NOW))
    return replace(found, settings=application_settings(tmp_path))


def application_settings(home: Path) -> Any:
    from config.settings import Settings

    return Settings(home=home)


class Scripted:
    """Where trials say what is written of their number and attempt; nothing is trained."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._attempts: dict[int, int] = {}
        self._left: dict[int, list[Said]] = {}
        self.ended: list[int] = []

    def begin(self, number: int, plan: ChallengerPlan) -> None:  # noqa: ARG002 - a backend's
        self._attempts[number] = self._attempts.get(number, 0) + 1
        self._left[number] = list(self._words(number, self._attempts[number]))

    def heard(self, seconds: float) -> list[tuple[int, Said]]:  # noqa: ARG002 - a backend's
        return [(number, left.pop(0)) for number, left in self._left.items() if left]

    def end(self, number: int) -> None:
        self._left.pop(number, None)
        self.ended.append(number)

    def close(self) -> None:
        self._left.clear()


def run(app: App, asked: Sweep, backend: Scripted) -> Swept:
    return sweep(app, asked, backend=lambda *_: backend, report=lambda _: None, actor="test")


def end_state(app: App) -> Mapping[str, Any]:
    found = optimizing.find(app.engine, STUDY)
    assert found is not None
    home = app.settings.home
    return {
        "trials": trials_of(app.engine),
        "recorded": [(t.id, t.metrics, t.failure) for t in trials.listed(app.engine, STUDY)],
        "run": replace(found, began_at=NOW, changed_at=NOW),
        "policies": [record.policy for record in policies.listed(app.engine)],
        "recipe": learner_jobs.recipe_of(app.engine, "tuned_20260301"),
        "kept": sorted(path.name for path in (home / "tuning" / STUDY).iterdir()),
        "artifacts": sorted(path.name for path in (home / "artifacts").iterdir()),
    }


class BrokenOff(BaseException):
    """As if the process had ended here."""


def broken_off_after(step: Callable[..., Any], named: str, broken: list[str]) -> Any:
    def once(*given: Any, **more: Any) -> Any:
        step(*given, **more)
        broken.append(named)
        raise BrokenOff(named)

    return once


STEPS = (
    (TrialStore, "keep"),
    (sweep_trials, "recorded"),
    (Study, "complete"),
    (sweep_trials, "record_failure"),
    (Study, "fail"),
    (tuning.optimizing, "follow"),
    (TrialStore, "forget_others"),
    (TrialStore, "publish"),
    (tuning, "enrolled"),
    (tuning.learner_jobs, "keep_recipe"),
    (tuning.optimizing, "end"),
)


def test_broken_off_after_any_step_a_sweep_ends_as_if_it_had_not_been(
    app: App, said: Sequence[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep is broken off after each step in turn, each time at the first one that comes."""

    def words(number: int, attempt: int) -> Sequence[Said]:
        return [TrialBegun(), TrialFailed(reason="a class never comes")] if number == 2 else said

    asked = a_sweep(app.settings, SERIES, trials=4)
    broken = list[str]()
    for owner, name in STEPS:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, broken_off_after(getattr(owner, name), name, broken))
            with pytest.raises(BrokenOff):
                run(app, asked, Scripted(words))
    assert broken == [name for _, name in STEPS]
    found = run(app, asked, Scripted(words))
    state = end_state(app)
    assert found.run.counts == TrialCounts(complete=3, failed=1)
    assert [t["number"] for t in state["trials"]] == [0, 1, 2, 3]
    assert len(state["recorded"]) == 4, "the failed one counts, and none counts twice"
    assert [t.failure for t in trials.listed(app.engine, STUDY)].count("a class never comes") == 1
    assert state["kept"] == sorted(f"made-{number}" for number in found.kept)
    assert len(found.kept) == 2
    assert [policy.name for policy in state["policies"]] == ["tuned_20260301"]
    with app.engine.connect() as connection:
        changes = connection.exec_driver_sql("SELECT count(*) FROM parameter_history").scalar_one()
    assert changes == 21, "each parameter once"
    assert run(app, asked, Scripted(words)).learned is None
    assert end_state(app) == state


def test_a_pruned_trial_counts_and_leaves_nothing(app: App, said: Sequence[Said]) -> None:
    def words(number: int, attempt: int) -> Sequence[Said]:
        if number < 4:
            return said
        return [replace(w, value=-1.0) if isinstance(w, FoldDone) else w for w in said]

    backend = Scripted(words)
    found = run(app, a_sweep(app.settings, SERIES, trials=5), backend)
    assert found.run.counts == TrialCounts(complete=4, pruned=1)
    assert backend.ended == [4], "its process is ended with its first fold"
    failures = [t.failure for t in trials.listed(app.engine, STUDY) if t.failure is not None]
    assert failures == ["pruned after 1 folds: worse than the median of the trials before"]
    search = trials.searched(app.engine, trials.listed(app.engine, STUDY)[0])
    assert (search.n_trials, search.n_measured) == (5, 4), "the deflated Sharpe ratio counts it"


def test_a_lost_worker_is_replaced_and_one_that_is_lost_each_time_has_failed(
    app: App, said: Sequence[Said]
) -> None:
    lost = [TrialBegun(), said[1], TrialLost(reason="power")]

    def words(number: int, attempt: int) -> Sequence[Said]:
        return lost if number == 1 or attempt < ATTEMPTS_MAX else said

    found = run(app, a_sweep(app.settings, SERIES, trials=2), Scripted(words))
    assert found.run.counts == TrialCounts(complete=1, failed=1)
    [failed] = [t for t in trials.listed(app.engine, STUDY) if t.failure is not None]
    assert failed.failure == "its worker was lost 3 times"


def test_a_trial_that_takes_too_long_is_ended_and_has_failed(
    app: App, said: Sequence[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(sweep_trials, "monotonic", lambda: clock[0])

    class Slow(Scripted):
        def heard(self, seconds: float) -> list[tuple[int, Said]]:
            found = super().heard(seconds)
            clock[0] += 0.0 if found else 60.0
            return found

    backend = Slow(lambda number, _: [[TrialBegun()], [], said][number])
    found = run(app, a_sweep(app.settings, SERIES, trials=3, trial_seconds=600.0), backend)
    assert found.run.counts == TrialCounts(complete=1, failed=2)
    assert backend.ended == [0, 1]
    assert clock[0] == 660.0 + 3 * 600.0 + 60.0, "one that waits for a place waits for all others"
    failures = [t.failure for t in trials.listed(app.engine, STUDY) if t.failure is not None]
    assert failures == ["not done within 600 s", "found no free processor"]


def test_a_sweep_of_which_nothing_came_has_failed_and_stays_so(app: App) -> None:
    def words(number: int, attempt: int) -> Sequence[Said]:
        return [TrialBegun(), TrialFailed(reason="no class comes")]

    asked = a_sweep(app.settings, SERIES, trials=2)
    for _ in range(2):
        with pytest.raises(SweepFailed, match="none of its 2 trials could be measured"):
            run(app, asked, Scripted(words))
    found = optimizing.find(app.engine, STUDY)
    assert found is not None
    assert (found.state, found.policy) == (RunState.FAILED, None)
    assert outlook(app, asked)["would"] == []


def test_a_week_without_news_registers_nothing_new(app: App, said: Sequence[Said]) -> None:
    first = run(app, a_sweep(app.settings, SERIES, trials=1), Scripted(lambda *_: said))
    later = datetime(2026, 3, 8, 12, tzinfo=UTC)
    app = replace(app, clock=VirtualClock(later))
    asked = a_sweep(app.settings, SERIES, trials=1, day=later.date())
    found = run(app, asked, Scripted(lambda *_: said))
    assert isinstance(first.learned, Learned)
    assert (found.run.state, found.run.policy) == (RunState.COMPLETE, "tuned_20260301")
    assert found.learned is None
    with app.engine.connect() as connection:
        statement = "SELECT count(*) FROM parameter_history WHERE study = 'tune_20260308'"
        assert connection.exec_driver_sql(statement).scalar_one() == 0, "nothing changed"


def test_one_process_sweeps_at_a_time_and_asks_for_one_thing(
    app: App, said: Sequence[Said]
) -> None:
    asked = a_sweep(app.settings, SERIES, trials=1)
    lease = Lease(app.engine, LockClass.TUNING, 0)
    assert lease.hold()
    with pytest.raises(LockHeldElsewhere, match="another process is at it now"):
        run(app, asked, Scripted(lambda *_: said))
    lease.leave()
    run(app, asked, Scripted(lambda *_: said))
    with pytest.raises(Conflict, match="was begun with other candles, plan, trials"):
        run(
            app,
            a_sweep(
                app.settings,
                [random_walk(1_600, seed=6)],
                trials=2,
                plan=replace(asked.plan, embargo_bars=30),
            ),
            Scripted(lambda *_: said),
        )


def test_bars_that_come_late_change_nothing_and_those_that_go_or_change_are_named(
    app: App, said: Sequence[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = SERIES[0]
    with monkeypatch.context() as patched:
        kept = broken_off_after(TrialStore.keep, "keep", [])
        patched.setattr(TrialStore, "keep", kept)
        with pytest.raises(BrokenOff):
            run(app, a_sweep(app.settings, [known], trials=2), Scripted(lambda *_: said))
    corrected = replace(known, volume=known.volume + 1, bar_interval=HOUR)
    for series in (known.until(1_500), corrected, part(WALK, 1_560, 1_620)):
        asked = a_sweep(app.settings, [series], trials=2)
        for attempt in (outlook, lambda app, asked: run(app, asked, Scripted(lambda *_: said))):
            with pytest.raises(Conflict) as refused:
                attempt(app, asked)
            assert str(refused.value) == (
                f"{STUDY} was begun with other candles (of its bars, BTCUSD up to "
                "2024-03-05T23:00:00+00:00, some are gone or others: rolled back or corrected, or "
                "not those that are asked for); go on with the same, or begin a sweep of another "
                "day with --date"
            )
    asked = a_sweep(app.settings, [WALK], trials=2)
    assert outlook(app, asked)["bars"] == 1_560
    given: list[int] = []

    def backend(series: Sequence[Candles], _: TrialStore) -> Scripted:
        given.append(len(series[0]))
        return Scripted(lambda *_: said)

    found = sweep(app, asked, backend=backend, report=lambda _: None, actor="test")
    assert (found.run.state, found.run.counts.complete, given) == (RunState.COMPLETE, 2, [1_560])
    windows = {t.subject.window_last for t in trials.listed(app.engine, STUDY)}
    assert windows == {known.closing(1_559)}, "all of it was measured on the bars of the beginning"
    assert run(app, asked, Scripted(lambda *_: said)).run == found.run, "done stays done"


def test_nothing_is_begun_that_cannot_be_done(app: App, said: Sequence[Said]) -> None:
    short = a_sweep(app.settings, [random_walk(900, seed=5)], trials=1)
    for attempt in (outlook, lambda app, asked: run(app, asked, Scripted(lambda *_: said))):
        with pytest.raises(InvalidInput, match="or more for one fold"):
            attempt(app, short)
    assert optimizing.newest(app.engine) == []


def test_a_sweep_of_the_demo_leaves_what_the_real_one_made(
    app: App, said: Sequence[Said], postgres_server: PostgresServer
) -> None:
    real = run(app, a_sweep(app.settings, SERIES, trials=3), Scripted(lambda *_: said))
    kept = tuning_dir(app.settings, demo=False) / STUDY
    before = files_below(kept)
    assert len(real.kept) == 2
    assert before
    with postgres_server.database() as url:
        engine = connect(url)
        demo = replace(app, engine=engine, demo=True)
        found = run(demo, a_sweep(app.settings, SERIES, trials=1), Scripted(lambda *_: said))
        engine.dispose()
    assert found.kept == [0]
    assert files_below(kept) == before
    assert [path.name for path in (app.settings.home / "tuning.demo" / STUDY).iterdir()] == [
        "made-0"
    ]


def files_below(folder: Path) -> Mapping[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_best_trial_whose_files_are_gone_is_named_and_goes_on_once_they_are_back(
    app: App, said: Sequence[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = a_sweep(app.settings, SERIES, trials=1)
    with monkeypatch.context() as patched:
        patched.setattr(tuning, "_ended", broken_off_after(lambda *_, **__: None, "trials", []))
        with pytest.raises(BrokenOff):
            run(app, asked, Scripted(lambda *_: said))
    made = tuning_dir(app.settings, demo=False) / STUDY / "made-0"
    # As of a restored ledger, on a machine where the sweep went further or never ran.
    away = made.rename(made.with_name("away"))
    with pytest.raises(SweepFailed, match=r"trial 0, and .*made-0 is not whole: bring it back"):
        run(app, asked, Scripted(lambda *_: said))
    assert policies.listed(app.engine) == []
    away.rename(made)
    assert run(app, asked, Scripted(lambda *_: said)).learned is not None


def test_what_ended_stays_ended_and_what_was_asked_stays_so(app: App, said: Sequence[Said]) -> None:
    run(app, a_sweep(app.settings, SERIES, trials=1), Scripted(lambda *_: said))
    optimizing.begin(app.engine, "tune_20260308", trials=3, asked={}, now=NOW, actor="test")
    for study, change, refusal in (
        (STUDY, "best_value = 9", "is complete: it stays so"),
        ("tune_20260308", "asked = '{\"trials\": 9}'", "stays what was asked for"),
        ("tune_20260308", "trials = 9", "stays what was asked for"),
        ("tune_20260308", "state = 'complete'", "complete_with_a_policy"),
        ("tune_20260308", "trials_failed = 4", "no_more_trials_than_asked"),
    ):
        statement = text(f"UPDATE optimization_runs SET {change} WHERE study = :study")
        with (
            pytest.raises((InternalError, IntegrityError), match=refusal),
            app.engine.begin() as connection,
        ):
            connection.execute(statement, {"study": study})
