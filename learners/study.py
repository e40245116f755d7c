"""The study of a sweep, kept by Optuna in Postgres: which values are tried next, and how they did.

One process asks and tells. What it leaves unfinished the next one finds under its number with its
values, so that a study has exactly as many trials as it was to have, however often it was killed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from bandit.core.errors import LedgerUnavailable
from bandit.core.optimization import TrialCounts
from bandit.core.tunables import TUNABLES, Scale, checked_parameters, defaults

RANDOM_TRIALS: Final = 4
"""How many trials pass before values are chosen by those before, and before any is pruned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTrial:
    """A trial of a study: its number, the values it tries, and what came of it, if it ended."""

    number: int
    parameters: Mapping[str, float | int]
    value: float | None = None


class Study:
    """A study of `trials` trials under a name; those of `fixed` are held at their values."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        connect_args: Mapping[str, Any],
        trials: int,
        fixed: Mapping[str, float | int],
        seed: int,
    ) -> None:
        """Open it, or begin it; raises `LedgerUnavailable` where the ledger does not answer."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._fixed, self._wanted, self._seed = dict(fixed), trials, seed
        with _answering():
            storage = optuna.storages.RDBStorage(
                url, engine_kwargs={"connect_args": dict(connect_args), "pool_size": 2}
            )
            self._storage = storage
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=RANDOM_TRIALS),
            )
            if not self._study.trials:
                first = {n: v for n, v in defaults().items() if n not in self._fixed}
                self._study.enqueue_trial(first)
        self._open: dict[int, optuna.Trial] = {}

    def close(self) -> None:
        """Leave the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def left(self) -> list[StudyTrial]:
        """Take up the trials that were begun and have not ended, by their numbers."""
        with _answering():
            running = self._study.get_trials(states=(TrialState.RUNNING,))
            return [self._taken(found.number, found._trial_id) for found in running]

    def ask(self) -> StudyTrial | None:
        """Begin another trial; None where as many as wanted were begun.

        Its values follow from the seed, its number and what is known of the trials before.
        """
        with _answering():
            known = [t for t in self._study.trials if t.state is not TrialState.WAITING]
            if len(known) >= self._wanted:
                return None
            self._seed_for(len(known))
            begun = self._study.ask()
            return self._suggested(begun)

    def report(self, number: int, step: int, value: float) -> bool:
        """Say what a trial is worth after one more fold; return whether it is to be pruned."""
        with _answering():
            held = self._open[number]
            if step not in self._frozen(number).intermediate_values:
                held.report(value, step)
            return held.should_prune()

    def complete(self, number: int, value: float) -> None:
        """End a trial that was made and measured."""
        with _answering():
            self._study.tell(self._open.pop(number), value)

    def prune(self, number: int) -> None:
        """End a trial that has no prospect."""
        with _answering():
            self._study.tell(self._open.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """End a trial that could not be made."""
        with _answering():
            self._study.tell(self._open.pop(number), state=TrialState.FAIL)

    def counts(self) -> TrialCounts:
        """Return how many trials have ended, and how."""
        with _answering():
            states = [found.state for found in self._study.get_trials(deepcopy=False)]
        return TrialCounts(
            complete=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
        )

    def best(self) -> list[StudyTrial]:
        """Return the trials that were made and measured, the best first; of equals the earlier."""
        with _answering():
            complete = self._study.get_trials(states=(TrialState.COMPLETE,))
        ranked = sorted(complete, key=lambda found: (-_value(found), found.number))
        return [
            StudyTrial(number=t.number, parameters=self._with_fixed(t.params), value=_value(t))
            for t in ranked
        ]

    def _taken(self, number: int, trial_id: int) -> StudyTrial:
        # A trial that was killed between two values gets those that it would have got.
        self._seed_for(number)
        return self._suggested(optuna.Trial(self._study, trial_id))

    def _seed_for(self, number: int) -> None:
        # By the number: a sampler seeded once would draw the same again in each new process.
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=RANDOM_TRIALS
            )

    def _suggested(self, begun: optuna.Trial) -> StudyTrial:
        found: dict[str, float | int] = {}
        for each in TUNABLES:
            if each.name in self._fixed:
                continue
            if each.scale is Scale.WHOLE:
                low, high = int(each.lower), int(each.upper)
                found[each.name] = begun.suggest_int(each.name, low, high)
            else:
                by_magnitude = each.scale is Scale.LOGARITHMIC
                found[each.name] = begun.suggest_float(
                    each.name, each.lower, each.upper, log=by_magnitude
                )
        self._open[begun.number] = begun
        return StudyTrial(number=begun.number, parameters=self._with_fixed(found))

    def _with_fixed(self, found: Mapping[str, Any]) -> dict[str, float | int]:
        return checked_parameters({**found, **self._fixed})

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def _value(found: FrozenTrial) -> float:
    assert found.value is not None
    return found.value


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.OperationalError) as error:
        raise LedgerUnavailable(f"the study cannot be reached: {error}") from error
