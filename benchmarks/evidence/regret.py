"""What learning costs: regret of our nights beside the bandits of other packages, run live.

10,000 opportunities in the market `real`, twenty a day, each told a day later, and new shares every
night. Ours live through the nights of production (`bandit/core/trial.py`) in `guarded`; peers are
held to nothing. Everything is played twice: `live`, where a player hears of what it did, and
`on_paper`, where all hear what every arm would have earned. Three of ours play: `default`, as the
product comes, `within`, the best strategy under its own limits, and `open`, the best whose limits
were opened as far as an experiment may open them, as a peer has none. Which strategy that is, with
which setting, with the checklist or without, and which setting of each package, is the best over
all scenarios on tuning runs with a seed of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.core import trial
from bandit.core.limits import Limits
from bandit.core.model import WHOLE_PPM, PolicyName, Strategy
from bandit.core.reading import ChecklistRule, Rules
from bandit.core.simulation import REAL, HypotheticalArm
from bandit.core.trial_plan import TrialPlan
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._opportunities import (
    CHAMPION,
    DAY,
    DELAY_DAYS,
    SCENARIOS,
    Scenario,
    Score,
    Tape,
    played,
    scored,
)
from benchmarks.evidence._peers import ABSENT, PEERS

OPPORTUNITIES = 200 if QUICK else 10_000
RUNS = 2 if QUICK else 48
TUNING_RUNS = 1 if QUICK else 3
SEED = 811_226
TUNING_SEED = 730_400
USUAL, SILENT = Rules(), Rules(checklist=ChecklistRule().silenced)
SETTINGS: Mapping[Strategy, Sequence[Mapping[str, float]]] = {
    strategy: ({},) for strategy in Strategy
} | {
    Strategy.DISCOUNTED_THOMPSON: [{"half_life_days": days} for days in (140, 28, 7)],
    Strategy.SLIDING_WINDOW_THOMPSON: [{"window_days": days} for days in (90, 28, 7)],
}
"""What each strategy is tried with; the first is what it comes with."""
OPENED = Limits(
    champion_floor_ppm=0,
    champion_floor_proven_ppm=0,
    unproven_cap_ppm=WHOLE_PPM,
    arm_minimum_ppm=0,
    step_up=10.0,
)
"""As far as limits open."""


class Ours(NamedTuple):
    """A player of ours: an experiment's settings."""

    strategy: Strategy
    rules: Rules
    limits: Limits


def ours_with(name: str, rules: Rules, limits: Limits) -> dict[str, Ours]:
    """Return every strategy with every one of its settings, under these rules and limits."""
    return {
        ", ".join((f"ours.{strategy.value}({name}", *(f"{k}={v:g}" for k, v in setting.items())))
        + ")": Ours(strategy, replace(rules, allocator=setting), limits)
        for strategy, settings in SETTINGS.items()
        for setting in settings
    }


AS_IT_COMES = ours_with("default", USUAL, Limits())
WITHIN = AS_IT_COMES | ours_with("checklist=silenced", SILENT, Limits())
OPEN = ours_with("open", SILENT, OPENED)
OURS = WITHIN | OPEN
DEFAULT = next(name for name in AS_IT_COMES if AS_IT_COMES[name].strategy is Strategy.RAMP)
NOBODY = "champion_only"
HARMLESS = "3_bad"
OURS_BEST = ("1_bad", HARMLESS, "switching")
"""Scenarios in which no peer may cost less."""

