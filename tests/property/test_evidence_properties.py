"""Wealth is a function of the set of decisions, and says nothing without a difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core import evidence
from bandit.core.errors import InvalidInput
from bandit.core.evidence import BETS, FACTOR_MIN, STEP, Tally, Terms

TERMS = Terms(unit=0.005, baseline=0.1, profit_factor=1.3)
RETURNS = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=40)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores of decisions routed with any shares, and who decided them."""
    returns = draw(RETURNS)
    n = len(returns)
    chosen = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    share = np.array(draw(st.lists(st.floats(0.01, 0.99), min_size=n, max_size=n)))
    return evidence.routed_scores(
        evidence.rewards(np.array(returns) / TERMS.unit, TERMS), chosen, share
    ), chosen


@given(scored(), st.randoms(use_true_random=False))
def test_order_and_batches_change_nothing(
    decisions: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    scores, chosen = decisions
    order = np.arange(len(scores))
    random.shuffle(order)  # type: ignore[attr-defined]
    one_by_one = [Tally.of(scores[i : i + 1], chosen=chosen[i : i + 1]) for i in order]
    assert evidence.total(one_by_one) == Tally.of(scores, chosen=chosen)


@given(scored(), scored())
def test_a_correction_leaves_no_trace_of_what_it_corrects(
    decisions: tuple[np.ndarray, np.ndarray], wrong: tuple[np.ndarray, np.ndarray]
) -> None:
    right, other = Tally.of(decisions[0], chosen=decisions[1]), Tally.of(wrong[0], chosen=wrong[1])
    assert right + other - other == right


@given(scored())
def test_wealth_is_that_of_the_bets_laid_one_after_the_other(
    decisions: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, chosen = decisions
    strength = Tally.of(scores, chosen=chosen).strength
    for form, sign, found in (
        (0, 1, strength.mean_up),
        (0, -1, strength.mean_down),
        (1, 1, strength.factor_up),
        (1, -1, strength.factor_down),
    ):
        wealth = 0.0
        for bet in BETS:
            grown = 1.0
            for score in scores[:, form]:
                grown *= max(1.0 + bet * sign * score, FACTOR_MIN)
            wealth += grown / len(BETS)
        assert found == pytest.approx(math.log(wealth), abs=1e-9)


@given(st.floats(0.02, 0.98), st.lists(st.floats(-6.0, 6.0), min_size=1, max_size=8))
def test_nobody_is_expected_to_gain_where_both_arms_earn_the_same(
    share: float, results: list[float]
) -> None:
    # Whatever the result is, it comes from either arm with the probability of its share: the
    # expected factor of every bet is 1, up to a step, as long as no factor is held at its minimum.
    rewarded = np.array([[x, x] for x in results])
    expected = sum(
        weight
        * np.exp(evidence.log_factors(evidence.routed_scores(rewarded, chosen, share)) / STEP)
        for chosen, weight in (
            (np.ones(len(results)), share),
            (np.zeros(len(results)), 1.0 - share),
        )
    )
    assert np.abs(expected - 1.0).max() < 1e-11


def test_a_difference_is_expected_to_pay() -> None:
    # The control of the test above: an arm that earns more makes its bets grow.
    rewarded = np.array([[0.5, 0.5]]), np.array([[0.0, 0.0]])
    share = 0.25
    grown = share * evidence.log_factors(evidence.routed_scores(rewarded[0], [1.0], share)) + (
        1.0 - share
    ) * evidence.log_factors(evidence.routed_scores(rewarded[1], [0.0], share))
    assert (grown[0, :, 0] > 0).all()
    assert (grown[0, :, 1] < 0).all()


@given(st.floats(0.5, 4.0), st.integers(1, 300))
def test_the_second_form_is_won_exactly_by_a_better_profit_factor(factor: float, n: int) -> None:
    rng = np.random.default_rng(n)
    gains = np.abs(rng.standard_normal(n)) * 0.01
    losses = gains / factor
    returns = np.concatenate([gains, -losses])
    terms = Terms(unit=0.005, baseline=0.0, profit_factor=1.3)
    earned = evidence.rewards(returns / terms.unit, terms)[:, 1].sum()
    assert (earned > 1e-9) == (factor > 1.3 + 1e-9) or abs(factor - 1.3) < 1e-6


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_result_makes_a_factor_overflow(result: float) -> None:
    if math.isnan(result):
        return
    rewarded = evidence.rewards([result], TERMS)
    for chosen in (True, False):
        tally = Tally.of(evidence.routed_scores(rewarded, [chosen], 0.5), chosen=[chosen])
        assert all(abs(steps) < 2**53 * 1000 for steps in tally.wealth)
        assert all(math.isfinite(x) for x in (tally.strength.mean_up, tally.strength.factor_down))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"unit": 0.0}, "unit"),
        ({"unit": math.nan}, "unit"),
        ({"unit": math.inf}, "unit"),
        ({"baseline": math.nan}, "baseline"),
        ({"profit_factor": math.nan}, "profit_factor"),
    ],
)
def test_unlawful_terms_are_refused(values: dict[str, float], field: str) -> None:
    lawful = {"unit": 0.005, "baseline": 0.1, "profit_factor": 1.3}
    with pytest.raises(InvalidInput) as refused:
        Terms(**lawful | values)
    assert refused.value.field == field
