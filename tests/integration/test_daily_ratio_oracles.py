"""Daily ratios beside quantstats and empyrical on generated returns, so that no data is needed."""

from __future__ import annotations

import math

import empyrical
import numpy as np
import pandas as pd
import pytest
import quantstats.stats as quantstats

from bandit.core.equity import calmar_daily, sharpe_daily, sortino_daily


@pytest.mark.parametrize("days", [2, 30, 365, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_daily_ratios_agree_on_generated_returns(days: int, seed: int) -> None:
    returns = np.random.default_rng(seed).normal(0.001, 0.02, size=days)
    # A loss on the first day, and some days on which nothing closed.
    returns[0] = -0.03
    returns[2::7] = 0.0
    series = pd.Series(returns, index=pd.date_range("2026-01-01", periods=days))
    exact = {"rel": 1e-12, "abs": 1e-12}
    for ours, with_quantstats, with_empyrical in (
        (sharpe_daily, quantstats.sharpe, empyrical.sharpe_ratio),
        (sortino_daily, quantstats.sortino, empyrical.sortino_ratio),
        (calmar_daily, quantstats.calmar, empyrical.calmar_ratio),
    ):
        value = ours(returns.tolist())
        assert value == pytest.approx(float(with_quantstats(series, periods=365)), **exact)
        assert value == pytest.approx(float(with_empyrical(series, annualization=365)), **exact)


def test_where_the_oracles_say_infinity_or_nan_we_say_nothing() -> None:
    gains = [0.01, 0.02, 0.01]
    series = pd.Series(gains, index=pd.date_range("2026-01-01", periods=len(gains)))
    assert math.isnan(quantstats.sortino(series, periods=365))
    assert empyrical.sortino_ratio(series, annualization=365) == math.inf
    assert (sortino_daily(gains), calmar_daily(gains)) == (None, None)
