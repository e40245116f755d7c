"""Whatever an arm has earned: shares are shares, and every strategy is a function of its input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.registry import STRATEGIES, strategy
from bandit.core.allocators.strategy import DayResults, Strategy
from bandit.core.model import PolicyName

RULES = [strategy(name, {}) for name in STRATEGIES]
Days = list[tuple[int, int, float]]
DRAWN = ("thompson", "discounted_thompson", "sliding_window_thompson")

counts = st.one_of(st.just(0.0), st.floats(0.0, 1e6))
sizes = st.one_of(st.floats(-3.0, 3.0), st.floats(-1e30, 1e30))


@st.composite
def moments(draw: st.DrawFn) -> Moments:
    n = draw(counts)
    total = draw(sizes) * n
    extra = draw(st.floats(0.0, 10.0))
    return Moments(n=n, total=total, squares=(total * total / n if n else 0.0) + extra * n)


@st.composite
def histories(draw: st.DrawFn) -> Days:
    days = draw(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 200), sizes), max_size=30))
    return [(ago, n, n * mean) for ago, n, mean in days]


fields = st.lists(moments(), min_size=1, max_size=20).map(
    lambda found: {PolicyName(f"arm{i}"): each for i, each in enumerate(found)}
)
rules = st.sampled_from(RULES)
CHAMPION = PolicyName("arm0")


@given(rules, fields, st.integers(0, 2**32))
def test_shares_sum_to_one_and_follow_the_seed(
    rule: Strategy, arms: dict[PolicyName, Moments], seed: int
) -> None:
    one, again = (
        rule.shares(arms, champion=CHAMPION, rng=np.random.default_rng(seed)) for _ in range(2)
    )
    assert list(one) == list(arms)
    assert all(0.0 <= share <= 1.0 for share in one.values())
    assert math.isclose(sum(one.values()), 1.0, abs_tol=1e-9)
    assert one == again


@given(st.data(), rules.filter(lambda rule: rule.name not in DRAWN), fields)
def test_the_order_of_the_arms_says_nothing(
    data: st.DataObject, rule: Strategy, arms: dict[PolicyName, Moments]
) -> None:
    order = data.draw(st.permutations(list(arms)))
    rng = np.random.default_rng(1)
    straight = rule.shares(arms, champion=CHAMPION, rng=rng)
    mixed = rule.shares({policy: arms[policy] for policy in order}, champion=CHAMPION, rng=rng)
    assert mixed == straight


@pytest.mark.parametrize("name", DRAWN)
@given(st.data())
def test_the_order_of_the_arms_is_within_the_error_of_the_draws(
    name: str, data: st.DataObject
) -> None:
    found = data.draw(st.lists(st.floats(-0.3, 0.5), min_size=2, max_size=5))
    arms = {
        PolicyName(f"arm{i}"): Moments(n=200, total=200 * mean, squares=500.0)
        for i, mean in enumerate(found)
    }
    order = data.draw(st.permutations(list(arms)))
    rule = strategy(name, {})
    straight = rule.shares(arms, champion=CHAMPION, rng=np.random.default_rng(1))
    mixed = rule.shares(
        {policy: arms[policy] for policy in order},
        champion=CHAMPION,
        rng=np.random.default_rng(2),
    )
    # Two times 1000 draws: five standard errors of a difference are 0.11.
    for policy in arms:
        assert mixed[policy] == pytest.approx(straight[policy], abs=0.12)


@given(rules, histories(), st.floats(0.0, 1e60))
def test_what_counts_of_a_history_is_always_lawful(
    rule: Strategy, days: Days, second_moment: float
) -> None:
    found = rule.weigh(DayResults.of(days), second_moment=second_moment)
    assert 0.0 <= found.n <= sum(n for _, n, _ in days)
    assert found == rule.weigh(DayResults.of(days[::-1]), second_moment=second_moment)


@given(rules, histories(), histories())
def test_weighing_is_linear_in_the_days(rule: Strategy, days: Days, more: Days) -> None:
    parts = [rule.weigh(DayResults.of(some), second_moment=2.0) for some in (days, more)]
    whole = rule.weigh(DayResults.of([*days, *more]), second_moment=2.0)
    biggest = max([abs(total) for _, _, total in [*days, *more]], default=0.0)
    assert whole.n == pytest.approx(parts[0].n + parts[1].n)
    assert whole.total == pytest.approx(
        parts[0].total + parts[1].total, abs=1e-9 * max(biggest, 1.0)
    )


@given(st.sampled_from(DRAWN), st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_no_day_ever_counts_more_the_longer_ago_it_was(name: str, ages: list[int]) -> None:
    rule = strategy(name, {})
    counted = [
        rule.weigh(DayResults.of([(ago, 10, 1.0)]), second_moment=2.0).n for ago in sorted(ages)
    ]
    assert counted == sorted(counted, reverse=True)
