"""`liveops simulate`: what an experiment's rules do to hypothetical arms, over many seeded runs.

Each run is one `bandit.core.trial`, through the functions that the service calls. Shares of runs
come with Wilson's 95 % interval, means with that of the normal distribution.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from bandit.core import trial
from bandit.core.errors import InvalidInput
from bandit.core.model import WHOLE_PPM, ArmStatus, PolicyName, Rung
from bandit.core.simulation import HypotheticalArm
from bandit.core.trial_plan import Fate, TrialPlan

Floats = NDArray[np.float64]
RUNS_MAX = 100_000
_Z = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure over runs, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def share_of(cls, happened: NDArray[np.bool_]) -> Estimate:
        """Return in what share of the runs something happened.

        >>> Estimate.share_of(np.array([True, False, False, False]))
        Estimate(value=0.25, low=0.0456, high=0.6994)
        """
        found = binomtest(int(happened.sum()), len(happened)).proportion_ci(method="wilson")
        low, high = (round(float(end), 4) for end in (found.low, found.high))
        return cls(value=float(happened.mean()), low=low, high=high)

    @classmethod
    def mean_of(cls, values: Floats) -> Estimate:
        """Average; one run has no interval narrower than everything."""
        error = math.inf
        if len(values) > 1:
            error = float(values.std(ddof=1)) / math.sqrt(len(values))
        mean = float(values.mean())
        return cls(value=mean, low=mean - _Z * error, high=mean + _Z * error)

    def to_json(self) -> dict[str, float | None]:
        """Return the figure and its interval; None for an end that is nowhere."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFate:
    """What became of a challenger over the runs.

    `traffic` has the shape (days + 1, 3): the 5 %, 50 % and 95 % quantiles of its part.
    `days_to_proven` is the median over all runs; None where fewer than half came so far.
    """

    policy: PolicyName
    proven: Estimate
    eligible: Estimate
    stopped: Estimate
    days_to_proven: int | None
    traffic: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What the rules did, in units of the champion's mean |return| per thousand opportunities.

    `gain` is over the champion alone, `regret` what the arm that is best in the mean would have
    earned more, `dip` the 5 % quantile over runs of the worst that the account ever stood below
    the champion alone, in units.
    """

    plan: TrialPlan
    runs: int
    seed: int
    arms: tuple[ArmFate, ...]
    gain: Estimate
    regret: Estimate
    best: PolicyName
    dip: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as `--json` prints them; traffic by day is in the plot."""
        plan = self.plan
        return {
            "setting": plan.setting.name,
            "profile": plan.profile.value,
            "strategy": plan.strategy.value,
            "days": plan.days,
            "opportunities_a_day": plan.per_day,
            "agreement": plan.agreement,
            "on_paper": plan.on_paper,
            "runs": self.runs,
            "seed": self.seed,
            "gain_per_1000": self.gain.to_json(),
            "regret_per_1000": self.regret.to_json(),
            "best": self.best,
            "dip_5_percent": self.dip,
            "arms": [
                {
                    "policy": arm.policy,
                    "ever_proven": arm.proven.to_json(),
                    "ever_eligible": arm.eligible.to_json(),
                    "ever_stopped": arm.stopped.to_json(),
                    "median_days_to_proven": arm.days_to_proven,
                    "traffic_at_end": dict(
                        zip(("low", "median", "high"), arm.traffic[-1].tolist(), strict=True)
                    ),
                }
                for arm in self.arms
            ],
        }


def arm_of(text: str) -> HypotheticalArm:
    """Read `PROFIT_FACTOR` or `PROFIT_FACTOR:WIN_RATE`.

    >>> arm_of("1.3:0.6").win_rate
    0.6

    Raises `InvalidInput`.
    """
    factor, _, rate = text.partition(":")
    try:
        return HypotheticalArm(profit_factor=float(factor), win_rate=float(rate or 0.5))
    except ValueError:
        rule = "must be PROFIT_FACTOR or PROFIT_FACTOR:WIN_RATE"
        raise InvalidInput(field="arm", rule=rule, found=text) from None


