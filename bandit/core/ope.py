"""Off-policy evaluation: what a candidate would have earned on decisions that others took.

Per decision i the candidate's weight is w_i = pi(a_i) / mu(a_i), the probability with which it
would have done what was done over the one with which it was done, capped. Then

    IPS    mean of w_i r_i                                   (Horvitz and Thompson 1952)
    SNIPS  sum of w_i r_i / sum of w_i                       (Swaminathan and Joachims 2015)
    DR     mean of sum_a pi(a) q_i(a) + w_i (r_i - q_i(a_i)) (Dudik, Langford and Li 2011)

where q_i, the mean reward of a stratum and action, is made of the decisions *before* i alone. So it
never sees the row it corrects, and stays independent of the draw where propensities follow earlier
rewards (Hadad et al. 2021), which folds that look ahead would not.

Intervals are those of the long-run mean, so they count two noises: that of the draw, and that of
returns which come in runs. See `standard_error`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from bandit.core.decision_log import Candidate, DecisionLog, Floats, Overlap, overlap
from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from bandit.core.profit_factor import Interval
from bandit.core.verdicts import Reason, at_least, at_most

COSINES = 6
"""How many slow waves measure the variance: 2 n / 6 decisions is the shortest. More would make
intervals narrower (t with 6 degrees of freedom is 25 % wider than normal) and miss what lasts."""

PRIOR_OUTCOMES = 25
"""Outcomes of 0 that a mean of a stratum and action begins with, as the posteriors of arms do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportRule:
    """What a log must hold before anything is said about a candidate.

    `propensity_min` also caps weights, at 1 / `propensity_min`. `unsupported_ratio_max` is how much
    of the candidate may fall on actions below it. `weight_deviations_max`: how many standard
    deviations the sum of the weights may lie from what the propensities make it.

    >>> SupportRule().weight_max
    50.0
    """

    propensity_min: float = 0.02
    decisions_min: int = 1000
    ess_min: float = 100.0
    unsupported_ratio_max: float = 0.01
    weight_deviations_max: float = 5.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse thresholds below which no interval is defined."""
        for field in ("propensity_min", "confidence"):
            if not 0.0 < getattr(self, field) < 1.0:
                rule, found = "must lie between 0 and 1", getattr(self, field)
                raise InvalidInput(field=field, rule=rule, found=found)
        if not 0.0 <= self.unsupported_ratio_max < 1.0:
            rule, found = "must be at least 0 and below 1", self.unsupported_ratio_max
            raise InvalidInput(field="unsupported_ratio_max", rule=rule, found=found)
        for field, least in (("decisions_min", 50), ("ess_min", 10), ("weight_deviations_max", 1)):
            if not getattr(self, field) >= least:
                rule, found = f"must be >= {least}", getattr(self, field)
                raise InvalidInput(field=field, rule=rule, found=found)

    @property
    def weight_max(self) -> float:
        """The cap of a weight."""
        return 1.0 / self.propensity_min


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Mean reward per decision, its standard error and its interval."""

    value: float
    standard_error: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """How much of the log speaks about the candidate.

    `ess` is the effective sample size (sum of weights)^2 / sum of squared weights (Kish 1965),
    `ess_trades` the same over the decisions whose reward was not 0. `capped_ratio` is the weight
    that the cap took, over all weight.
    """

    decisions: int
    ess: float
    ess_trades: float
    capped_ratio: float
    unsupported_ratio: float
    weight_deviations: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The log does not suffice: every check, the failed ones with their value and limit."""

    support: Support
    reasons: tuple[Reason, ...]

    @property
    def failed(self) -> tuple[Reason, ...]:
        """The checks that refused."""
        return tuple(reason for reason in self.reasons if reason.verdict is not Verdict.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What the candidate would have earned per decision, three ways, and the checks it passed."""

    support: Support
    reasons: tuple[Reason, ...]
    ips: Estimate
    snips: Estimate
    dr: Estimate


