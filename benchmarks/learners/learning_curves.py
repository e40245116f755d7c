"""Large batches against the textbook's settings: seconds for 250,000 steps, and what is learned.

The same seeds, steps and network, on a synthetic market with an edge and on the hourly BTCUSD that
is shipped; scores are mean returns of an episode in bars after those trained on, after costs. With
`--picture` docs/pictures/learning_curves.svg is drawn too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.learners._curves import Curve, Score, curve
from benchmarks.learners._planted import market_of, mean_return, planted
from learners.market.candles import shipped_candles
from learners.market.features import FeatureSpec, features_of
from learners.market.scaler import Scaler
from learners.network import Algorithm
from learners.training_market import CandleMarket
from learners.training_plan import Profile, TrainingPlan
from liveops.plots import CHALLENGERS, CHAMPION, INK, plain, save

SEED = 51_300_000
SEEDS = 2 if QUICK else 5
STEPS = 1_024 if QUICK else 250_000
POINTS = 2 if QUICK else 10
BARS, TRAINED = 20_000, 16_000
EDGE = 0.0012
BTC_TRAINED_SHARE = 0.8
SECONDS = 60.0
SIGMAS = 2.0
TEXTBOOK_ENVIRONMENTS = 1
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "learning_curves.svg"

Curves = Mapping[Profile, Sequence[Curve]]


@dataclass(frozen=True, kw_only=True)
class Course:
    """A market to train in, and how a policy scores after it."""

    market: CandleMarket
    score: Score


def synthetic() -> Course:
    """Return a market whose first feature tells something of the next return."""
    candles, features = planted(bars=BARS, edge=EDGE, seed=SEED)
    rest = range(TRAINED, BARS)
    return Course(
        market=market_of(candles, features, range(TRAINED)),
        score=partial(mean_return, candles=candles, features=features, bars=rest),
    )


def btcusd() -> Course:
    """Return the shipped hourly BTCUSD, scaled by what is trained on."""
    candles = shipped_candles()
    made = features_of(candles, FeatureSpec())
    split = int(len(candles) * BTC_TRAINED_SHARE)
    trained = range(made.warm_up, split)
    scaler = Scaler.fit(made.values[trained.start : trained.stop])
    features = np.zeros_like(made.values)
    features[made.warm_up :] = scaler.apply(made.values[made.warm_up :])
    rest = range(split, len(candles))
    return Course(
        market=market_of(candles, features, trained),
        score=partial(mean_return, candles=candles, features=features, bars=rest),
    )


def curves_of(algorithm: Algorithm, course: Course, *, name: str) -> Curves:
    """Train by both profiles, seed by seed, so that a busy neighbour meets both."""
    found: dict[Profile, list[Curve]] = {profile: [] for profile in Profile}
    for seed in range(SEEDS):
        for profile in Profile:
            plan = TrainingPlan(algorithm=algorithm, profile=profile, seed=seed, total_steps=STEPS)
            if profile is Profile.TEXTBOOK:
                plan = replace(plan, environments=TEXTBOOK_ENVIRONMENTS)
            learned = curve(plan, course.market, course.score, points=POINTS)
            found[profile].append(learned)
            progress(
                f"{name} {algorithm.value} {profile.value} seed {seed}: "
                f"{plan.steps / learned.wall_seconds:.0f} steps/s, {learned.wall_seconds:.1f} s "
                f"(cpu {learned.cpu_seconds:.1f} s), "
                f"{[round(100 * score, 2) for score in learned.scores]} % an episode"
            )
    return found


def claims(name: str, algorithm: Algorithm, found: Curves) -> None:
    """Claim the seconds and the last score of the large batches."""
    large, textbook = found[Profile.LARGE_BATCH], found[Profile.TEXTBOOK]
    seconds = [float(np.median([one.wall_seconds for one in some])) for some in (large, textbook)]
    claim(
        f"learners.learning_curves.{name}.{algorithm.value}.seconds",
        ours=f"{seconds[0]:.1f}s",
        yardstick=f"{SECONDS:.0f}s",
        ratio=seconds[0] / SECONDS,
        side=Target.AT_MOST,
        target=1.0,
    )
    claim(
        f"learners.learning_curves.{name}.{algorithm.value}.faster",
        ours=f"{seconds[0]:.1f}s",
        yardstick=f"{seconds[1]:.1f}s",
        ratio=seconds[1] / seconds[0],
        side=Target.AT_LEAST,
        target=1.0,
    )
    last = [np.array([one.scores[-1] for one in some]) for some in (large, textbook)]
    error = math.hypot(*(float(np.std(some, ddof=1)) / math.sqrt(SEEDS) for some in last))
    claim(
        f"learners.learning_curves.{name}.{algorithm.value}.score",
        ours=f"{100 * last[0].mean():.2f}%",
        yardstick=f"{100 * last[1].mean():.2f}%",
        ratio=float(last[0].mean() - last[1].mean()) / error,
        side=Target.AT_LEAST,
        target=-SIGMAS,
    )


def draw(drawn: Mapping[tuple[str, Algorithm], Curves]) -> None:
    """Draw mean scores over steps, a panel for each agent and market."""
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    panels = figure.subplots(2, len(Algorithm))
    colors = {Profile.TEXTBOOK: CHAMPION, Profile.LARGE_BATCH: CHALLENGERS[0]}
    for axes, ((name, algorithm), found) in zip(panels.flat, drawn.items(), strict=True):
        plain(axes, f"{algorithm.value}, {name}")
        for profile, curves in found.items():
            points = min(len(one.scores) for one in curves)
            steps = np.array(curves[0].steps[:points]) / 1_000
            scores = 100 * np.array([one.scores[:points] for one in curves])
            mean, error = scores.mean(axis=0), scores.std(axis=0, ddof=1) / math.sqrt(SEEDS)
            color = colors[profile]
            axes.fill_between(steps, mean - error, mean + error, color=color, alpha=0.2, lw=0)
            axes.plot(steps, mean, color=color, label=profile.value.replace("_", " "))
        axes.set_xlabel("thousand steps", fontsize=8, color=INK)
    panels[0, 0].set_ylabel("return of an episode, %", fontsize=8, color=INK)
    panels[0, 0].legend(frameon=False, fontsize=8)
    save(figure, PICTURE)


def main() -> None:
    """Train every agent both ways in both markets, and print the claims."""
    drawn = {}
    courses = {"planted": synthetic} if QUICK else {"planted": synthetic, "btcusd": btcusd}
    for name, made in courses.items():
        course = made()
        for algorithm in (Algorithm.PPO,) if QUICK else Algorithm:
            found = curves_of(algorithm, course, name=name)
            drawn[name, algorithm] = found
            claims(name, algorithm, found)
    if "--picture" in sys.argv[1:]:
        draw(drawn)


if __name__ == "__main__":
    main()
