"""Evidence that one arm earns more than another, valid whenever it is looked at.

Randomised-score e-processes: every decision that was routed by chance is a bet on the difference
of two arms, whose stake is known before the outcome. Under "no difference" nobody's wealth is
expected to grow, whatever the market does and however traffic was moved since, so that it ever
exceeds 1 / alpha with a probability of alpha at most (Ville's inequality). Design-based confidence
sequences: Ham et al. 2022 (arXiv 2210.08639), Waudby-Smith et al. 2022 (2210.10768), in the betting
form of Waudby-Smith and Ramdas 2020 (2010.09686).

Stakes are constant, so wealth is a product over a *set* of decisions: order does not matter, parts
add up, and a corrected outcome takes its old factor back. Factors are kept as integers, hence
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit.core.errors import InvalidInput

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BETS: Final = (0.15, 0.09, 0.0525, 0.0225, 0.0075)
"""Shares of wealth staked on one unit of difference; wealth is the mean over them."""

FACTOR_MIN: Final = 0.05
"""The least one decision leaves of a stake: without it a loss beyond 6.7 units would end a bet.

So bounded the process is no exact supermartingale; benchmarks/evidence measures what it costs.
"""

STEP: Final = 10**12
"""Log-factors and scores are counted in steps of 1 / STEP."""

UNITS_MAX: Final = 100.0
"""Results beyond this many units count as so many: no single one may decide, or overflow a sum."""

PROFIT_FACTOR_BOUNDS: Final = (0.8, 3.0)
"""Between these the champion's profit factor is believed when bets are laid against it."""

