"""Thompson shares: the posterior is the textbook's, and more is believed of those who earned it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from bandit.core.allocators.posterior import (
    PRIOR_TRADES,
    Moments,
    ResultKind,
    best_shares,
    drawn_means,
)
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicyName

OLD, NEW = PolicyName("old"), PolicyName("new")


def moments(results: np.ndarray) -> Moments:
    return Moments(n=len(results), total=float(results.sum()), squares=float((results**2).sum()))


@pytest.mark.no_cover
def test_draws_follow_the_posterior_of_the_mean() -> None:
    # By quadrature over the precision: prior NIG(0, 25 trades, 2, 2) times the likelihood.
    results = np.random.default_rng(1).normal(0.4, 1.5, 40)
    n, weight = len(results), PRIOR_TRADES + 40
    shape = 2.0 + n / 2
    scatter = ((results - results.mean()) ** 2).sum()
    rate = 2.0 + scatter / 2 + PRIOR_TRADES * n * results.mean() ** 2 / (2 * weight)
    centre = results.sum() / weight

    def density(mu: float) -> float:
        def joint(tau: float) -> float:
            normal = stats.norm.pdf(mu, centre, 1 / math.sqrt(weight * tau))
            return float(normal * stats.gamma.pdf(tau, shape, scale=1 / rate))

        return float(integrate.quad(joint, 0, 5, limit=200)[0])

    below = integrate.quad(density, -2.0, 0.3, limit=100)[0]
    drawn = drawn_means(moments(results), draws=200_000, rng=np.random.default_rng(2))
    assert (drawn < 0.3).mean() == pytest.approx(below, abs=0.005)
    assert drawn.mean() == pytest.approx(centre, abs=0.003)


def test_arms_nobody_knows_of_share_alike() -> None:
    nothing = Moments(n=0, total=0.0, squares=0.0)
    shares = best_shares({OLD: nothing, NEW: nothing}, rng=np.random.default_rng(3), draws=20_000)
    assert shares[NEW] == pytest.approx(0.5, abs=0.02)


@given(st.floats(-0.3, 0.3), st.floats(0.05, 1.0), st.integers(20, 2000))
def test_who_earned_more_gets_more(mean: float, more: float, n: int) -> None:
    squares = n * 2.0 + n * (abs(mean) + more) ** 2
    arms = {
        OLD: Moments(n=n, total=mean * n, squares=squares),
        NEW: Moments(n=n, total=(mean + more) * n, squares=squares),
    }
    shares = best_shares(arms, rng=np.random.default_rng(4), draws=4000)
    assert shares[NEW] > 0.48
    assert math.isclose(sum(shares.values()), 1.0)


def test_a_seed_gives_the_same_night() -> None:
    arms = {
        OLD: Moments(n=90, total=9.0, squares=200.0),
        NEW: Moments(n=9, total=3.0, squares=20.0),
    }
    one, again, other = (best_shares(arms, rng=np.random.default_rng(s)) for s in (5, 5, 6))
    assert one == again != other


def test_stored_sums_are_read_as_they_were_written() -> None:
    paper = Moments(n=2, total=1.0, squares=2.0, kind=ResultKind.PAPER)
    assert Moments.from_json(json.loads(json.dumps(asdict(paper)))) == paper


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"n": -1}, "n"),
        ({"n": math.inf}, "n"),
        ({"total": math.nan}, "total"),
        ({"total": 5.0}, "squares"),
        ({"squares": math.nan}, "squares"),
        ({"squares": math.inf}, "squares"),
        ({"n": 0.0, "squares": -1.0}, "squares"),
    ],
)
def test_impossible_sums_are_refused(values: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Moments(**{"n": 4.0, "total": 1.0, "squares": 2.0} | values)
    assert refused.value.field == field
