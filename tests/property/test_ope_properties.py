"""What must hold of off-policy evaluation for every log that suffices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.core.decision_log import ArmMixture, DecisionLog, single_arm
from bandit.core.ope import Estimate, Evaluated, Refused, SupportRule, evaluate

RULE = SupportRule(decisions_min=50, ess_min=10.0)
# Wall-clock limits of single examples would only measure how busy the machine is.
unhurried = settings(deadline=None, max_examples=50)


@st.composite
def logs(draw: st.DrawFn) -> DecisionLog:
    """Draw logs by moving propensities over two to four arms, with or without actions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, arms = draw(st.integers(50, 200)), draw(st.integers(2, 4))
    propensities = rng.dirichlet(np.full(arms, 3.0), n)
    ends = propensities.cumsum(axis=1)
    chosen = (rng.random((n, 1)) > ends[:, :-1]).sum(axis=1)
    return DecisionLog(
        decisions=[f"d{i}" for i in range(n)],
        propensities=propensities,
        chosen=chosen,
        rewards=rng.standard_t(4, n),
        strata=rng.integers(0, 3, n),
        proposed=rng.integers(-1, 3, (n, arms)) if draw(st.booleans()) else None,
    )


def estimates(answer: Evaluated | Refused) -> tuple[Estimate, Estimate, Estimate]:
    """The three estimates of a log that suffices."""
    assert isinstance(answer, Evaluated)
    return answer.ips, answer.snips, answer.dr


def reordered(log: DecisionLog, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> DecisionLog:
    return DecisionLog(
        decisions=[log.decisions[i] for i in order],
        propensities=log.propensities[order],
        chosen=log.chosen[order],
        rewards=log.rewards[order],
        strata=log.strata[order],
        proposed=None if log.proposed is None else log.proposed[order],
    )


def renamed_arms(log: DecisionLog) -> DecisionLog:
    """The same log with its arms in the opposite order."""
    last = log.propensities.shape[1] - 1
    return replace(
        log,
        propensities=log.propensities[:, ::-1],
        chosen=last - log.chosen,
        proposed=None if log.proposed is None else log.proposed[:, ::-1],
    )


@unhurried
@given(log=logs())
def test_the_logging_policy_itself_earns_what_was_earned(log: DecisionLog) -> None:
    answer = evaluate(log, ArmMixture(probabilities=log.propensities), rule=RULE)
    ips, snips, _ = estimates(answer)
    assert ips.value == pytest.approx(log.rewards.mean(), rel=1e-9, abs=1e-12)
    assert snips.value == pytest.approx(log.rewards.mean(), rel=1e-9, abs=1e-12)
    assert answer.support.ess == pytest.approx(len(log.rewards))


@unhurried
@given(log=logs(), seed=st.integers(0, 2**32))
def test_order_moves_neither_ips_nor_snips_nor_support(log: DecisionLog, seed: int) -> None:
    """The model of DR and every interval know the order: a row is corrected by those before it."""
    order = np.random.default_rng(seed).permutation(len(log.rewards))
    candidate = single_arm(0, arms=log.propensities.shape[1])
    one, other = (
        evaluate(entered, candidate, rule=RULE) for entered in (log, reordered(log, order))
    )
    assert type(one) is type(other)
    assert one.support.ess == pytest.approx(other.support.ess, rel=1e-9)
    assert one.support.weight_deviations == pytest.approx(other.support.weight_deviations, abs=1e-6)
    if isinstance(one, Evaluated):
        for mine, yours in zip(estimates(one)[:2], estimates(other)[:2], strict=True):
            assert mine.value == pytest.approx(yours.value, rel=1e-9, abs=1e-12)


@unhurried
@given(log=logs())
def test_the_order_of_arms_means_nothing(log: DecisionLog) -> None:
    arms = log.propensities.shape[1]
    one = evaluate(log, single_arm(0, arms=arms), rule=RULE)
    other = evaluate(renamed_arms(log), single_arm(arms - 1, arms=arms), rule=RULE)
    assert type(one) is type(other)
    if isinstance(one, Evaluated):
        for mine, yours in zip(estimates(one), estimates(other), strict=True):
            assert mine.value == pytest.approx(yours.value, rel=1e-9, abs=1e-9)
            assert mine.standard_error == pytest.approx(yours.standard_error, rel=1e-6)


@unhurried
@given(log=logs(), scale=st.floats(0.01, 20.0))
def test_estimates_scale_with_rewards(log: DecisionLog, scale: float) -> None:
    candidate = ArmMixture(probabilities=log.propensities[:, ::-1])
    one = evaluate(log, candidate, rule=RULE)
    other = evaluate(replace(log, rewards=log.rewards * scale), candidate, rule=RULE)
    assert type(one) is type(other)
    if isinstance(one, Evaluated):
        for mine, yours in zip(estimates(one), estimates(other), strict=True):
            assert yours.value == pytest.approx(scale * mine.value, rel=1e-9, abs=1e-12)
            assert yours.interval.low == pytest.approx(
                scale * mine.interval.low, rel=1e-9, abs=1e-9
            )
            assert yours.interval.high == pytest.approx(
                scale * mine.interval.high, rel=1e-9, abs=1e-9
            )


@unhurried
@given(log=logs(), shift=st.floats(-5.0, 5.0))
def test_a_constant_added_to_every_reward_shifts_snips_by_it(
    log: DecisionLog, shift: float
) -> None:
    candidate = single_arm(0, arms=log.propensities.shape[1])
    one = evaluate(log, candidate, rule=RULE)
    other = evaluate(replace(log, rewards=log.rewards + shift), candidate, rule=RULE)
    if isinstance(one, Evaluated) and isinstance(other, Evaluated):
        assert other.snips.value == pytest.approx(one.snips.value + shift, rel=1e-9, abs=1e-9)
        assert other.snips.standard_error == pytest.approx(one.snips.standard_error, rel=1e-6)


@unhurried
@given(log=logs())
def test_a_mixture_earns_the_mixture_of_its_arms(log: DecisionLog) -> None:
    """IPS is linear in the candidate as long as no weight is capped."""
    arms = log.propensities.shape[1]
    shares = np.arange(1.0, arms + 1.0)
    shares /= shares.sum()
    whole = evaluate(log, ArmMixture(probabilities=shares), rule=RULE)
    parts = [evaluate(log, single_arm(k, arms=arms), rule=RULE) for k in range(arms)]
    answered = [part for part in parts if isinstance(part, Evaluated)]
    if isinstance(whole, Evaluated) and len(answered) == arms:
        if any(part.support.capped_ratio > 0.0 for part in answered):
            return
        values = [part.ips.value for part in answered]
        assert whole.ips.value == pytest.approx(float(shares @ values), rel=1e-9, abs=1e-9)