_BETS: Final = np.array(BETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What bets are laid on, fixed before the decisions they judge.

    `unit` is the size of a usual result: the champion's mean |return|, and `units` the same of the
    instruments it has traded enough. Counted in these units are `baseline`, the mean result
    expected of either arm, and `profit_factor`, the champion's. None of them has to be right:
    wrong ones make the evidence slower, not false.

    >>> terms = Terms(unit=0.005, baseline=0.1, profit_factor=5.0, units={"BTCUSD": 0.01})
    >>> terms.profit_factor, terms.unit_of("BTCUSD"), terms.unit_of("ETHUSD")
    (3.0, 0.01, 0.005)
    """

    unit: float
    baseline: float
    profit_factor: float
    units: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a unit that scales nothing, and hold the others where bets make sense."""
        for unit in (self.unit, *self.units.values()):
            if not 0.0 < unit < math.inf:
                raise InvalidInput(field="unit", rule="must be positive and finite", found=unit)
        if not math.isfinite(self.baseline):
            raise InvalidInput(field="baseline", rule="must be finite", found=self.baseline)
        if math.isnan(self.profit_factor):
            found = self.profit_factor
            raise InvalidInput(field="profit_factor", rule="must be a number", found=found)
        low, high = PROFIT_FACTOR_BOUNDS
        object.__setattr__(self, "profit_factor", min(max(self.profit_factor, low), high))
        object.__setattr__(self, "baseline", min(max(self.baseline, -1.0), 1.0))

    def unit_of(self, instrument: str) -> float:
        """Return the size of a usual result in an instrument."""
        return self.units.get(instrument, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """What an arm's trades in one instrument gained and lost, as returns, and their number."""

    n: int
    gain: float
    loss: float


def terms_of(champion: Mapping[str, Earned], *, trades_min: int = 30) -> Terms | None:
    """Return the terms that a champion's trades so far suggest, by instrument.

    None while it has traded less than `trades_min` times, or has never won nor lost: then there is
    nothing to measure by, and no decision is evidence yet.

    >>> terms_of({"BTCUSD": Earned(n=40, gain=0.3, loss=0.1)})
    Terms(unit=0.01, baseline=0.5, profit_factor=3.0, units={'BTCUSD': 0.01})
    >>> terms_of({"BTCUSD": Earned(n=20, gain=0.3, loss=0.1)}) is None
    True
    """
    n = sum(earned.n for earned in champion.values())
    moved = math.fsum(earned.gain + earned.loss for earned in champion.values())
    if n < trades_min or not moved > 0.0:
        return None
    unit = moved / n
    units = {
        instrument: (earned.gain + earned.loss) / earned.n
        for instrument, earned in sorted(champion.items())
        if earned.n >= trades_min and earned.gain + earned.loss > 0.0
    }
    gain = math.fsum(e.gain / units.get(name, unit) for name, e in champion.items())
    loss = math.fsum(e.loss / units.get(name, unit) for name, e in champion.items())
    return Terms(
        unit=unit,
        baseline=(gain - loss) / n,
        profit_factor=gain / loss if loss > 0.0 else PROFIT_FACTOR_BOUNDS[1],
        units=units,
    )


def rewards(results: ArrayLike, terms: Terms) -> Floats:
    """Return each result as it counts for the mean and for the profit factor: shape (n, 2).

    `results` are returns in units of `terms`. The second form is g - c·l with gain g, loss l and
    the champion's profit factor c: its mean is positive exactly when gains exceed c times the
    losses.

    >>> rewards([1.0, -1.0], Terms(unit=0.01, baseline=0.25, profit_factor=2.0)).tolist()
    [[0.75, 1.0], [-1.25, -2.0]]
    """
    x = np.clip(np.asarray(results, dtype=np.float64), -UNITS_MAX, UNITS_MAX)
    gain, loss = np.maximum(x, 0.0), np.maximum(-x, 0.0)
    return np.stack([x - terms.baseline, gain - terms.profit_factor * loss], axis=-1)


def routed_scores(rewarded: Floats, chosen: ArrayLike, share: ArrayLike) -> Floats:
    """Return the scores of decisions routed between two arms: shape (n, 2).

    `chosen` says whether the challenger decided, `share` with what probability it did, given that
    it was one of the two: p / (p + p of the champion). A score's mean is share·(1 - share) times
    the difference of the two arms.

    >>> routed_scores(np.array([[1.0, 1.0], [1.0, 1.0]]), [True, False], 0.25).tolist()
    [[0.75, 0.75], [-0.25, -0.25]]
    """
    stake = np.asarray(chosen, dtype=np.float64) - np.asarray(share, dtype=np.float64)
    scores: Floats = rewarded * stake[..., None]
    return scores


def paired_scores(challenger: Floats, champion: Floats) -> Floats:
    """Return the scores of opportunities on which both arms have a result, one perhaps on paper.

    Half the difference: as large as the score of a decision routed by a fair coin.
    """
    return (challenger - champion) / 2.0


def log_factors(scores: Floats) -> Integers:
    """Return the steps each score adds to the log-wealth of every bet: shape (n, 2, 2, bets).

    Axes: decision, form (mean, profit factor), direction (up, down), bet.

    >>> log_factors(np.array([[1.0, 0.0]]))[0, 0, :, 0].tolist()
    [139761942375, -162518929498]
    """
    signed = np.stack([scores, -scores], axis=-1)[..., None]
    factors = np.maximum(1.0 + signed * _BETS, FACTOR_MIN)
    steps: Integers = np.rint(np.log(factors) * STEP).astype(np.int64)
    return steps


def log_e_values(wealth: ArrayLike) -> Floats:
    """Return the logarithm of the mean wealth over bets, whose steps lie along the last axis.

    >>> round(float(log_e_values([STEP, 0, 0, 0, 0])), 6)
    0.295395
    """
    steps = np.asarray(wealth, dtype=np.float64) / STEP
    most = steps.max(axis=-1, keepdims=True)  # what no exponential of may overflow
    found: Floats = most[..., 0] + np.log(np.exp(steps - most).sum(axis=-1)) - math.log(len(BETS))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """All that is remembered of a set of scored decisions, whatever their number.

    `wealth` holds the log-wealth of every bet, in steps, flat in the order form, direction, bet;
    `scores` the sum of the scores of each form, in steps.

    >>> one = Tally.of(np.array([[1.0, 0.5]]), chosen=[True])
    >>> (one + one - one) == one, one.n_challenger, one.n_champion
    (True, 1, 0)
    """

    n_challenger: int = 0
    n_champion: int = 0
    scores: tuple[int, ...] = (0, 0)
    wealth: tuple[int, ...] = field(default=(0,) * (4 * len(BETS)))

    @classmethod
    def of(cls, scores: Floats, *, chosen: ArrayLike) -> Tally:
        """Count scored decisions; `chosen` as in `routed_scores`."""
        picked = np.asarray(chosen, dtype=bool)
        steps = np.rint(scores * STEP).astype(np.int64).sum(axis=0)
        return cls(
            n_challenger=int(picked.sum()),
            n_champion=int(picked.size - picked.sum()),
            scores=tuple(steps.tolist()),
            wealth=tuple(log_factors(scores).sum(axis=0).ravel().tolist()),
        )

    def __add__(self, other: Tally) -> Tally:
        """Count the decisions of both, which must have none in common."""
        return self._with(other, 1)

    def __sub__(self, other: Tally) -> Tally:
        """Take back decisions that were counted."""
        return self._with(other, -1)

    def _with(self, other: Tally, sign: int) -> Tally:
        return Tally(
            n_challenger=self.n_challenger + sign * other.n_challenger,
            n_champion=self.n_champion + sign * other.n_champion,
            scores=_plus(self.scores, other.scores, sign),
            wealth=_plus(self.wealth, other.wealth, sign),
        )

    @property
    def n(self) -> int:
        """The number of decisions."""
        return self.n_challenger + self.n_champion

    @property
    def strength(self) -> Strength:
        """What the wealth amounts to."""
        bets = np.array(self.wealth, dtype=np.float64).reshape(4, len(BETS))
        mean_up, mean_down, factor_up, factor_down = log_e_values(bets)
        return Strength(
            mean_up=float(mean_up),
            mean_down=float(mean_down),
            factor_up=float(factor_up),
            factor_down=float(factor_down),
        )


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the tally of all decisions of `tallies`."""
    found = list(tallies)
    if not found:
        return Tally()
    return Tally(
        n_challenger=sum(tally.n_challenger for tally in found),
        n_champion=sum(tally.n_champion for tally in found),
        scores=tuple(map(sum, zip(*(tally.scores for tally in found), strict=True))),
        wealth=tuple(map(sum, zip(*(tally.wealth for tally in found), strict=True))),
    )


def _plus(ours: tuple[int, ...], others: tuple[int, ...], sign: int) -> tuple[int, ...]:
    return tuple(a + sign * b for a, b in zip(ours, others, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """Natural logarithms of e-values: 0 is nothing, 3 (a factor of 20) convinces at alpha = 5 %.

    `up` speaks for the challenger, `down` against it; on the mean, and on the profit factor.
    """

    mean_up: float
    mean_down: float
    factor_up: float
    factor_down: float
