"""Randomised decisions as columns, and how much each says about a candidate that did not decide.

A decision drew one arm with known propensities. Where every arm said what it would have done, arms
that proposed the same action answer for each other: what counts is the propensity of the *action*,
mu(a) = sum of the propensities of the arms that proposed a. Where they did not, each arm is an
action of its own, and mu is the propensity of the arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from bandit.core.model import RETURN_LIMIT

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

UNKNOWN_ACTION = -1
SUM_TOLERANCE = 1e-9
CODE_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionLog:
    """n decisions in the order they were taken, over K arms; whatever was not drawn stays out.

    `propensities` is n x K, 0 where an arm was not eligible; `chosen` is the column of the arm
    that was drawn. `rewards` are normalised returns, 0 for `no_trade`; `strata` codes of
    instruments. `proposed` is n x K codes of actions from 0, `UNKNOWN_ACTION` where an arm did not
    say; one code stands for everything that makes an outcome: side, size, stop and exit.

    >>> log = DecisionLog(decisions=["a", "b"], propensities=np.array([[0.9, 0.1], [0.9, 0.1]]),
    ...                   chosen=np.array([0, 1]), rewards=np.array([0.5, -1.0]),
    ...                   strata=np.array([0, 0]), proposed=np.array([[7, 7], [-1, -1]]))
    >>> log.actions.tolist()
    [[7, 7], [8, 9]]
    """

    decisions: Sequence[str]
    propensities: Floats
    chosen: Integers
    rewards: Floats
    strata: Integers
    proposed: Integers | None = None

    def __post_init__(self) -> None:
        """Refuse columns that do not fit each other, and propensities nothing is drawn by."""
        if self.propensities.ndim != 2 or self.propensities.shape[1] < 1:
            rule, shown = "must be n x K with K >= 1", self.propensities.shape
            raise InvalidInput(field="propensities", rule=rule, found=shown)
        n, arms = self.propensities.shape
        for field, shape in (("chosen", (n,)), ("rewards", (n,)), ("strata", (n,))):
            require_shape(getattr(self, field), shape, field=field)
        if len(self.decisions) != n or len(set(self.decisions)) != n:
            rule, found = f"must be {n} different ids", len(set(self.decisions))
            raise InvalidInput(field="decisions", rule=rule, found=found)
        require_whole(self.chosen, 0, arms - 1, field="chosen")
        require_whole(self.strata, 0, CODE_MAX, field="strata")
        require_shares(self.propensities, field="propensities")
        drawn = self.propensities[np.arange(n), self.chosen]
        _require_all(drawn > 0.0, drawn, field="propensities", rule="must be > 0 where chosen")
        require_floats(self.rewards, field="rewards")
        bound = float(RETURN_LIMIT)
        fits = np.abs(self.rewards) < bound  # False for NaN
        rule = f"must be finite and smaller than {bound:g}"
        _require_all(fits, self.rewards, field="rewards", rule=rule)
        if self.proposed is not None:
            require_shape(self.proposed, (n, arms), field="proposed")
            require_whole(self.proposed, UNKNOWN_ACTION, CODE_MAX, field="proposed")

    @property
    def says_actions(self) -> Flags:
        """Whether every arm that could be drawn said what it would have done, by decision."""
        if self.proposed is None:
            return np.zeros(len(self.rewards), dtype=bool)
        silent = (self.proposed == UNKNOWN_ACTION) & (self.propensities > 0.0)
        says: Flags = ~silent.any(axis=1)
        return says

    @property
    def actions(self) -> Integers:
        """Codes of what each arm would have done; an arm that is its own action has its own code.

        The codes of arms begin after the last code of an action.
        """
        n, arms = self.propensities.shape
        after = 0 if self.proposed is None else int(self.proposed.max(initial=UNKNOWN_ACTION)) + 1
        own = np.broadcast_to(after + np.arange(arms), (n, arms))
        if self.proposed is None:
            return own
        # An arm that could not be drawn and was silent beside others that were not is its own, too.
        speaks = self.says_actions[:, None] & (self.proposed != UNKNOWN_ACTION)
        return np.where(speaks, self.proposed, own)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmMixture:
    """A candidate that follows arm k with a fixed probability, or with one given by decision.

    >>> ArmMixture(probabilities=np.array([0.5, 0.5])).probabilities.shape
    (2,)
    """

    probabilities: Floats

    def __post_init__(self) -> None:
        """Refuse what is no probability distribution over arms."""
        if self.probabilities.ndim not in (1, 2):
            rule, found = "must be K or n x K", self.probabilities.shape
            raise InvalidInput(field="probabilities", rule=rule, found=found)
        require_shares(np.atleast_2d(self.probabilities), field="probabilities")


def single_arm(arm: int, *, arms: int) -> ArmMixture:
    """Return the candidate that always follows one arm of the log.

    >>> single_arm(1, arms=3).probabilities.tolist()
    [0.0, 1.0, 0.0]
    """
    if not 0 <= arm < arms:
        raise InvalidInput(field="arm", rule=f"must lie in 0..{arms - 1}", found=arm)
    return ArmMixture(probabilities=np.eye(arms)[arm])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExternalPolicy:
    """A candidate outside the log, by the code of the action it proposes at each decision."""

    actions: Integers

    def __post_init__(self) -> None:
        """Refuse codes that stand for nothing."""
        require_shape(self.actions, (self.actions.size,), field="actions")
        require_whole(self.actions, 0, CODE_MAX, field="actions")


Candidate = ArmMixture | ExternalPolicy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """Where the log can answer for a candidate.

    `ratios` is n x K: the candidate's probability of what arm k proposed over the log's (mu); the
    weight of the decision if k was drawn. `unsupported` is the candidate's probability, by
    decision, of actions whose mu is below what an estimate can rest on.
    """

    ratios: Floats
    unsupported: Floats


def overlap(log: DecisionLog, candidate: Candidate, *, propensity_min: float) -> Overlap:
    """Return how the candidate's actions meet those of the log.

    >>> log = DecisionLog(decisions=["a"], propensities=np.array([[0.5, 0.25, 0.25]]),
    ...                   chosen=np.array([1]), rewards=np.array([0.5]), strata=np.array([0]),
    ...                   proposed=np.array([[3, 3, 4]]))
    >>> met = overlap(log, single_arm(0, arms=3), propensity_min=0.02)
    >>> met.ratios.round(3).tolist(), met.unsupported.tolist()  # 1 / (0.5 + 0.25)
    ([[1.333, 1.333, 0.0]], [0.0])
    """
    actions = log.actions
    mu = _by_action(actions, log.propensities)
    wanted = _wanted(log, candidate, actions)
    ratios = np.divide(wanted, mu, out=np.zeros_like(wanted), where=mu > 0.0)
    # The tolerance is for propensities that are the floor itself, after a sum.
    rests = mu >= propensity_min * (1.0 - SUM_TOLERANCE)
    supported = np.where(rests, log.propensities * ratios, 0.0).sum(axis=1)
    return Overlap(ratios=ratios, unsupported=np.maximum(1.0 - supported, 0.0))


def _wanted(log: DecisionLog, candidate: Candidate, actions: Integers) -> Floats:
    """Return the candidate's probability of what each arm proposed."""
    n, arms = actions.shape
    match candidate:
        case ExternalPolicy():
            require_shape(candidate.actions, (n,), field="actions")
            meets = (actions == candidate.actions[:, None]) & log.says_actions[:, None]
            return np.where(meets, 1.0, 0.0)
        case ArmMixture():
            shares = candidate.probabilities
            require_shape(shares, (arms,) if shares.ndim == 1 else (n, arms), field="probabilities")
            return _by_action(actions, np.broadcast_to(shares, (n, arms)))
        case _:
            assert_never(candidate)


