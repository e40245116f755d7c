"""Detectors: their arithmetic by another way, what they must not do, and that they do see."""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
import pytest

from bandit.core.detectors import CERTAIN, LEVEL_MAX, decay, exceedance, ratio_mismatch
from bandit.core.errors import InvalidInput
from bandit.core.evidence import BETS, STEP, log_factors

# Decay


def bets(scores: np.ndarray) -> np.ndarray:
    """What days of one decision each add to the log-wealth of the bets on their scores."""
    return log_factors(np.stack([scores, scores], axis=1))[:, 0, 0]


def test_decay_is_the_sum_over_all_starts() -> None:
    # R_n = sum over first days k of the wealth of a bet that begins on k.
    scores = np.random.default_rng(3).normal(size=60)
    by_start = [np.prod(1.0 + bet * scores[start:]) for bet in BETS for start in range(len(scores))]
    assert decay(bets(scores)) == pytest.approx(math.fsum(by_start) / len(BETS))


def test_decay_follows_day_by_day() -> None:
    wealth, level = bets(np.random.default_rng(4).normal(size=50)), np.zeros(len(BETS))
    for day in range(len(wealth)):
        level = (level + 1.0) * np.exp(wealth[day] / STEP)
        assert decay(wealth[: day + 1]) == pytest.approx(level.mean())


@pytest.mark.parametrize(("drop", "alarms"), [(0.0, False), (0.6, True)])
def test_decay_finds_a_fall_after_a_long_good_time(drop: float, alarms: bool) -> None:
    rng = np.random.default_rng(5)
    scores = np.concatenate([rng.normal(-0.3, 1.0, 3000), rng.normal(drop - 0.3, 1.0, 1500)])
    assert (decay(bets(scores)) > 10_000) is alarms


def test_decay_of_nothing_is_nothing_and_has_an_end() -> None:
    assert decay([]) == 0.0
    assert decay(np.full((400, len(BETS)), STEP)) == pytest.approx(LEVEL_MAX)


def test_false_alarms_of_decay_come_once_in_as_many_days_as_asked() -> None:
    # Fair bets: 400 pairs of arms, alarmed at 100 days. In the mean an alarm takes at least that;
    # the tolerance is three standard errors.
    rng, taken, alarms = np.random.default_rng(8), 0, 0
    for _ in range(400):
        wealth, level = bets(rng.normal(size=500)), np.zeros(len(BETS))
        for day in range(len(wealth)):
            level = (level + 1.0) * np.exp(wealth[day] / STEP)
            if level.mean() >= 100.0:
                alarms += 1
                break
        taken += day + 1
    assert taken / alarms >= 100.0 * (1.0 - 3 / math.sqrt(alarms))


# Failures


def test_exceedance_is_a_mixture_of_binomial_likelihood_ratios() -> None:
    limit, n, failures = 0.01, 700, 11
    ratios = []
    for times in (1.5, 2.0, 3.0, 5.0, 10.0):
        odds = times * limit / (1.0 - limit)
        rate = odds / (1.0 + odds)
        ratios.append((rate / limit) ** failures * ((1.0 - rate) / (1.0 - limit)) ** (n - failures))
    found = exceedance(failures, n, limit=limit)
    assert math.exp(found) == pytest.approx(math.fsum(ratios) / len(ratios))


@pytest.mark.parametrize("rate", [0.0, 0.002, 0.01])
def test_exceedance_is_not_expected_to_grow_within_the_limit(rate: float) -> None:
    # One more request, whatever came before: the expected e-value is no larger.
    for failures, n in ((0, 10), (3, 100), (30, 900)):
        before = math.exp(exceedance(failures, n, limit=0.01))
        failed = math.exp(exceedance(failures + 1, n + 1, limit=0.01))
        answered = math.exp(exceedance(failures, n + 1, limit=0.01))
        assert rate * failed + (1.0 - rate) * answered <= before * (1.0 + 1e-9)


def test_exceedance_false_alarms_stay_below_alpha_at_the_limit_itself() -> None:
    # 400 services that fail exactly as often as allowed, looked at after every request: at most
    # 5 % may ever alarm; the tolerance is three standard errors.
    rng, alarms, looked, n = np.random.default_rng(6), 0, np.arange(1, 3001), 3000
    known = cache(partial(exceedance, limit=0.01))  # they meet the same counts again and again
    for _ in range(400):
        failures = np.cumsum(rng.random(n) < 0.01)
        alarms += any(
            known(int(f), int(i)) > math.log(20)
            for f, i in zip(failures[::10], looked[::10], strict=True)
        )
    assert alarms / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(
    ("failures", "n", "limit", "field"),
    [
        (-1, 5, 0.01, "failures"),
        (6, 5, 0.01, "failures"),
        (1, 5, 0.0, "limit"),
        (1, 5, 0.6, "limit"),
        (1, 5, math.nan, "limit"),
    ],
)
def test_unlawful_counts_are_refused(failures: int, n: int, limit: float, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        exceedance(failures, n, limit=limit)
    assert refused.value.field == field


# Skewed draws


def test_ratio_mismatch_is_the_product_of_predictive_odds() -> None:
    # One unit after the other: what the posterior expects of its arm, over its share.
    shares, drawn = {"a": 0.7, "b": 0.2, "c": 0.1}, "aabacabaabcaab"
    log, counts = 0.0, dict.fromkeys(shares, 0)
    for i, arm in enumerate(drawn):
        log += math.log((100 * shares[arm] + counts[arm]) / (100 + i) / shares[arm])
        counts[arm] += 1
    assert ratio_mismatch([(shares, counts)]) == pytest.approx(log)


def test_versions_add_up_and_an_empty_one_says_nothing() -> None:
    one = ({"a": 0.9, "b": 0.1}, {"a": 80, "b": 20})
    other = ({"a": 0.5, "b": 0.5}, {"a": 30, "b": 31})
    both = ratio_mismatch([one, other, ({"a": 1.0}, {})])
    assert both == pytest.approx(ratio_mismatch([one]) + ratio_mismatch([other]))


def test_ratio_mismatch_false_alarms_stay_below_alpha() -> None:
    rng, shares = np.random.default_rng(7), {"a": 0.9, "b": 0.1}
    alarms = 0
    for _ in range(400):
        drawn = np.cumsum(rng.random(5000) < 0.1)
        alarms += any(
            ratio_mismatch([(shares, {"a": n - int(drawn[n - 1]), "b": int(drawn[n - 1])})])
            > math.log(20)
            for n in range(50, 5001, 50)
        )
    assert alarms / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("shares", [{"a": 1.0}, {"a": 1.0, "b": 0.0}])
def test_a_unit_of_an_arm_without_a_share_settles_it(shares: dict[str, float]) -> None:
    assert ratio_mismatch([(shares, {"b": 1})]) == CERTAIN
    assert ratio_mismatch([(shares, {"a": 1, "b": 0})]) < 0.1


def test_shares_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        ratio_mismatch([({"a": 0.6, "b": 0.6}, {"a": 1})])
    assert refused.value.field == "shares"
