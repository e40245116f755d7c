"""Sweeps: what one was asked, how far it is, and what a trial of it is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

import numpy as np

from bandit.core.model import PolicyName

PRIOR_LOSSES: Final = 2
"""Trades that were stopped out, which every trial is taken to have made beside its own."""

_Z: Final = 1.6448536269514722  # of 95 %, one-sided


class RunState(StrEnum):
    """How far a sweep is."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """How many trials of a sweep ended in which way."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0

    @property
    def ended(self) -> int:
        """Return how many ended."""
        return self.complete + self.pruned + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationRun:
    """One sweep: `asked` is all that decides what comes of it, `parameters` are those of the best.

    `policy` is what was registered of it.
    """

    study: str
    began_at: datetime
    changed_at: datetime
    trials: int
    asked: Mapping[str, Any]
    state: RunState
    counts: TrialCounts
    best_value: float | None
    parameters: Mapping[str, Any]
    policy: PolicyName | None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "study": self.study,
            "state": self.state.value,
            "began_at": self.began_at.isoformat(),
            "changed_at": self.changed_at.isoformat(),
            "trials": self.trials,
            "complete": self.counts.complete,
            "pruned": self.counts.pruned,
            "failed": self.counts.failed,
            "best_value": self.best_value,
            "parameters": dict(self.parameters),
            "policy": self.policy,
        }


def study_of(day: date) -> str:
    """Return the name of a day's sweep: of its study, and of the search its trials belong to.

    >>> study_of(date(2026, 3, 1))
    'tune_20260301'
    """
    return f"tune_{day:%Y%m%d}"


def policy_of(day: date) -> PolicyName:
    """Return the name under which the best of a day's sweep is registered.

    >>> policy_of(date(2026, 3, 1))
    'tuned_20260301'
    """
    return PolicyName(f"tuned_{day:%Y%m%d}")


def growth_bound(
    returns: Sequence[float], *, position_ratio: float, risk_per_trade: float
) -> float:
    """Return what a trial is worth: the lower bound of the mean log growth of a trade.

    A trade that puts in `position_ratio` of the equity and returns r lets it grow by
    log(1 + position_ratio · r). Of all of them, and of `PRIOR_LOSSES` more that lost
    `risk_per_trade`, it is the mean less 1.645 standard errors: 95 of 100 times the true one is
    higher. So few trades are worth little however well they went, none at all are worth the loss,
    and twice the risk is worth more only where the edge is larger than the risk.

    >>> round(growth_bound([], position_ratio=0.5, risk_per_trade=0.01), 6)
    -0.01005
    >>> few, many = ([0.02, -0.01] * n for n in (5, 500))
    >>> few, many = (growth_bound(r, position_ratio=0.5, risk_per_trade=0.01) for r in (few, many))
    >>> few < 0 < many
    True
    """
    # Whoever loses everything is ruined: finite, so that a study can hold it, and worst of all.
    kept = [max(1.0 + position_ratio * r, 1e-9) for r in returns]
    kept += [1.0 - risk_per_trade] * PRIOR_LOSSES
    growth = np.log(np.asarray(kept, dtype=np.float64))
    error = float(growth.std(ddof=1)) / math.sqrt(len(growth))
    return float(growth.mean()) - _Z * error
