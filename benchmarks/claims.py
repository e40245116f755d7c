"""What a benchmark prints, and how ours and its yardstick are measured side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from statistics import median
from time import perf_counter

QUICK = "--quick" in sys.argv[1:]
"""The short form, which shows that a benchmark works and says nothing about speed."""

SECONDS_MAX = 300.0


class Target(StrEnum):
    """On which side of its target a ratio has to lie."""

    AT_LEAST = ">="
    AT_MOST = "<="


def claim(
    name: str, *, ours: str, yardstick: str, ratio: float, side: Target, target: float
) -> None:
    """Print one line of the form that run.py reads."""
    met = ratio >= target if side is Target.AT_LEAST else ratio <= target
    print(
        f"{name} ours={ours} yardstick={yardstick} ratio={ratio:.2f} "
        f"target={side}{target:.2f} {'met' if met else 'missed'}",
        flush=True,
    )


def progress(line: str) -> None:
    """Say on stderr what the benchmark is doing."""
    print(line, file=sys.stderr, flush=True)


def alternated(work: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Run every piece of work once a round, and return its seconds round by round.

    Each round starts with another piece, so that none always follows the same neighbour. No round
    begins after `SECONDS_MAX`: work that has become slow is claimed on fewer rounds.
    """
    names = list(work)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    began = perf_counter()
    for i in range(rounds):
        if i > 0 and perf_counter() - began > SECONDS_MAX:
            progress(f"stopped after {i} of {rounds} rounds")
            break
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            start = perf_counter()
            work[name]()
            seconds[name].append(perf_counter() - start)
    return seconds


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Return the median over rounds of the ratio inside a round.

    What slows a whole round down, such as a neighbour on a shared machine, cancels out of it.
    """
    return median(n / d for n, d in zip(numerator, denominator, strict=True))
