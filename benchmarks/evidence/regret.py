"""What learning costs: regret of each strategy beside the bandits of other packages, run live.

10,000 opportunities in the market `real`, twenty a day, results known a day later on average, and
new shares every night. Ours are held to limits (`limited`), as they are in service: the champion
keeps a tenth, a live challenger 2 %, and nobody grows by more than half a night. Lines named
`bare` are the same strategies without; peers are never limited. The setting of each peer is the
best of those in `_peers.py` on tuning runs of their own; ours have the product's defaults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.registry import STRATEGIES, strategy
from bandit.core.allocators.strategy import DayResults, Strategy
from bandit.core.model import PolicyName
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._opportunities import (
    SCENARIOS,
    Player,
    Scenario,
    Score,
    Tape,
    Trade,
    played,
    scored,
)
from benchmarks.evidence._peers import ABSENT, PEERS

OPPORTUNITIES = 500 if QUICK else 10_000
RUNS = 2 if QUICK else 48
TUNING_RUNS = 1 if QUICK else 3
SEED = 730_401
TUNING_SEED = 730_400
BARE = ("thompson", "discounted_thompson", "ucb")
START, FLOOR, MINIMUM, STEP_UP = 0.1, 0.1, 0.02, 1.5
OURS = "discounted_thompson"
CHAMPION = "champion_only"
CHAMPION_ARM = PolicyName("arm0")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a night is decided on: the arms' moments, what each holds, and chance."""

    moments: Mapping[PolicyName, Moments]
    held: Mapping[PolicyName, float]
    rule: Strategy
    limits: bool
    rng: np.random.Generator


def ours(state: State) -> dict[PolicyName, float]:
    """Return tonight's shares: what the strategy would like, within the limits."""
    liked = state.rule.shares(state.moments, champion=CHAMPION_ARM, rng=state.rng)
    return limited(liked, state.held) if state.limits else liked


def limited(
    liked: Mapping[PolicyName, float], held: Mapping[PolicyName, float]
) -> dict[PolicyName, float]:
    """Lift and cut the challengers' shares to their limits; the champion has the rest."""
    found = {
        arm: max(MINIMUM, min(share, held[arm] * STEP_UP))
        for arm, share in liked.items()
        if arm != CHAMPION_ARM
    }
    over = sum(found.values()) - (1.0 - FLOOR)
    if over > 0.0:
        room = sum(share - MINIMUM for share in found.values())
        found = {arm: share - over * (share - MINIMUM) / room for arm, share in found.items()}
    return {CHAMPION_ARM: 1.0 - sum(found.values())} | found


