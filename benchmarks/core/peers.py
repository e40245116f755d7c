"""Route a unit and know its propensity, beside two libraries that people use for it.

GrowthBook's SDK runs an experiment in full (hash, weights, result); MABWiser predicts an arm. Ours
does more than either: a keyed hash that clients cannot steer, minimal moves over the history of
ninety reweights, and the propensity. None of the three writes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from growthbook import Experiment as GrowthBookExperiment
from growthbook import GrowthBook
from mabwiser.mab import MAB, LearningPolicy

from bandit.core.model import Allocation, UnitId
from bandit.core.routing import partition_of_history, router
from benchmarks.claims import QUICK, Target, alternated, claim, paired, progress
from benchmarks.core.assignments import SALT, history
from benchmarks.temporary_ledger import EXPERIMENT, INSTRUMENT

UNITS = [UnitId(f"{INSTRUMENT}-2026-03-01T12:{i:04}") for i in range(1000)]
ARMS = 2
GROWTHBOOK_TARGET = 2.0
MABWISER_TARGET = 3.0


def ours() -> Callable[[], None]:
    """Route all units as the service routes a group: the policy and propensity of each."""
    versions = history(ARMS)
    ppm = versions[-1]
    routes = router(
        SALT,
        experiment=EXPERIMENT,
        allocation=Allocation(version=len(versions), champion=next(iter(ppm)), ppm=ppm),
        partition=partition_of_history(versions),
    )

    def route() -> None:
        routes(UNITS)

    return route


def growthbook() -> Callable[[], None]:
    """Run the same weights as a GrowthBook experiment."""
    client = GrowthBook()
    weights = [part / 1_000_000 for part in history(ARMS)[-1].values()]
    experiment = GrowthBookExperiment(
        key=EXPERIMENT, variations=list(range(ARMS)), weights=weights, hashVersion=2
    )

    def run() -> None:
        for unit in UNITS:
            client.set_attributes({"id": unit})
            client.run(experiment)

    return run


def mabwiser(policy: object) -> Callable[[], None]:
    """Predict an arm for every unit, with two arms fitted on a hundred rewards."""
    bandit = MAB(list(range(ARMS)), policy, seed=7)
    bandit.fit([i % ARMS for i in range(100)], [i % 3 % 2 for i in range(100)])

    def predict() -> None:
        for _ in UNITS:
            bandit.predict()

    return predict


def main() -> None:
    """Print the claims."""
    work = {
        "ours": ours(),
        "growthbook": growthbook(),
        "mabwiser_thompson": mabwiser(LearningPolicy.ThompsonSampling()),
        "mabwiser_epsilon_greedy": mabwiser(LearningPolicy.EpsilonGreedy(0.1)),
    }
    progress("routing beside other libraries")
    seconds = alternated(work, rounds=3 if QUICK else 200)
    for name in list(work)[1:]:
        claim(
            f"core.peers.{name}",
            ours=f"{len(UNITS) / median(seconds['ours']):.0f}/s",
            yardstick=f"{len(UNITS) / median(seconds[name]):.0f}/s",
            ratio=paired(seconds[name], seconds["ours"]),
            side=Target.AT_LEAST,
            target=GROWTHBOOK_TARGET if name == "growthbook" else MABWISER_TARGET,
        )


if __name__ == "__main__":
    main()
