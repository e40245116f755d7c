"""What the nights do to challengers that are no better, and to one that is, through their own code.

`seed_exact` is held to the figures of the rule as it is printed in the documents: whoever asks for
the letter must get it. Those figures compare an arm with the champion's newest 150 trades, ours
with the champion's of the same time. So a few lines that share nothing with our code play the rule
in the first way, and are asked in the second about every night of ours. `guarded` is held to its
promise: who is proven, and who becomes eligible.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import numpy as np

from bandit.core import trial
from bandit.core.ladder import LadderRule
from bandit.core.model import PolicyName, Profile, Rung
from bandit.core.reading import ChecklistRule, Rules
from bandit.core.simulation import REAL, HypotheticalArm
from bandit.core.trial import Trial
from bandit.core.trial_plan import SCALE, Fate, TrialPlan
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._printed_rule import Baseline, may_grow, reaches_ceiling
from benchmarks.evidence._trials import of_each, share_and_error

SEED = 40_260_000
RUNS = 6 if QUICK else 1000
COMPARED = 2 if QUICK else 50
LONG_RUNS = 4 if QUICK else 300
DAYS = 20 if QUICK else 250
LONG_DAYS = 40 if QUICK else 1000
THROTTLED_RUNS = 3 if QUICK else 200
DAYS_THROTTLED = 25 if QUICK else 90
CEILING = 600_000
CHAMPION = HypotheticalArm(profit_factor=1.3)
GOOD = HypotheticalArm(profit_factor=1.7)
# As much worse than the champion as the good one is better: they average to nothing.
AS_BAD = HypotheticalArm(profit_factor=1.002_8)
# The first generation may spend half of alpha: this makes it one in twenty.
SILENT = ChecklistRule().silenced
RULES = Rules(checklist=SILENT, ladder=LadderRule(alpha=0.1))
UNGUARDED = Rules(checklist=SILENT, ladder=LadderRule(alpha=0.1, trades=1, days=1, blocks=1))


def plan(*challengers: tuple[HypotheticalArm, ...], **changes: object) -> TrialPlan:
    """Twenty trades a day, a tenth of equity a trade, and nobody throttles or halts."""
    named = {PolicyName(f"new-{i}"): turns for i, turns in enumerate(challengers)}
    made = TrialPlan(
        setting=REAL,
        champion=CHAMPION,
        challengers=named,
        rules=RULES,
        per_day=20,
        equity_fraction=0.1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def reached_ceiling(_: TrialPlan, lived: Trial) -> bool:
    """Whether the first challenger ever held 60 % of the traffic."""
    return bool(lived.ppm[:, 0].max() >= CEILING)


def ever_proven(made: TrialPlan, lived: Trial) -> bool:
    """Whether any challenger was ever proven."""
    challengers = range(len(made.challengers))
    return any(rungs[i] is not Rung.UNPROVEN for rungs in lived.rungs for i in challengers)


def first_eligible(_: TrialPlan, lived: Trial) -> float:
    """After how many nights the first challenger was eligible; infinite if never."""
    nights = (n for n, rungs in enumerate(lived.rungs, 1) if rungs[0] is Rung.ELIGIBLE)
    return float(next(nights, math.inf))


def to_the_letter() -> None:
    """The bare ramp carries most arms to its ceiling, whatever they are worth."""
    for name, arm, printed in (
        ("identical", CHAMPION, 0.98),
        ("bad", HypotheticalArm(profit_factor=0.9), 0.74),
    ):
        made = plan((arm,), profile=Profile.SEED_EXACT, days=90)
        share, error = share_and_error(of_each(made, reached_ceiling, runs=RUNS, seed=SEED))
        progress(f"{name}: {share:.3f} +- {error:.3f} reach 60 % in 90 nights, {RUNS} runs")
        bare = bare_share(made)
        for what, ours in (("reaches_ceiling", share), ("bare_rule_beside_the_newest", bare)):
            claim(
                f"evidence.seed_exact.{what}.{name}",
                ours=f"{ours:.3f}",
                yardstick=f"{printed:.2f}",
                ratio=abs(ours - printed) / 0.03,
                side=Target.AT_MOST,
                target=1.0,
            )
        same = same_nights(made)
        claim(
            f"evidence.seed_exact.nights_as_the_bare_rule.{name}",
            ours=f"{same}",
            yardstick=f"{COMPARED * made.days}",
            ratio=same / (COMPARED * made.days),
            side=Target.AT_LEAST,
            target=1.0,
        )


def bare_share(made: TrialPlan) -> float:
    """Return the share of the runs in which the bare rule gets to its ceiling, as it is printed."""
    reached = [
        reaches_ceiling(
            Fate.drawn(made, seed=seed).results / SCALE,
            equity_fraction=made.equity_fraction,
            baseline=Baseline.NEWEST,
            seed=seed,
        )
        for seed in range(SEED, SEED + RUNS)
    ]
    return sum(reached) / RUNS


def same_nights(made: TrialPlan) -> int:
    """Count nights that do what the bare rule does on the same decisions, told of the same time."""
    same = 0
    for seed in range(SEED, SEED + COMPARED):
        fate = Fate.drawn(made, seed=seed)
        lived = trial.run(made, fate)
        told, chosen = (fate.results / SCALE).reshape(2, -1), lived.chosen.ravel()
        for day in range(made.days):
            until = (day + 1) * made.per_day
            before, after = lived.ppm[day : day + 2, 0].tolist()
            grows = may_grow(
                told[:, :until],
                chosen[:until] == 0,
                equity_fraction=made.equity_fraction,
                baseline=Baseline.SAME_TIME,
            )
            same += after == (
                max(before, min(CEILING, int(before * 1.5 + 0.5))) if grows else before
            )
    return same


def families() -> None:
    """Of four challengers nobody may be proven by luck."""
    bad = HypotheticalArm(profit_factor=0.9)
    for name, arms, allowed in (("identical", [CHAMPION] * 4, 0.05), ("bad", [bad], 0.005)):
        made = plan(*((arm,) for arm in arms), days=DAYS)
        found = of_each(made, ever_proven, runs=RUNS, seed=SEED + 10_000)
        share, error = share_and_error(found)
        progress(
            f"{len(arms)} {name}: {share:.3f} +- {error:.3f} proven in {DAYS} nights, {RUNS} runs"
        )
        claim(
            f"evidence.nights.ever_proven.{name}",
            ours=f"{share:.4f}",
            yardstick=f"{allowed}",
            ratio=share / allowed,
            side=Target.AT_MOST,
            target=1.0,
        )


def temporary_edge() -> None:
    """An edge that comes and goes should not make an arm eligible; a lasting one should."""
    for way, rules in (("guarded", RULES), ("unguarded", UNGUARDED)):
        made = plan((GOOD, AS_BAD), days=LONG_DAYS, rules=rules)
        found = of_each(made, first_eligible, runs=LONG_RUNS, seed=SEED + 20_000)
        share, error = share_and_error([math.isfinite(night) for night in found])
        lasting = plan((GOOD,), days=LONG_DAYS, rules=rules)
        nights = of_each(lasting, first_eligible, runs=LONG_RUNS, seed=SEED + 30_000)
        progress(
            f"{way}: {share:.3f} +- {error:.3f} of arms with a temporary edge become eligible in "
            f"{LONG_DAYS} nights; a lasting one after {median(nights):.0f} in the median, "
            f"{LONG_RUNS} runs"
        )
        claim(
            f"evidence.nights.temporary_edge.{way}",
            ours=f"{share:.3f}",
            yardstick="0.05",
            ratio=share / 0.05,
            side=Target.AT_MOST,
            target=1.0,
        )


def gain(made: TrialPlan, lived: Trial) -> float:
    """What was earned over the champion alone, in its usual results."""
    return float((lived.earned - lived.alone[-1]).sum() / made.champion.size)


def gains(arm: HypotheticalArm, **changes: object) -> np.ndarray:
    """Return the gain of each of the same fates, half of them shared with the champion."""
    made = plan((arm,), days=DAYS_THROTTLED, agreement=0.5, **changes)
    return np.array(of_each(made, gain, runs=THROTTLED_RUNS, seed=SEED + 40_000))


def throttled() -> None:
    """With the throttle on, a great arm keeps most of its gain and a bad one costs no more."""
    great, bad = HypotheticalArm(profit_factor=2.4), HypotheticalArm(profit_factor=0.9)
    for name, on_paper in (("on_paper", True), ("live_only", False)):
        free = gains(great, on_paper=on_paper)
        held = gains(great, on_paper=on_paper, rules=Rules())
        letter = gains(great, rules=Rules(), profile=Profile.SEED_EXACT)
        progress(
            f"{name}: a great arm gains {free.mean():.1f} without the throttle, {held.mean():.1f} "
            f"with it, {letter.mean():.1f} to the letter, in {DAYS_THROTTLED} nights, "
            f"{THROTTLED_RUNS} runs"
        )
        claim(
            f"evidence.nights.throttled.great.{name}",
            ours=f"{held.mean():.1f}",
            yardstick=f"{free.mean():.1f}",
            ratio=held.mean() / free.mean(),
            side=Target.AT_LEAST,
            target=0.6,
        )
        costs = gains(bad, on_paper=on_paper, rules=Rules())
        letter = gains(bad, rules=Rules(), profile=Profile.SEED_EXACT)
        more = letter - costs
        error = more.std(ddof=1) / math.sqrt(len(more))
        progress(
            f"{name}: a bad arm costs {more.mean():+.2f} +- {error:.2f} more than to the letter"
        )
        claim(
            f"evidence.nights.throttled.bad.{name}",
            ours=f"{-costs.mean():.1f}",
            yardstick=f"{-letter.mean():.1f}",
            ratio=costs.mean() / letter.mean(),
            side=Target.AT_MOST,
            target=1.0,
        )


def main() -> None:
    """Print all claims."""
    to_the_letter()
    families()
    temporary_edge()
    throttled()


if __name__ == "__main__":
    main()