def evaluate(log: DecisionLog, candidate: Candidate, *, rule: SupportRule) -> Evaluated | Refused:
    """Return what the candidate would have earned per decision, or why the log cannot say.

    >>> log = DecisionLog(decisions=["a"], propensities=np.array([[0.5, 0.5]]),
    ...                   chosen=np.array([0]), rewards=np.array([0.5]), strata=np.array([0]))
    >>> from bandit.core.decision_log import single_arm
    >>> refused = evaluate(log, single_arm(1, arms=2), rule=SupportRule())
    >>> [(reason.check, reason.value, reason.limit) for reason in refused.failed]
    [('decisions', 1, 1000), ('ess', 0.0, 100.0), ('ess_trades', 0.0, 100.0)]
    """
    met = overlap(log, candidate, propensity_min=rule.propensity_min)
    weights = np.minimum(drawn(log, met.ratios), rule.weight_max)
    support = _support(log, met, weights, rule)
    reasons = _reasons(support, rule)
    if any(reason.verdict is not Verdict.PASS for reason in reasons):
        return Refused(support=support, reasons=reasons)
    ips = weights * log.rewards
    snips = float(ips.sum() / weights.sum())
    dr = doubly_robust(log, met, weights, stratum_means(log))
    clock = information(log, met)

    def estimate(value: float, scores: Floats) -> Estimate:
        return _estimate(value, standard_error(scores, clock), rule.confidence)

    return Evaluated(
        support=support,
        reasons=reasons,
        ips=estimate(float(ips.mean()), ips),
        # The first-order error of the quotient, by the delta method.
        snips=estimate(snips, weights * (log.rewards - snips) / weights.mean()),
        dr=estimate(float(dr.mean()), dr),
    )


def drawn(log: DecisionLog, by_arm: Floats) -> Floats:
    """Return of each row the number that stands at the arm that was drawn."""
    return by_arm[np.arange(len(log.chosen)), log.chosen]