def challenger_of(text: str) -> tuple[PolicyName, tuple[HypotheticalArm, ...]]:
    """Read `NAME=ARM`, or `NAME=ARM/ARM` of one that is each in turn.

    >>> name, turns = challenger_of("fickle=1.7/1.0")
    >>> name, [arm.profit_factor for arm in turns]
    ('fickle', [1.7, 1.0])
    """
    name, separator, arms = text.partition("=")
    if not name or not separator:
        raise InvalidInput(field="arm", rule="must be NAME=PROFIT_FACTOR", found=text)
    return PolicyName(name), tuple(arm_of(turn) for turn in arms.split("/"))


@dataclass(frozen=True, slots=True)
class _Run:
    ppm: NDArray[np.int64]
    first: NDArray[np.float64]
    stopped: NDArray[np.bool_]
    earned: Floats
    alone: Floats


def simulate(
    plan: TrialPlan,
    *,
    runs: int,
    seed: int,
    processes: int,
    advanced: Callable[[], None] = lambda: None,
) -> Simulation:
    """Live through a plan `runs` times, with the seeds from `seed` on.

    `advanced` is called after each run. Raises `InvalidInput`.
    """
    if not 1 <= runs <= RUNS_MAX:
        raise InvalidInput(field="runs", rule=f"must lie in 1..{RUNS_MAX}", found=runs)
    found = []
    for one in _lived(plan, range(seed, seed + runs), processes):
        found.append(one)
        advanced()
    return _summary(plan, found, seed=seed)


def _lived(plan: TrialPlan, seeds: Sequence[int], processes: int) -> Iterator[_Run]:
    if processes == 1:
        yield from (_live(plan, seed) for seed in seeds)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        yield from pool.map(partial(_live, plan), seeds, chunksize=4)


def _live(plan: TrialPlan, seed: int) -> _Run:
    lived = trial.run(plan, Fate.drawn(plan, seed=seed))
    count = len(plan.challengers)
    first = np.full((2, count), math.inf)
    for night, rungs in reversed(list(enumerate(lived.rungs, start=1))):
        for i in range(count):
            if rungs[i] is not Rung.UNPROVEN:
                first[0, i] = night
            if rungs[i] is Rung.ELIGIBLE:
                first[1, i] = night
    stopped = np.array(
        [any(s[i] is not ArmStatus.ACTIVE for s in lived.statuses) for i in range(count)]
    )
    return _Run(lived.ppm, first, stopped, lived.earned, lived.alone)


def _summary(plan: TrialPlan, found: Sequence[_Run], *, seed: int) -> Simulation:
    unit, opportunities = plan.champion.size, plan.days * plan.per_day
    earned = np.stack([one.earned for one in found]) / unit
    alone = np.stack([one.alone for one in found]) / unit
    best = int(alone.sum(axis=2).mean(axis=0).argmax())
    ahead = earned - alone[:, -1]
    per_1000 = 1000.0 / opportunities
    dips = np.minimum(np.cumsum(ahead, axis=1).min(axis=1), 0.0)
    return Simulation(
        plan=plan,
        runs=len(found),
        seed=seed,
        arms=tuple(_arm_fate(policy, i, found) for i, policy in enumerate(plan.challengers)),
        gain=Estimate.mean_of(ahead.sum(axis=1) * per_1000),
        regret=Estimate.mean_of((alone[:, best] - earned).sum(axis=1) * per_1000),
        best=plan.policies[best],
        dip=float(np.quantile(dips, 0.05)),
    )


def _arm_fate(policy: PolicyName, place: int, found: Sequence[_Run]) -> ArmFate:
    parts = np.stack([one.ppm[:, place] for one in found]) / WHOLE_PPM
    first = np.stack([one.first[:, place] for one in found])
    middle = float(np.median(first[:, 0]))
    return ArmFate(
        policy=policy,
        proven=Estimate.share_of(np.isfinite(first[:, 0])),
        eligible=Estimate.share_of(np.isfinite(first[:, 1])),
        stopped=Estimate.share_of(np.array([one.stopped[place] for one in found])),
        days_to_proven=int(middle) if math.isfinite(middle) else None,
        traffic=np.quantile(parts, [0.05, 0.5, 0.95], axis=0).T,
    )
