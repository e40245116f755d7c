"""Whether a drawdown limit tells a healthy arm from a sick one, at this size of trades (SPEC E6).

A limit that a healthy arm passes every other month stops good arms; one that a sick arm hardly
ever passes stops nobody. Both follow from how much is put into a trade. A healthy arm is one that
earns like the champion, a sick one loses what the champion earns, with the same ups and downs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bandit.core.evidence import Floats
from bandit.core.model import Strategy
from bandit.core.reading import Rules
from bandit.core.verdicts import Reason, at_least, at_most

OFTEN: Final = 0.05
"""A healthy arm may pass a limit in this share of windows, and a sick one must in as many."""

_PATHS: Final = 1000
_BLOCK: Final = 10
_SEED: Final = 20_260_301


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """How often arms pass a drawdown limit within a window of trades: shares, or None if unknown.

    `setting` names the limit in the configuration, `percent` is its height.
    """

    setting: str
    percent: float
    healthy: float | None
    sick: float | None

    @property
    def reasons(self) -> tuple[Reason, Reason]:
        """What is asked of a limit: that it spares healthy arms, and that it catches sick ones."""
        return (
            at_most(f"{self.setting} passed by healthy arms", self.healthy, OFTEN),
            at_least(f"{self.setting} passed by sick arms", self.sick, OFTEN),
        )

    def to_json(self) -> dict[str, object]:
        """Return the check as the report prints it."""
        healthy, sick = self.reasons
        return {
            "percent": self.percent,
            "healthy": self.healthy,
            "healthy_verdict": healthy.verdict.value,
            "sick": self.sick,
            "sick_verdict": sick.verdict.value,
        }


def limit_checks(
    champion: Sequence[float], *, rules: Rules, strategy: Strategy, nominal_fraction: float
) -> tuple[LimitCheck, ...]:
    """Check the drawdown limits that an experiment has on its champion's newest returns.

    That of the checklist, and with strategy `ramp` the ramp's too. Unknown with fewer returns than
    the checklist's long window has, and of a champion that earns nothing.
    """
    window = rules.checklist.long_window
    limits = {"checklist.drawdown_halt_percent": rules.checklist.drawdown_halt_percent}
    if strategy is Strategy.RAMP:
        limits["ramp.drawdown_limit_percent"] = rules.ramp.drawdown_limit_percent
    shares: dict[str, tuple[float | None, float | None]] = dict.fromkeys(limits, (None, None))
    earned = np.array(champion[-window:])
    mean = float(earned.mean()) if len(earned) else 0.0
    if len(earned) == window and mean > 0:
        paths = resampled(earned, length=window)
        healthy, sick = (deepest_percents(p, nominal_fraction) for p in (paths, paths - 2 * mean))
        shares = {
            setting: (float((healthy > percent).mean()), float((sick > percent).mean()))
            for setting, percent in limits.items()
        }
    return tuple(
        LimitCheck(setting=setting, percent=percent, healthy=passed[0], sick=passed[1])
        for (setting, percent), passed in zip(limits.items(), shares.values(), strict=True)
    )


def resampled(returns: Floats, *, length: int) -> Floats:
    """Draw paths of trades from known ones, in runs, so that streaks stay: shape (paths, length).

    The stationary bootstrap of Politis and Romano 1994 (doi 10.1080/01621459.1994.10476870), with
    runs of ten in the mean. The seed is a constant: the same trades give the same paths.
    """
    rng = np.random.default_rng(_SEED)
    n = len(returns)
    shape = (_PATHS, length)
    begins = rng.random(shape) < 1.0 / _BLOCK
    begins[:, 0] = True
    # Each trade follows its neighbour, from where its run began.
    steps = np.arange(length)
    began_at = np.maximum.accumulate(np.where(begins, steps, 0), axis=1)
    starts = np.take_along_axis(rng.integers(0, n, shape), began_at, axis=1)
    found: Floats = returns[(starts + steps - began_at) % n]
    return found


def deepest_percents(paths: Floats, nominal_fraction: float) -> Floats:
    """Return the deepest drawdown of each path as `equity.drawdown_percent` has it, in percent.

    >>> deepest_percents(np.array([[0.25, -0.5, 0.2]]), 1.0).tolist()
    [40.0]
    """
    equity = 1.0 + nominal_fraction * np.cumsum(paths, axis=1)
    peaks = np.maximum(np.maximum.accumulate(equity, axis=1), 1.0)
    found: Floats = (100.0 * (peaks - equity) / peaks).max(axis=1)
    return found
