"""How rarely decay is seen where nothing changed, and how soon where an arm has lost its edge.

Twenty decisions a day, looked at every night. A false alarm is one between arms of the same profit
factor. The edge is lost after 250 good days: the yardstick of the delay is the evidence against an
arm over its whole life, which those days speak against first. A delay is the median over simulated
runs; one without an alarm counts as the days it was looked at.
"""

from __future__ import annotations

import math

import numpy as np

from bandit.core.detectors import decay
from bandit.core.evidence import BETS, STEP, Floats, log_e_values, log_factors
from bandit.core.ladder import LadderRule
from bandit.core.simulation import HARD, IID, REAL, HypotheticalArm, Setting
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._paths import CHAMPION, DAY, Comparison, first_time, scored

RUNS = 10 if QUICK else 200
DAYS = 100 if QUICK else 3000
GOOD_DAYS = 30 if QUICK else 250
DAYS_AFTER = 100 if QUICK else 1500
YEAR = 365
SEED = 730_701
ALPHA = 0.05
ALARM = LadderRule().decay_days
GREAT, BAD = HypotheticalArm(profit_factor=1.7), HypotheticalArm(profit_factor=0.9)
NULLS: list[tuple[Setting, float]] = [(IID, 0.1), (REAL, 0.1), (REAL, 0.5), (HARD, 0.1)]


def by_day(comparison: Comparison, *, runs: int, seed: int) -> Floats:
    """Return the log-wealth of the bets on the mean by day: (runs, days, directions, bets)."""
    parts = [
        log_factors(found.scores)[:, :, 0].reshape(len(found.scores), -1, DAY, 2, len(BETS))
        for found in scored(comparison, runs=runs, seed=seed)
    ]
    return np.concatenate([part.sum(axis=2) for part in parts]).astype(np.float64)


def levels(wealth: Floats) -> Floats:
    """Return the level of decay after each day; `wealth` has the shape (runs, days, bets)."""
    held, found = np.zeros((len(wealth), len(BETS))), []
    for day in np.moveaxis(wealth, 1, 0):
        held = (held + 1.0) * np.exp(day / STEP)
        found.append(held.mean(axis=1))
    asked = [decay(run) for run in wealth[:5]]
    assert np.allclose(np.minimum(found[-1][:5], 1e9), asked)  # as a night asks, all days at once
    return np.stack(found, axis=1)


def false_alarms(setting: Setting, share: float, *, seed: int) -> None:
    """Claim the time to a false alarm, and how many there are in a year."""
    comparison = Comparison(
        setting=setting, challenger=CHAMPION, share=share, opportunities=DAYS * DAY
    )
    wealth = by_day(comparison, runs=RUNS, seed=seed)
    # Of both directions: the arm's decay, and the champion's.
    first = np.concatenate([first_time(levels(wealth[:, :, way]) >= ALARM) for way in (0, 1)])
    looked, alarms = float(np.minimum(first, DAYS).sum()), max(int((first <= DAYS).sum()), 1)
    mean, early = looked / alarms, float((first <= YEAR).mean())
    name = f"{setting.name}.{share:g}"
    progress(
        f"{name}: {alarms} first alarms in {looked:.0f} days, one in {mean:.0f} "
        f"+- {mean / math.sqrt(alarms):.0f}; {early:.3f} of {2 * RUNS} within {YEAR} days"
    )
    claim(
        f"evidence.decay.false_alarm.{name}",
        ours=f"{mean:.0f}d",
        yardstick=f"{ALARM}d",
        ratio=mean / ALARM,
        side=Target.AT_LEAST,
        target=0.9,
    )
    claim(
        f"evidence.decay.false_alarm_in_a_year.{name}",
        ours=f"{early:.3f}",
        yardstick=f"{YEAR / ALARM:.3f}",
        ratio=early / (YEAR / ALARM),
        side=Target.AT_MOST,
        target=1.0,
    )


def delay(name: str, before: Comparison, after: Comparison, *, way: int, seed: int) -> None:
    """Claim the days to an alarm once the edge is lost; `way` is 0 for the champion's, else 1."""
    lives = [by_day(part, runs=RUNS, seed=seed + i) for i, part in enumerate((before, after))]
    wealth = np.concatenate(lives, axis=1)[:, :, way]
    took = [
        np.minimum(first_time(reached[:, GOOD_DAYS:]), DAYS_AFTER)
        for reached in (
            levels(wealth) >= ALARM,
            log_e_values(np.cumsum(wealth, axis=1)) >= -math.log(ALPHA),
        )
    ]
    low, middle, high = np.quantile(took[0], (0.1, 0.5, 0.9), method="nearest").tolist()
    whole = float(np.quantile(took[1], 0.5, method="nearest"))
    progress(f"{name}: 10 % within {low:.0f} days, 90 % within {high:.0f}, {RUNS} runs")
    claim(
        f"evidence.decay.delay.{name}",
        ours=f"{middle:.0f}d",
        yardstick=f"{whole:.0f}d",
        ratio=middle / whole,
        side=Target.AT_MOST,
        target=0.75,
    )


def main() -> None:
    """Print all claims."""
    for number, (setting, share) in enumerate(NULLS):
        false_alarms(setting, share, seed=SEED + number)
    good, bad = GOOD_DAYS * DAY, DAYS_AFTER * DAY
    for number, share in enumerate((0.1, 0.25)):
        promoted, fallen = (
            Comparison(
                setting=REAL, challenger=CHAMPION, champion=arm, share=share, opportunities=n
            )
            for arm, n in ((GREAT, good), (BAD, bad))
        )
        name = f"champion.hold_out_{share:g}"
        delay(name, promoted, fallen, way=0, seed=SEED + 100 + 10 * number)
    proven, fallen = (
        Comparison(setting=REAL, challenger=arm, share=0.6, opportunities=n)
        for arm, n in ((GREAT, good), (BAD, bad))
    )
    delay("arm.share_0.6", proven, fallen, way=1, seed=SEED + 200)


if __name__ == "__main__":
    main()
