"""A drawdown limit is held against what healthy and sick arms do at this size of trades."""

from __future__ import annotations

import numpy as np
import pytest

from bandit.core.equity import drawdown_percent
from bandit.core.limit_check import LimitCheck, deepest_percents, limit_checks, resampled
from bandit.core.model import Strategy, Verdict
from bandit.core.reading import ChecklistRule, RampRule, Rules

WINDOW = ChecklistRule().long_window


def earned(seed: int, *, n: int = WINDOW, mean: float = 0.002) -> list[float]:
    rng = np.random.default_rng(seed)
    found: list[float] = (mean + 0.01 * rng.standard_normal(n)).tolist()
    return found


def checked(results: list[float], rules: Rules, fraction: float) -> tuple[LimitCheck, ...]:
    return limit_checks(results, rules=rules, strategy=Strategy.RAMP, nominal_fraction=fraction)


def test_drawdowns_are_those_of_the_checklist() -> None:
    rng = np.random.default_rng(1)
    paths = 0.05 * rng.standard_normal((20, WINDOW))
    expected = [drawdown_percent((0.3 * path).tolist(), starting_capital=1.0) for path in paths]
    assert deepest_percents(paths, 0.3) == pytest.approx(expected)


def test_paths_keep_the_trades_and_their_neighbours() -> None:
    known = np.arange(100.0)
    paths = resampled(known, length=60)
    assert set(np.unique(paths)) <= set(known)
    follows = ((paths[:, 1:] - paths[:, :-1]) % 100 == 1).mean()
    # Nine of ten go on, and one of a hundred of those that begin anew does so by chance.
    assert follows == pytest.approx(0.9 + 0.1 / 100, abs=0.01)
    assert paths.mean() == pytest.approx(known.mean(), abs=1.5)


def test_share_is_that_of_fresh_windows_of_the_same_arm() -> None:
    # The rate from one window of trades is rough; over sixty of them it is right.
    rules = Rules(checklist=ChecklistRule(drawdown_halt_percent=1.0, pf_throttle=0))
    fresh = np.array([earned(seed) for seed in range(10_000, 14_000)])
    truth = {sign: (deepest_percents(sign * fresh, 0.1) > 1.0).mean() for sign in (1, -1)}
    found = [checked(earned(s), rules, 0.1)[0] for s in range(60)]
    assert np.mean([c.healthy for c in found]) == pytest.approx(truth[1], abs=0.06)
    # Turned round as a whole or shifted: for symmetric returns that is the same.
    assert np.mean([c.sick for c in found]) == pytest.approx(truth[-1], abs=0.06)
    assert 0.1 < truth[1] < 0.9


def test_larger_trades_pass_a_limit_more_often_and_smaller_never() -> None:
    results = earned(3)
    small, usual, large = (checked(results, Rules(), fraction)[0] for fraction in (0.01, 0.3, 3.0))
    assert small.healthy == small.sick == 0.0
    assert [r.verdict for r in small.reasons] == [Verdict.PASS, Verdict.FAIL]
    assert usual.healthy is not None
    assert large.healthy is not None
    assert usual.healthy < large.healthy
    assert [r.verdict for r in large.reasons] == [Verdict.FAIL, Verdict.PASS]


def test_both_limits_are_checked_by_their_names() -> None:
    rules = Rules(
        ramp=RampRule(drawdown_limit_percent=0.5),
        checklist=ChecklistRule(drawdown_halt_percent=5.0),
    )
    halt, ramp = checked(earned(4), rules, 0.1)
    assert (ramp.setting, ramp.percent) == ("ramp.drawdown_limit_percent", 0.5)
    assert (halt.setting, halt.percent) == ("checklist.drawdown_halt_percent", 5.0)
    assert ramp.healthy is not None
    assert halt.healthy is not None
    assert ramp.healthy > halt.healthy
    # Other strategies do not read the ramp's.
    [only] = limit_checks([], rules=rules, strategy=Strategy.THOMPSON, nominal_fraction=0.1)
    assert only.setting == "checklist.drawdown_halt_percent"


@pytest.mark.parametrize("results", [earned(5, n=WINDOW - 1), earned(6, mean=-0.002), []])
def test_too_few_trades_and_a_losing_champion_say_nothing(results: list[float]) -> None:
    for found in checked(results, Rules(), 0.1):
        assert (found.healthy, found.sick) == (None, None)
        assert {r.verdict for r in found.reasons} == {Verdict.INCONCLUSIVE}