class Ours:
    """A strategy as a player."""

    def __init__(self, rule: Strategy, *, arms: int, limits: bool, seed: int) -> None:
        self.rule, self.limits, self.rng = rule, limits, np.random.default_rng([SEED, seed])
        self.names = [PolicyName(f"arm{arm}") for arm in range(arms)]
        self.held = dict.fromkeys(self.names, START) | {CHAMPION_ARM: 1.0 - START * (arms - 1)}
        nights = OPPORTUNITIES // 20
        # Days are weighed one by one, which makes a table of it: last night is the last entry.
        ages = [DayResults(days_ago=ago, n=1, total=0.0) for ago in range(nights - 1, -1, -1)]
        self.weights = np.array([rule.weigh([age], second_moment=1.0).n for age in ages])
        self.days = np.zeros((2, arms, nights))
        self.life = np.zeros((2, arms))
        self.night = 0

    def learn(self, trades: Sequence[Trade]) -> None:
        """Put the day that has ended beside the others."""
        if self.night:
            where = np.array([trade.arm for trade in trades], np.int64)
            results = np.array([trade.result for trade in trades])
            brought = [np.ones(len(trades)), results, results**2]
            n, total, squares = (
                np.bincount(where, weights=each, minlength=len(self.names)) for each in brought
            )
            self.days[:, :, self.night - 1] = n, total
            self.life += n, squares
        self.night += 1

    def pick(self, draws: Sequence[float]) -> tuple[list[int], list[float]]:
        """Route by tonight's shares."""
        self.held = ours(
            State(
                moments=self.moments(),
                held=self.held,
                rule=self.rule,
                limits=self.limits,
                rng=self.rng,
            )
        )
        shares = np.array([self.held[name] for name in self.names])
        arms = np.searchsorted(np.cumsum(shares)[:-1], draws, side="right")
        return arms.tolist(), shares[arms].tolist()

    def moments(self) -> dict[PolicyName, Moments]:
        """Weigh each arm's days as its strategy does."""
        past = self.night - 1
        n, total = self.days[:, :, :past] @ self.weights[len(self.weights) - past :]
        second = self.life[1] / np.maximum(self.life[0], 1.0)
        least = np.divide(total**2, n, out=np.zeros_like(n), where=n > 0)
        rows = zip(n.tolist(), total.tolist(), np.maximum(n * second, least).tolist(), strict=True)
        return {
            name: Moments(n=count, total=sum_, squares=squares)
            for name, (count, sum_, squares) in zip(self.names, rows, strict=True)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a scenario, and who plays it."""

    scenario: Scenario
    run: int
    seed: int
    players: tuple[str, ...]


def player_of(name: str, arms: int, run: int) -> Player:
    """Make a player: a peer by its label, or a strategy of ours, `limited` or `bare`."""
    if name in LABELS:
        return LABELS[name].player(arms, run + 1)
    rule, held = name.split(".")
    return Ours(strategy(rule, {}), arms=arms, limits=held == "limited", seed=run)


def scores(job: Job) -> dict[str, Score]:
    """Let every player of a job play its run, each the same one."""
    tape = Tape.drawn(
        job.scenario,
        opportunities=OPPORTUNITIES,
        seed=[job.seed, SCENARIOS.index(job.scenario), job.run],
    )
    found = {CHAMPION: scored(tape, np.zeros(OPPORTUNITIES, np.int64))}
    for name in job.players:
        picked = played(tape, player_of(name, job.scenario.arms, job.run))
        found[name] = scored(tape, picked)
    return found


LABELS = {f"{p.package}.{p.algorithm}({p.setting})": p for p in PEERS}
Played = dict[str, dict[str, list[Score]]]


def all_scores(players: Iterable[str], *, runs: int, seed: int) -> Played:
    """Return the scores of every player by scenario and run, on all cores."""
    jobs = [
        Job(scenario=scenario, run=run, seed=seed, players=tuple(players))
        for scenario in SCENARIOS
        for run in range(runs)
    ]
    found: Played = {scenario.name: {} for scenario in SCENARIOS}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as processes:
        for job, scored_ in zip(jobs, processes.map(scores, jobs), strict=True):
            for name, score in scored_.items():
                found[job.scenario.name].setdefault(name, []).append(score)
    return found


def regrets(found: Sequence[Score]) -> np.ndarray:
    """Return the regret of each run."""
    return np.array([score.regret for score in found])


def best_settings() -> list[str]:
    """Return the best peer of each package over all scenarios, and say what each setting costs."""
    tuned = all_scores(LABELS, runs=TUNING_RUNS, seed=TUNING_SEED)
    cost = {
        label: float(np.mean([regrets(tuned[name][label]).mean() for name in tuned]))
        for label in LABELS
    }
    progress(f"tuning: regret per 1000, mean of {len(tuned)} scenarios of {TUNING_RUNS} runs")
    for label in sorted(cost, key=cost.__getitem__):
        progress(f"  {cost[label]:6.1f} {label}")
    packages = dict.fromkeys(peer.package for peer in PEERS)
    return [
        min((label for label in LABELS if LABELS[label].package == package), key=cost.__getitem__)
        for package in packages
    ]


def tell(scenario: str, found: Mapping[str, Sequence[Score]], yardstick: str) -> None:
    """Print what every player cost, beside the yardstick on the same runs."""
    progress(
        f"{scenario}: regret per 1000 in units, its difference from {yardstick} with its standard "
        f"error over {len(found[yardstick])} runs, 5 % quantile of the dip"
    )
    beside = regrets(found[yardstick])
    for name, score in sorted(found.items(), key=lambda item: regrets(item[1]).mean()):
        difference = regrets(score) - beside
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        dip = np.quantile([each.dip for each in score], 0.05)
        progress(
            f"  {regrets(score).mean():6.1f} {difference.mean():+7.1f} +- {error:4.1f}"
            f" {dip:8.0f}  {name}"
        )


def main() -> int:
    """Print the claims; 1 where there is nobody to compare with."""
    for package in ABSENT:
        progress(f"ABSENT: {package} is not installed and takes no part")
    if not PEERS:
        return 1
    peers = best_settings()
    mine = [f"{name}.limited" for name in STRATEGIES]
    bare = [f"{name}.bare" for name in BARE]
    found = all_scores([*mine, *bare, *peers], runs=RUNS, seed=SEED)
    for scenario, by_player in found.items():
        cost = {name: float(regrets(score).mean()) for name, score in by_player.items()}
        yardstick = min(peers, key=cost.__getitem__)
        tell(scenario, by_player, yardstick)
        for way in ("bare", "limited"):
            claim(
                f"evidence.regret.{scenario}.{way}",
                ours=f"{cost[f'{OURS}.{way}']:.1f}",
                yardstick=f"{cost[yardstick]:.1f}",
                ratio=cost[f"{OURS}.{way}"] / cost[yardstick],
                side=Target.AT_MOST,
                target=1.0,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
