"""Many seeded trials of one plan, in two processes."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

from bandit.core import trial
from bandit.core.trial import Trial
from bandit.core.trial_plan import Fate, TrialPlan

T = TypeVar("T")
PROCESSES = 2


def of_each(
    plan: TrialPlan, look: Callable[[TrialPlan, Trial], T], *, runs: int, seed: int
) -> list[T]:
    """Return what `look`, a function of a module, finds in each of `runs` trials of a plan."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        seeds = range(seed, seed + runs)
        return list(pool.map(partial(_one, plan, look), seeds, chunksize=8))


def _one(plan: TrialPlan, look: Callable[[TrialPlan, Trial], T], seed: int) -> T:
    return look(plan, trial.run(plan, Fate.drawn(plan, seed=seed)))


def share_and_error(found: list[bool]) -> tuple[float, float]:
    """Return the share that is true, and its standard error, of one in the number at least."""
    share = sum(found) / len(found)
    variance = max(share * (1.0 - share), 1.0 / len(found))
    return share, math.sqrt(variance / len(found))
