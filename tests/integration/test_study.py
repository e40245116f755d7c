"""The study of a sweep in Postgres: which values come next, and that none is lost or repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from bandit.core.tunables import checked_parameters, defaults
from bandit.storage.engine import connect
from bandit.storage.optimization import study_arguments
from bandit.storage.roles import as_application

pytest.importorskip("optuna", reason="the learners are not installed")

from learners.study import RANDOM_TRIALS, Study, StudyTrial

FIXED = {"risk_per_trade": 0.01, "tabnet_epochs": 5}
Opened = Callable[..., Study]


@pytest.fixture
def opened(database_url: str) -> Iterator[Opened]:
    """Open studies with the rights of a running service."""
    url = as_application(database_url)
    assert url is not None
    made = []

    def open_study(name: str, *, trials: int = 6) -> Study:
        arguments = study_arguments(url)
        study = Study(url, name, connect_args=arguments, trials=trials, fixed=FIXED, seed=7)
        made.append(study)
        return study

    yield open_study
    for study in made:
        study.close()


def worth(trial: StudyTrial) -> float:
    return -abs(trial.parameters["stop_atr"] - 3.0)


def ended(study: Study) -> list[StudyTrial]:
    found = []
    while (trial := study.ask()) is not None:
        study.complete(trial.number, worth(trial))
        found.append(trial)
    return found


def test_the_first_trial_takes_the_defaults_and_held_values_are_never_searched(
    opened: Opened, database_url: str
) -> None:
    trials = ended(opened("s"))
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[0].parameters == checked_parameters({**defaults(), **FIXED})
    for trial in trials:
        assert {name: trial.parameters[name] for name in FIXED} == FIXED
        assert checked_parameters(trial.parameters) == trial.parameters
    engine = connect(database_url)
    with engine.connect() as connection:
        statement = text("SELECT count(*) FROM optuna.trial_params WHERE param_name = ANY(:names)")
        assert connection.execute(statement, {"names": list(FIXED)}).scalar_one() == 0
        # Ours is where it was: Optuna's table of the same name lies beside it.
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        assert connection.execute(text("SELECT to_regclass('optuna.alembic_version')")).scalar()
        assert connection.execute(text("SELECT to_regclass('public.studies')")).scalar() is None
    engine.dispose()


def test_values_do_not_hang_on_how_often_the_study_was_opened(opened: Opened) -> None:
    at_once = ended(opened("at_once"))
    for _ in range(6):
        study = opened("one_by_one")
        trial = study.ask()
        assert trial is not None
        study.complete(trial.number, worth(trial))
    assert opened("one_by_one").ask() is None
    by_number = sorted(opened("one_by_one").best(), key=lambda trial: trial.number)
    assert [dict(t.parameters) for t in by_number] == [dict(t.parameters) for t in at_once]
    assert len({tuple(trial.parameters.values()) for trial in at_once}) == 6, "none comes twice"


def test_a_trial_that_was_left_is_taken_up_under_its_number_with_its_values(opened: Opened) -> None:
    first = opened("s")
    begun = [first.ask(), first.ask()]
    again = opened("s")
    assert again.left() == begun
    assert again.counts().ended == 0
    for trial in begun:
        assert trial is not None
        again.complete(trial.number, worth(trial))
    assert [trial.number for trial in ended(again)] == list(range(2, 6))


def test_a_trial_that_was_killed_between_two_values_gets_those_that_it_would_have_got(
    opened: Opened,
) -> None:
    whole = ended(opened("whole"))
    study = opened("killed")
    for _ in range(RANDOM_TRIALS + 1):
        trial = study.ask()
        assert trial is not None
        study.complete(trial.number, worth(trial))
    study._seed_for(RANDOM_TRIALS + 1)
    study._study.ask().suggest_float("stop_atr", 1.0, 4.0)  # and no further
    [left] = opened("killed").left()
    assert left.parameters == whole[RANDOM_TRIALS + 1].parameters


def test_a_trial_below_the_median_of_those_before_is_pruned(opened: Opened) -> None:
    study = opened("s")
    for number in range(RANDOM_TRIALS):
        trial = study.ask()
        assert trial is not None
        assert not study.report(number, 0, float(number)), "the first are let through"
        study.complete(number, float(number))
    good, bad = study.ask(), study.ask()
    assert good is not None
    assert bad is not None
    assert not study.report(good.number, 0, 1.6)
    assert study.report(bad.number, 0, 1.4), "the median is 1.5"
    study.prune(bad.number)
    study.fail(good.number)
    counts = study.counts()
    assert (counts.complete, counts.pruned, counts.failed) == (RANDOM_TRIALS, 1, 1)
    assert [trial.number for trial in study.best()] == [3, 2, 1, 0]


def test_a_fold_that_is_told_again_counts_once(opened: Opened) -> None:
    study = opened("s")
    trial = study.ask()
    assert trial is not None
    study.report(0, 0, 1.0)
    again = opened("s")
    again.left()
    again.report(0, 0, 2.0)
    assert again._frozen(0).intermediate_values == {0: 1.0}
