"""How often the range that `liveops explain` gives holds the day on which an arm is proven.

The champion has a profit factor of 1.3, and there are twenty opportunities a day. Whoever is not
proven when asked gets a forecast; it is right where its range holds the day, looked at night by
night. Beyond two years all days are alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.core.cohorts import Cohort
from bandit.core.evidence import Floats, Tally, log_e_values, log_factors
from bandit.core.outlook import HORIZON_DAYS, Forecast, Path, Question, forecast
from bandit.core.simulation import HARD, IID, REAL, HypotheticalArm
from benchmarks.claims import QUICK, Target, claim, progress
from benchmarks.evidence._paths import DAY, Comparison, scored

RUNS = 20 if QUICK else 400
SEED = 730_301
NEEDED = math.log(4 / 0.05)
OPENED = date(2026, 1, 1)
HELD = 0.8
WAYS: dict[str, dict[str, Any]] = {"routed": {"share": 0.25}, "paper": {"common": 0.5}}
# Market, profit factor, way, and after how many days the forecast is asked for.
ROWS = [
    *((setting, 1.7, "routed", days) for setting in (IID, REAL, HARD) for days in (30, 90)),
    *((REAL, 2.4, "routed", days) for days in (30, 60)),
    *((setting, 1.7, "paper", days) for setting in (IID, REAL, HARD) for days in (20, 40)),
]


def cohorts(scores: Floats, chosen: NDArray[np.bool_], days: int) -> list[Cohort]:
    """Return what a night finds of one run after so many days."""
    return [
        Cohort(
            day=OPENED + timedelta(days=day),
            tally=Tally.of(
                scores[day * DAY : (day + 1) * DAY], chosen=chosen[day * DAY : (day + 1) * DAY]
            ),
        )
        for day in range(days)
    ]


def asked(
    comparison: Comparison, path: Path, *, after: int, seed: int
) -> Iterator[tuple[Forecast, float]]:
    """Yield the forecast for every run that is not proven by then, and when it was proven."""
    a_day = DAY if path is Path.PAPER else DAY * (comparison.share or 1.0)
    for some, who, _ in scored(comparison, runs=RUNS, seed=seed):
        grown = log_factors(some)[:, :, 0, 0].cumsum(axis=1)[:, DAY - 1 :: DAY]
        reached = log_e_values(grown) >= NEEDED
        for scores, chosen, proven in zip(some, who, reached, strict=True):
            if proven[:after].any():
                continue
            later = np.flatnonzero(proven[after:])
            took = float(later[0]) + 1.0 if later.size else math.inf
            known = cohorts(scores, chosen, after)
            found = forecast(known, Question.BETTER, path=path, needed=NEEDED, a_day=a_day)
            yield found, took


def holds(found: Forecast, took: float) -> bool:
    """Say whether the range holds the day; beyond the horizon all days are alike."""
    ends = (found.soonest, found.latest)
    soonest, latest = (math.inf if end is None else end for end in ends)
    took = took if took <= HORIZON_DAYS else math.inf
    return soonest <= took <= latest


def main() -> None:
    """Print the claims."""
    for number, (setting, factor, way, after) in enumerate(ROWS):
        path = Path.ROUTED if way == "routed" else Path.PAPER
        comparison = Comparison(
            setting=setting,
            challenger=HypotheticalArm(profit_factor=factor),
            opportunities=(after + HORIZON_DAYS) * DAY,
            **WAYS[way],
        )
        told = list(asked(comparison, path, after=after, seed=SEED + number))
        measure(f"evidence.forecast.{setting.name}.{factor:g}.{way}.{after}_days", told)


def measure(name: str, told: list[tuple[Forecast, float]]) -> None:
    """Print the claim of one row."""
    share = float(np.mean([holds(found, took) for found, took in told]))
    early = float(np.mean([took < (found.soonest or math.inf) for found, took in told]))
    never = float(np.mean([found.expected is None for found, _ in told]))
    error = math.sqrt(share * (1.0 - share) / len(told))
    progress(
        f"{name}: {len(told)} of {RUNS} open, held {share:.3f} +- {error:.3f}, proven before the "
        f"range {early:.3f}, called never {never:.3f}"
    )
    claim(
        name,
        ours=f"{share:.3f}",
        yardstick=f"{HELD:.3f}",
        ratio=share / HELD,
        side=Target.AT_LEAST,
        target=1.0,
    )


if __name__ == "__main__":
    main()
