"""Strategies: what each counts of an arm's history, and whom it gives traffic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from bandit.core.allocators.discounted_thompson import DiscountedThompson
from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.registry import STRATEGIES, strategy
from bandit.core.allocators.strategy import DayResults, Strategy
from bandit.core.errors import InvalidInput, UnknownName
from bandit.core.model import PolicyName

OLD, NEW, ODD = PolicyName("old"), PolicyName("new"), PolicyName("odd")
NOTHING = Moments(n=0, total=0.0, squares=0.0)
LEARNING = [name for name in STRATEGIES if name != "fixed"]
THOMPSON = [name for name in STRATEGIES if name.endswith("thompson")]


def known(mean: float, n: float) -> Moments:
    return Moments(n=n, total=mean * n, squares=2.0 * n)


def shares_of(
    rule: Strategy, arms: dict[PolicyName, Moments], seed: int = 1
) -> dict[PolicyName, float]:
    return rule.shares(arms, champion=OLD, rng=np.random.default_rng(seed))


def seed_mean(rule: Strategy, arms: dict[PolicyName, Moments]) -> dict[PolicyName, float]:
    found = [shares_of(rule, arms, seed) for seed in range(40)]
    return {policy: float(np.mean([shares[policy] for shares in found])) for policy in arms}


@pytest.mark.parametrize("name", LEARNING)
def test_the_clearly_better_arm_gets_most(name: str) -> None:
    arms = {OLD: known(0.1, 4000), NEW: known(0.4, 4000), ODD: known(-0.1, 4000)}
    assert shares_of(strategy(name, {}), arms)[NEW] > 0.9


@pytest.mark.parametrize("name", [*THOMPSON, "epsilon_greedy", "ucb"])
@pytest.mark.parametrize("arms", [1, 2, 20])
def test_arms_nobody_knows_of_share_alike_however_many(name: str, arms: int) -> None:
    names = [OLD, *(PolicyName(f"arm{i}") for i in range(1, arms))]
    found = seed_mean(strategy(name, {}), dict.fromkeys(names, NOTHING))
    # 40 nights of 1000 draws: a share of p is known to sqrt(p (1 - p) / 40000).
    assert list(found.values()) == pytest.approx([1 / arms] * arms, abs=0.013)


@pytest.mark.parametrize("name", THOMPSON)
def test_shares_are_the_probability_of_being_the_best(name: str) -> None:
    # Two independent Student-t posteriors: P(new > old) by quadrature.
    arms = {OLD: known(0.13, 400), NEW: known(0.2, 120)}

    def posterior(m: Moments) -> Any:
        weight, shape = 25.0 + m.n, 2.0 + m.n / 2
        scatter = m.squares - m.n * m.mean**2
        spread = 2.0 + scatter / 2 + 25.0 * m.n * m.mean**2 / (2 * weight)
        return stats.t(2 * shape, m.total / weight, math.sqrt(spread / (shape * weight)))

    old, new = posterior(arms[OLD]), posterior(arms[NEW])
    wins = integrate.quad(lambda x: new.pdf(x) * old.cdf(x), -2, 2, limit=200)[0]
    assert 0.5 < wins < 0.8
    found = seed_mean(strategy(name, {}), arms)
    assert found[NEW] == pytest.approx(wins, abs=4 * math.sqrt(0.25 / 40_000))


def test_thompson_counts_all_that_ever_was() -> None:
    days = DayResults.of([(0, 2, 1.0), (3000, 6, -2.0)])
    assert strategy("thompson", {}).weigh(days, second_moment=1.5) == Moments(
        n=8.0, total=-1.0, squares=12.0
    )


def test_discounting_halves_with_every_half_life() -> None:
    rule = strategy("discounted_thompson", {"half_life_days": 10})
    days = DayResults.of((ago, 16, 8.0) for ago in (0, 10, 20, 40))
    found = rule.weigh(days, second_moment=2.0)
    assert (found.n, found.total, found.squares) == (16 + 8 + 4 + 1, 14.5, 58.0)


def test_discounting_lets_a_fallen_arm_go() -> None:
    once = [(ago, 20, 10.0) for ago in range(200, 500)]
    lately = [(ago, 20, -2.0) for ago in range(100)]
    steady = [(ago, 20, 2.0) for ago in range(500)]
    share = {}
    for name, settings in (
        ("thompson", {}),
        ("discounted_thompson", {"half_life_days": 70}),
        ("sliding_window_thompson", {"window_days": 90}),
    ):
        rule = strategy(name, settings)
        arms = {
            OLD: rule.weigh(DayResults.of(steady), second_moment=2.0),
            NEW: rule.weigh(DayResults.of([*once, *lately]), second_moment=2.0),
        }
        share[name] = shares_of(rule, arms)[NEW]
    assert share["thompson"] > 0.99
    assert share["discounted_thompson"] < 0.75
    assert share["sliding_window_thompson"] < 0.01


def test_a_window_forgets_what_lies_before_it() -> None:
    rule = strategy("sliding_window_thompson", {"window_days": 3})
    days = [(ago, 1, 10.0**ago) for ago in range(6)]
    found = rule.weigh(DayResults.of(days), second_moment=5000.0)
    assert found == Moments(n=3.0, total=111.0, squares=15_000.0)
    assert rule.weigh(DayResults.of(days[3:]), second_moment=5000.0) == NOTHING


def test_a_day_wilder_than_the_life_it_is_of_has_lawful_squares() -> None:
    found = strategy("thompson", {}).weigh(DayResults.of([(0, 4, 40.0)]), second_moment=2.0)
    assert found.squares == 400.0


def test_ucb_is_its_formula() -> None:
    # Old: bound 0.12 + 0.5 sigma sqrt(2 ln 1001 / 900), new: mean 0 over 100 trades.
    arms = {OLD: known(0.12, 900), NEW: known(0.0, 100)}
    surprise = 2 * math.log(1001)
    deviation = math.sqrt((25 * 2.0 + 900 * (2.0 - 0.12**2)) / 925)
    old = 0.12 + 0.5 * deviation * math.sqrt(surprise / 900)
    new = 0.5 * math.sqrt(2.0) * math.sqrt(surprise / 100)
    assert (old, new) == pytest.approx((0.2073, 0.2628), abs=1e-4)
    assert shares_of(strategy("ucb", {"width": 0.5}), arms) == {OLD: 0.0, NEW: 1.0}
    # They meet at a width of 0.3418 = 0.12 / (0.5257 - 0.1746); under it, the mean decides.
    assert shares_of(strategy("ucb", {"width": 0.345}), arms) == {OLD: 0.0, NEW: 1.0}
    assert shares_of(strategy("ucb", {"width": 0.338}), arms) == {OLD: 1.0, NEW: 0.0}


def test_ucb_needs_no_range_of_results() -> None:
    # Two wins of 0.3 alike say little: the deviation is the prior's, not their zero.
    lucky = Moments(n=2, total=0.6, squares=0.18)
    arms = {OLD: known(0.3, 50), NEW: lucky}
    assert shares_of(strategy("ucb", {}), arms)[NEW] == 1.0


def test_epsilon_greedy_does_not_fall_for_one_lucky_trade() -> None:
    arms = {OLD: known(0.1, 2000), NEW: Moments(n=1, total=2.0, squares=4.0)}
    # After 25 trades of zero, the lucky arm is believed to earn 2 / 26, the old one 0.0988.
    assert shares_of(strategy("epsilon_greedy", {}), arms) == pytest.approx({OLD: 0.95, NEW: 0.05})


def test_fixed_never_gives_a_challenger_more_than_the_champion() -> None:
    results = {OLD: known(0.1, 50), NEW: known(1.2, 5000), ODD: NOTHING}
    rule = strategy("fixed", {})
    assert shares_of(rule, results) == pytest.approx({OLD: 0.8, NEW: 0.1, ODD: 0.1})
    many = {OLD: NOTHING} | {PolicyName(f"arm{i}"): NOTHING for i in range(19)}
    assert shares_of(rule, many) == pytest.approx(dict.fromkeys(many, 0.05))
    assert shares_of(rule, {OLD: NOTHING}) == {OLD: 1.0}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_champion_that_is_no_arm_is_refused(name: str) -> None:
    for arms in ({}, {NEW: NOTHING}):
        with pytest.raises(InvalidInput) as refused:
            shares_of(strategy(name, {}), arms)
        assert refused.value.field == "champion"


def test_unknown_names_and_settings_are_refused() -> None:
    with pytest.raises(UnknownName) as unknown:
        strategy("exp3", {})
    assert "thompson" in unknown.value.known
    with pytest.raises(InvalidInput, match="width, window_days, found temperature"):
        strategy("discounted_thompson", {"temperature": 30})
    # An experiment stores the settings of all; each takes its own.
    assert strategy("discounted_thompson", {"window_days": -1}) == DiscountedThompson()


@pytest.mark.parametrize(
    ("name", "setting", "wrong"),
    [
        ("discounted_thompson", "half_life_days", 0.5),
        ("discounted_thompson", "half_life_days", math.nan),
        ("sliding_window_thompson", "window_days", 0),
        ("sliding_window_thompson", "window_days", 10_000),
        ("ucb", "width", 0.0),
        ("ucb", "width", math.inf),
        ("epsilon_greedy", "epsilon", -0.1),
        ("epsilon_greedy", "epsilon", 1.5),
        ("fixed", "challenger_share", 0.0),
        ("fixed", "challenger_share", 0.6),
    ],
)
def test_settings_out_of_range_are_refused(name: str, setting: str, wrong: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        strategy(name, {setting: wrong})
    assert refused.value.field == setting


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"days_ago": -1}, "days_ago"),
        ({"n": -1}, "n"),
        ({"total": math.nan}, "total"),
        ({"total": math.inf}, "total"),
        ({"n": 0}, "total"),
    ],
)
def test_impossible_days_are_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        DayResults.of([tuple(({"days_ago": 1, "n": 2, "total": 0.5} | values).values())])
    assert refused.value.field == field


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_an_impossible_second_moment_is_refused(wrong: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        strategy("thompson", {}).weigh(DayResults.of([]), second_moment=wrong)
    assert refused.value.field == "second_moment"
