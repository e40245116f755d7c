"""Does every agent find an edge that is there, and does none live on one that is not?

Fresh synthetic markets, one a seed: in some the first feature tells the next return, in the others
nothing does. Agents train on the first part and are measured on the rest, after costs: in episodes,
and by the rule of the policy card, all policies of an agent and a kind of market being the trials.
"""

from __future__ import annotations

import math

import numpy as np

from bandit.core.backtest import BacktestRule, judged, verdict_of
from bandit.core.model import Verdict
from bandit.core.multiplicity import Search
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.learners._curves import curve
from benchmarks.learners._planted import backtested, market_of, mean_return, planted
from learners.backtest import Backtest
from learners.network import Algorithm, Network
from learners.tensor_file import Tensor
from learners.training_plan import TrainingPlan

SEED = 51_200_000
SEEDS = 1 if QUICK else 20
BARS, TRAINED = 12_000, 9_000
STEPS = 4_096 if QUICK else 60_000
EDGE = 0.0012
SIGMAS = 2.0
PASSING_MAX = 0.05


def trained(algorithm: Algorithm, *, edge: float, seed: int) -> tuple[float, Backtest]:
    """Return what an agent earns in an episode of bars that it has not seen, and in all of them."""
    candles, features = planted(bars=BARS, edge=edge, seed=seed)
    rest, backtests = range(TRAINED, BARS), []

    def score(network: Network, tensors: dict[str, Tensor]) -> float:
        backtests.append(backtested(network, tensors, candles, features, rest))
        return mean_return(network, tensors, candles, features, rest)

    plan = TrainingPlan(algorithm=algorithm, seed=seed % 2**32, total_steps=STEPS)
    found = curve(plan, market_of(candles, features, range(TRAINED)), score, points=1)
    return found.scores[-1], backtests[-1]


def share_passing(backtests: list[Backtest]) -> float:
    """Return the share of policies whose card says that they pass, each one of so many trials."""
    metrics = [backtest.metrics for backtest in backtests]
    sharpes = [m.moments.sharpe for m in metrics]
    annual = [
        None if sharpe is None else sharpe * math.sqrt(m.periods_per_year)
        for sharpe, m in zip(sharpes, metrics, strict=True)
    ]
    verdicts = [
        verdict_of(
            judged(
                backtest.metrics,
                buy_and_hold=backtest.buy_and_hold.total_return,
                search=Search.of(annual),
                rule=BacktestRule(),
            )
        )
        for backtest in backtests
    ]
    return sum(verdict is Verdict.PASS for verdict in verdicts) / len(verdicts)


def main() -> None:
    """Train every agent in every market and print the claims."""
    for algorithm in Algorithm:
        earned, passing = {}, {}
        for name, edge in (("edge", EDGE), ("noise", 0.0)):
            made = [trained(algorithm, edge=edge, seed=SEED + i) for i in range(SEEDS)]
            found = earned[name] = np.array([mean for mean, _ in made])
            passing[name] = share_passing([backtest for _, backtest in made])
            progress(f"{algorithm.value} {name}: {np.round(100 * found, 2).tolist()} % an episode")
            progress(f"{algorithm.value} {name}: {100 * passing[name]:.0f} % pass the card's rule")
        share = float(np.mean(earned["edge"] > 0.0))
        claim(
            f"learners.planted_edge.found.{algorithm.value}",
            ours=f"{share:.2f}",
            yardstick="1",
            ratio=share,
            side=Target.AT_LEAST,
            target=1.0,
        )
        noise = earned["noise"]
        error = float(np.std(noise, ddof=1)) / math.sqrt(SEEDS) if SEEDS > 1 else math.inf
        claim(
            f"learners.planted_edge.noise.{algorithm.value}",
            ours=f"{100 * noise.mean():.2f}%",
            yardstick="0%",
            ratio=float(noise.mean()) / error,
            side=Target.AT_MOST,
            target=SIGMAS,
        )
        claim(
            f"learners.planted_edge.noise_passes.{algorithm.value}",
            ours=f"{passing['noise']:.2f}",
            yardstick=f"{PASSING_MAX:.2f}",
            ratio=passing["noise"] / PASSING_MAX,
            side=Target.AT_MOST,
            target=1.0,
        )


if __name__ == "__main__":
    main()
