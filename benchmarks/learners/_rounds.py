"""What a decision takes, by the wall clock and in processor time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, thread_time

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Round:
    """What each decision of a round took, in microseconds."""

    wall: list[float]
    cpu: list[float]


def timed(decide: Callable[[np.ndarray], object], observations: np.ndarray) -> Round:
    """Decide on every observation, one after the other."""
    wall, cpu = [], []
    for row in observations:
        spent, start = thread_time(), perf_counter()
        decide(row)
        end, spent_then = perf_counter(), thread_time()
        wall.append((end - start) * 1e6)
        cpu.append((spent_then - spent) * 1e6)
    return Round(wall=wall, cpu=cpu)