def _by_action(actions: Integers, shares: Floats) -> Floats:
    """Return n x K: the sum of the shares of all arms that proposed what arm k proposed."""
    arms = range(actions.shape[1])
    alike = (actions == actions[:, [k]] for k in arms)
    return np.stack([np.where(same, shares, 0.0).sum(axis=1) for same in alike], axis=1)


def require_shape(column: NDArray[np.generic], shape: tuple[int, ...], *, field: str) -> None:
    """Refuse a column of another shape than the log's."""
    if column.shape != shape:
        raise InvalidInput(field=field, rule=f"must have the shape {shape}", found=column.shape)


def require_whole(codes: Integers, least: int, most: int, *, field: str) -> None:
    """Refuse codes that are no integers from `least` to `most`."""
    if not np.issubdtype(codes.dtype, np.integer):
        raise InvalidInput(field=field, rule="must be integers", found=codes.dtype)
    fits = (codes >= least) & (codes <= most)
    _require_all(fits, codes, field=field, rule=f"must lie in {least}..{most}")


def require_floats(column: NDArray[np.generic], *, field: str) -> None:
    """Refuse a column that holds anything but floating-point numbers."""
    if column.dtype != np.float64:
        raise InvalidInput(field=field, rule="must be 64-bit floats", found=column.dtype)


def require_shares(shares: Floats, *, field: str) -> None:
    """Refuse rows that are no probability distributions."""
    require_floats(shares, field=field)
    fits = (shares >= 0.0) & (shares <= 1.0)  # False for NaN
    _require_all(fits, shares, field=field, rule="must lie in 0..1")
    sums = shares.sum(axis=1)
    rule = f"must sum to 1 within {SUM_TOLERANCE:g}"
    _require_all(np.abs(sums - 1.0) <= SUM_TOLERANCE, sums, field=field, rule=rule)


def _require_all(fits: Flags, values: NDArray[np.generic], *, field: str, rule: str) -> None:
    if not fits.all():
        row = int(np.argwhere(~fits)[0][0])
        raise InvalidInput(field=field, rule=f"row {row} {rule}", found=values[~fits][0])