LABELS = {f"{p.package}.{p.algorithm}({p.setting})": p for p in PEERS}
Played = dict[str, dict[str, list[Score]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a scenario, and who plays it."""

    scenario: Scenario
    run: int
    seed: int
    players: tuple[str, ...]
    on_paper: bool


def lived(job: Job, tape: Tape, ours: Ours) -> NDArray[np.int64]:
    """Let the nights of production live through a run, and return the arms they picked."""
    plan = TrialPlan(
        setting=REAL,
        champion=CHAMPION,
        challengers={
            PolicyName(f"new-{i}"): (HypotheticalArm(profit_factor=factor),)
            for i, factor in enumerate(job.scenario.factors)
        },
        days=OPPORTUNITIES // DAY,
        per_day=DAY,
        delay_days=DELAY_DAYS,
        strategy=ours.strategy,
        rules=ours.rules,
        limits=ours.limits,
        on_paper=job.on_paper,
    )
    # A trial counts its challengers first; here the champion is arm 0.
    return (trial.run(plan, tape.fate).chosen.ravel() + 1) % job.scenario.arms


def scores(job: Job) -> dict[str, Score]:
    """Let every player of a job play its run, each the same one."""
    tape = Tape.drawn(
        job.scenario,
        opportunities=OPPORTUNITIES,
        seed=[job.seed, SCENARIOS.index(job.scenario), job.run],
    )
    found = {NOBODY: scored(tape, np.zeros(OPPORTUNITIES, np.int64))}
    for name in job.players:
        if name in OURS:
            picked = lived(job, tape, OURS[name])
        else:
            player = LABELS[name].player(job.scenario.arms, job.run + 1)
            picked = played(tape, player, on_paper=job.on_paper)
        found[name] = scored(tape, picked)
    return found


def all_scores(
    players: Iterable[str], processes: Executor, *, runs: int, seed: int, on_paper: bool
) -> Played:
    """Return the scores of every player by scenario and run."""
    jobs = [
        Job(scenario=scenario, run=run, seed=seed, players=tuple(players), on_paper=on_paper)
        for scenario in SCENARIOS
        for run in range(runs)
    ]
    found: Played = {scenario.name: {} for scenario in SCENARIOS}
    for job, scored_ in zip(jobs, processes.map(scores, jobs), strict=True):
        for name, score in scored_.items():
            found[job.scenario.name].setdefault(name, []).append(score)
    return found


def regrets(found: Sequence[Score]) -> np.ndarray:
    """Return the regret of each run."""
    return np.array([score.regret for score in found])


def totals(found: Played, name: str) -> np.ndarray:
    """Return the regret of each run, its scenarios together."""
    runs = zip(*(by_player[name] for by_player in found.values()), strict=True)
    return np.array([sum(score.regret for score in run) for run in runs])


def dip(found: Sequence[Score]) -> float:
    """Return how far the sum so far fell under champion-only in the worst run of twenty."""
    return float(np.quantile([score.dip for score in found], 0.05))


def who_plays(processes: Executor, *, on_paper: bool) -> tuple[dict[str, str], list[str]]:
    """Return who plays of ours, by limits, and the best of each package; say what each costs."""
    everyone = [*OURS, *LABELS]
    tuned = all_scores(everyone, processes, runs=TUNING_RUNS, seed=TUNING_SEED, on_paper=on_paper)
    cost = {name: float(totals(tuned, name).mean()) for name in everyone}
    progress(f"tuning: regret per 1000, sum of {len(tuned)} scenarios, of {TUNING_RUNS} runs")
    for name in sorted(cost, key=cost.__getitem__):
        progress(f"  {cost[name]:6.1f} {name}")
    packages = dict.fromkeys(peer.package for peer in PEERS)
    peers = [
        min((label for label in LABELS if LABELS[label].package == package), key=cost.__getitem__)
        for package in packages
    ]
    ours = {"within": WITHIN, "open": OPEN}
    best = {name: min(each, key=cost.__getitem__) for name, each in ours.items()}
    return {"default": DEFAULT} | best, peers


def tell(title: str, cost: Mapping[str, np.ndarray], dips: Mapping[str, float], ours: str) -> None:
    """Print what every player cost, beside ours on the same runs."""
    progress(
        f"{title}: regret per 1000 in units, its difference from ours with its standard error "
        f"over {len(cost[ours])} runs, 5 % quantile of the dip"
    )
    for name in sorted(cost, key=lambda name: float(cost[name].mean())):
        more, error = apart(cost[name], cost[ours])
        deepest = f"{dips[name]:8.0f}" if dips else " " * 8
        progress(f"  {cost[name].mean():6.1f} {more:+7.1f} +- {error:4.1f} {deepest}  {name}")


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the mean difference of paired runs, and its standard error."""
    difference = one - other
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def claim_total(way: str, cost: Mapping[str, np.ndarray], ours: str, peers: list[str]) -> None:
    """No peer may be better over all scenarios by more than two standard errors."""

    def ahead(peer: str) -> float:
        more, error = apart(cost[ours], cost[peer])
        return more / error

    closest = max(peers, key=ahead)
    claim(
        f"evidence.regret.total.{way}",
        ours=f"{cost[ours].mean():.1f}",
        yardstick=f"{cost[closest].mean():.1f}",
        ratio=ahead(closest),
        side=Target.AT_MOST,
        target=2.0,
    )


def claim_best(way: str, found: Played, ours: str, peers: list[str]) -> None:
    """Ours must cost least where challengers are bad and where edges switch."""
    for scenario in OURS_BEST:
        cost = {name: float(regrets(found[scenario][name]).mean()) for name in (ours, *peers)}
        best = min(cost[peer] for peer in peers)
        claim(
            f"evidence.regret.{scenario}.{way}",
            ours=f"{cost[ours]:.1f}",
            yardstick=f"{best:.1f}",
            ratio=cost[ours] / best,
            side=Target.AT_MOST,
            target=1.0,
        )


def claim_dip(way: str, found: Mapping[str, Sequence[Score]], ours: str, peers: list[str]) -> None:
    """Where every challenger is bad, ours may fall a quarter as far as the best peer."""
    best = max(dip(found[peer]) for peer in peers)
    claim(
        f"evidence.regret.dip.{HARMLESS}.{way}",
        ours=f"{dip(found[ours]):.0f}",
        yardstick=f"{best:.0f}",
        ratio=dip(found[ours]) / best if best else np.inf,
        side=Target.AT_MOST,
        target=0.25,
    )


def judge(way: str, found: Played, best: Mapping[str, str], peers: list[str]) -> None:
    """Print what everybody cost, and the claims about each of ours."""
    ours = best["within"]
    for scenario, by_player in found.items():
        cost = {name: regrets(score) for name, score in by_player.items()}
        dips = {name: dip(score) for name, score in by_player.items()}
        tell(f"{scenario}, {way}", cost, dips, ours)
    names = (NOBODY, *dict.fromkeys((*best.values(), *peers)))
    cost = {name: totals(found, name) for name in names}
    tell(f"all scenarios, {way}", cost, {}, ours)
    for limits, name in best.items():
        claim_total(f"{limits}.{way}", cost, name, peers)
        claim_best(f"{limits}.{way}", found, name, peers)
        claim_dip(f"{limits}.{way}", found[HARMLESS], name, peers)


def main() -> int:
    """Print the claims; 1 where there is nobody to compare with."""
    for package in ABSENT:
        progress(f"ABSENT: {package} is not installed and takes no part")
    if not PEERS:
        return 1
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as processes:
        for way, on_paper in (("live", False), ("on_paper", True)):
            best, peers = who_plays(processes, on_paper=on_paper)
            players = dict.fromkeys((*best.values(), *peers))
            found = all_scores(players, processes, runs=RUNS, seed=SEED, on_paper=on_paper)
            judge(way, found, best, peers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