def effective_size(weights: Floats) -> float:
    """Return how many equally weighted decisions say as much; 0 where no weight is left.

    >>> effective_size(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0


def _support(log: DecisionLog, met: Overlap, weights: Floats, rule: SupportRule) -> Support:
    uncapped = float(drawn(log, met.ratios).sum())
    capped = np.minimum(met.ratios, rule.weight_max)
    expected = (log.propensities * capped).sum(axis=1)
    variance = float(((log.propensities * capped**2).sum(axis=1) - expected**2).clip(0.0).sum())
    gap = abs(float((weights - expected).sum()))
    # What rounding leaves of a variance of 0 is no spread to measure a gap by.
    rounding = 1e-9 * max(len(weights), 1)
    return Support(
        decisions=len(weights),
        ess=effective_size(weights),
        ess_trades=effective_size(weights[log.rewards != 0.0]),
        capped_ratio=1.0 - float(weights.sum()) / uncapped if uncapped > 0.0 else 0.0,
        unsupported_ratio=float(met.unsupported.mean()) if len(weights) else 0.0,
        weight_deviations=0.0 if gap <= rounding else gap / max(variance, rounding) ** 0.5,
    )


def _reasons(support: Support, rule: SupportRule) -> tuple[Reason, ...]:
    unsupported = support.unsupported_ratio
    deviations = support.weight_deviations
    return (
        at_least("decisions", support.decisions, rule.decisions_min),
        at_most(
            "unsupported_ratio",
            unsupported,
            rule.unsupported_ratio_max,
            note=f"of the candidate on actions with a propensity below {rule.propensity_min:g}",
        ),
        at_least("ess", support.ess, rule.ess_min),
        at_least("ess_trades", support.ess_trades, rule.ess_min, note="rewards other than 0"),
        at_most(
            "weight_deviations",
            deviations,
            rule.weight_deviations_max,
            note="weights do not sum to what the logged propensities make likely",
        ),
    )


def stratum_means(log: DecisionLog) -> Floats:
    """Return n x K: what an arm's action earned in the row's stratum before the row, on average.

    Means begin with `PRIOR_OUTCOMES` outcomes of 0.

    >>> n = 3
    >>> log = DecisionLog(decisions=["a", "b", "c"], propensities=np.full((n, 2), 0.5),
    ...                   chosen=np.array([0, 0, 1]), rewards=np.array([26.0, 1.0, 9.0]),
    ...                   strata=np.zeros(n, dtype=int))
    >>> stratum_means(log).tolist()
    [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    """
    n, arms = log.propensities.shape
    actions = log.actions
    pairs = log.strata[:, None].astype(np.int64) * (actions.max(initial=0) + 1) + actions
    cells = np.unique(pairs, return_inverse=True)[1].reshape(n, arms)
    keys = cells * n + np.arange(n)[:, None]  # cell by cell, in the order of the rows
    chosen_keys = drawn(log, keys)
    order = np.argsort(chosen_keys)
    sums = np.concatenate([[0.0], np.cumsum(log.rewards[order])])
    first = np.searchsorted(chosen_keys[order], cells * n)
    before = np.searchsorted(chosen_keys[order], keys)
    means: Floats = (sums[before] - sums[first]) / (before - first + PRIOR_OUTCOMES)
    return means


def doubly_robust(log: DecisionLog, met: Overlap, weights: Floats, model: Floats) -> Floats:
    """Return by decision what the model expects of the candidate, corrected by what was earned.

    `model` is n x K, the reward expected of what each arm would have done. A model that is right
    leaves nothing to correct; one that is wrong is corrected on average.
    """
    direct = (log.propensities * met.ratios * model).sum(axis=1)
    scores: Floats = direct + weights * (log.rewards - drawn(log, model))
    return scores


def information(log: DecisionLog, met: Overlap) -> Floats:
    """Return the variance that the draw gives each decision, up to a factor: E[w^2], at least 1.

    Known before the draw, so it can time the variance estimate without looking at a reward.
    """
    squares: Floats = (log.propensities * met.ratios**2).sum(axis=1)
    return np.maximum(squares, 1.0)


def standard_error(scores: Floats, information: Floats) -> float:
    """Return the standard error of the mean of the scores, good for Student's t with `COSINES`.

    The scores' sums along a few slow cosine waves measure the variance of slow sums, hence also
    what runs of good and bad times add, and their mean square over the true variance is chi-squared
    over its degrees of freedom (equal-weighted cosines: Müller 2007; Lazarus, Lewis, Stock and
    Watson 2018). Those waves run on time. Ours run on `information`, the clock in which a sum of
    draws with moving propensities has a steady variance; with fixed propensities the two are one.
    Each wave is made orthogonal to a constant in both clocks, so that neither the mean nor its
    error enters.

    >>> steady = np.ones(1000)
    >>> quick, slow = np.tile([1.0, -1.0], 500), np.repeat([1.0, -1.0], 500)
    >>> standard_error(quick, steady) < 0.003, standard_error(slow, steady) > 0.3
    (True, True)
    """
    pace = information / information.mean()
    clock = (np.cumsum(pace) - pace / 2.0) / len(pace)
    root = np.sqrt(pace)
    waves = root[:, None] * np.cos(np.pi * np.arange(1, COSINES + 1) * clock[:, None])
    constants = np.stack([root, 1.0 / root], axis=1)
    # One column where the two clocks are one: the least squares of deficient rank see to it.
    waves -= constants @ np.linalg.lstsq(constants, waves, rcond=1e-10)[0]
    along = (np.linalg.qr(waves)[0] / root[:, None]).T @ scores
    return float(np.sqrt(np.mean(along**2) / len(scores)))


def _estimate(value: float, error: float, confidence: float) -> Estimate:
    reach = float(stdtrit(COSINES, 0.5 + confidence / 2.0)) * error
    interval = Interval(low=value - reach, high=value + reach, confidence=confidence)
    return Estimate(value=value, standard_error=error, interval=interval)
