"""Whether paper agrees with live: what is counted, and when that is enough to say so."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from bandit.core.fill_gap import STEP, FillGap, FillGapRule, paper_agrees
from bandit.core.model import Verdict

RULE = FillGapRule()


def gap_of(differences: np.ndarray) -> FillGap:
    steps = np.rint(differences * STEP).astype(np.int64).tolist()
    return FillGap(n=len(steps), total=sum(steps), squares=sum(s * s for s in steps))


def test_sums_are_exact_to_the_last_digit_of_a_return() -> None:
    largest = Decimal("999.999999999999")
    gap = FillGap.of([(largest, -largest), (Decimal("1e-12"), Decimal(0))])
    assert gap.total == 2 * (10**15 - 1) + 1
    assert gap.squares == 4 * (10**15 - 1) ** 2 + 1


def test_the_interval_is_that_of_the_formula_by_hand() -> None:
    # n = 50, half of the differences 0 and half 0.001: mean 0.0005, sd 0.0005 * sqrt(50 / 49).
    # rho^2 = (5.991465 + log(6.991465)) / 100 = 0.07936155; n rho^2 + 1 = 4.968077;
    # sqrt(2 * 4.968077 / (50 * 3.968077) * log(sqrt(4.968077) / 0.05)) = 0.436082469.
    gap = FillGap.of([(Decimal("0.001") * (i % 2), Decimal(0)) for i in range(50)])
    found = gap.interval(0.05)
    assert found is not None
    half = 0.0005 * (50 / 49) ** 0.5 * 0.436082469
    assert found == pytest.approx((0.0005 - half, 0.0005 + half), abs=1e-9)


def test_there_is_no_interval_of_one_trade_and_no_mean_of_none() -> None:
    assert FillGap().mean is None
    assert FillGap.of([(Decimal(1), Decimal(0))]).interval(0.05) is None


@pytest.mark.parametrize(
    ("flattery", "n", "verdict"),
    [
        (0.0, 49, Verdict.INCONCLUSIVE),
        (0.0, 50, Verdict.PASS),
        (0.0002, 50, Verdict.PASS),
        (0.00021, 50, Verdict.FAIL),
        # Paper that is worse than live flatters nobody.
        (-0.01, 50, Verdict.PASS),
        (0.01, 49, Verdict.INCONCLUSIVE),
    ],
)
def test_verdict_of_gaps_that_are_all_alike(flattery: float, n: int, verdict: Verdict) -> None:
    reason = paper_agrees(gap_of(np.full(n, -flattery)), RULE)
    assert reason.verdict is verdict
    assert reason.value == pytest.approx(flattery)
    assert reason.limit == 0.0002


def test_what_the_interval_leaves_open_stays_open() -> None:
    rng = np.random.default_rng(1)
    noisy = rng.standard_normal(60) * 0.003
    assert paper_agrees(gap_of(noisy - noisy.mean()), RULE).verdict is Verdict.INCONCLUSIVE
    assert paper_agrees(FillGap(), RULE).verdict is Verdict.INCONCLUSIVE
    assert paper_agrees(FillGap(), RULE).value is None


@pytest.mark.parametrize("tail", [3.0, 30.0])
def test_it_is_wrong_no_more_often_than_stated_whenever_it_is_looked_at(tail: float) -> None:
    # 1000 arms whose paper flatters by just the limit, looked at after every trade from the 50th
    # to the 1500th: the interval may lose the truth in alpha of them, give or take 3 standard
    # errors, and neither verdict comes more often than that.
    rng = np.random.default_rng(20_260_301)
    n, reps = 1500, 1000
    drawn = rng.standard_t(tail, size=(reps, n)) * 0.0005 - RULE.flattery_max
    looks = np.arange(RULE.trades, n + 1)
    sums, squares = drawn.cumsum(axis=1)[:, looks - 1], (drawn**2).cumsum(axis=1)[:, looks - 1]
    spreads = np.sqrt((squares - sums**2 / looks) / (looks - 1))
    missed = np.abs(sums / looks + RULE.flattery_max) > spreads * [_half(int(k)) for k in looks]
    rate = missed.any(axis=1).mean()
    assert 0.0 < rate <= RULE.alpha + 3 * (RULE.alpha * (1 - RULE.alpha) / reps) ** 0.5


def _half(n: int) -> float:
    """Half the width of the interval of `n` differences of spread 1, asked of the product."""
    gap = gap_of(np.array([1.0, -1.0] * (n // 2) + [0.0] * (n % 2)))
    found = gap.interval(RULE.alpha)
    assert found is not None
    return (found[1] - found[0]) / 2 / (2 * (n // 2) / (n - 1)) ** 0.5


@pytest.mark.parametrize(
    "values",
    [
        {"flattery_max": -0.0001},
        {"flattery_max": float("nan")},
        {"flattery_max": 0.02},
        {"trades": 1},
        {"alpha": 0.0},
        {"alpha": 0.3},
    ],
)
def test_rules_that_say_nothing_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidInput) as refused:
        FillGapRule(**values)  # type: ignore[arg-type]
    assert refused.value.field in values
