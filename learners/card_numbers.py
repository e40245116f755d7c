"""The numbers of a policy card, each with its 95 % interval where it has one."""

from __future__ import annotations

import math
from typing import Final

import msgspec
from scipy.special import stdtrit

from bandit.core.live_gap import wilson_interval
from bandit.core.multiplicity import (
    ReturnMoments,
    probabilistic_sharpe,
    sharpe_interval,
    track_record_min,
)
from bandit.core.performance import NumberState
from learners.backtest import Backtest

_QUANTILE: Final = 0.975


class Number(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number and its interval; null beside the state that says why there is none."""

    value: float | None
    low: float | None
    high: float | None
    state: NumberState


def numbers_of(backtest: Backtest, *, deflated: float | None) -> dict[str, Number]:
    """Return the numbers of a card in the order in which it shows them.

    Intervals: Sharpe ratio ± 1.96 standard errors; profit factor by Fieller; win rate by Wilson;
    mean return of a trade by Student's t. The rest is what happened, and has none.
    """
    metrics, summary = backtest.metrics, backtest.summary
    moments = metrics.moments
    lacking = NumberState.TOO_FEW if moments.n < 3 else NumberState.NO_SPREAD
    none = NumberState.NO_TRADES
    return {
        "total_return": _number(metrics.total_return, none),
        "annual_sharpe": _annual_sharpe(moments, metrics.periods_per_year, lacking),
        "probabilistic_sharpe": _number(probabilistic_sharpe(moments), lacking),
        "deflated_sharpe": _number(deflated, NumberState.TOO_FEW),
        "track_record_min_days": _number(track_record_min(moments), NumberState.UNKNOWN),
        "days": _number(float(moments.n), none),
        "drawdown_max_percent": _number(metrics.drawdown_max_percent, none),
        "trades": _number(float(metrics.profit_factor.n), none),
        "profit_factor": _profit_factor(backtest),
        "win_rate": _win_rate(summary.wins, metrics.profit_factor.n),
        "return_mean": _return_mean(backtest),
    }


def _number(
    value: float | None, reason: NumberState, ends: tuple[float, float] | None = None
) -> Number:
    if value is None:
        return Number(value=None, low=None, high=None, state=reason)
    low, high = (None, None) if ends is None else ends
    return Number(value=value, low=low, high=high, state=NumberState.FINITE)


def _annual_sharpe(moments: ReturnMoments, periods: float, lacking: NumberState) -> Number:
    sharpe, interval, year = moments.sharpe, sharpe_interval(moments), math.sqrt(periods)
    ends = None if interval is None else (interval.low * year, interval.high * year)
    return _number(None if sharpe is None else sharpe * year, lacking, ends)


def _profit_factor(backtest: Backtest) -> Number:
    factor, interval = backtest.metrics.profit_factor, backtest.summary.profit_factor_interval
    ends = None if interval is None else (interval.low, interval.high)
    return _number(factor.value, NumberState(factor.state.value), ends)


def _win_rate(wins: int, n: int) -> Number:
    interval = wilson_interval(wins, n)
    if interval is None:
        return _number(None, NumberState.NO_TRADES)
    return _number(wins / n, NumberState.NO_TRADES, (interval.low, interval.high))


def _return_mean(backtest: Backtest) -> Number:
    summary, n = backtest.summary, backtest.metrics.profit_factor.n
    mean, sqn = summary.expectancy, summary.sqn
    if mean is None or sqn is None or sqn == 0.0:
        return _number(mean, NumberState.NO_TRADES)
    # sqn is the mean over its standard error.
    half = abs(mean / sqn) * float(stdtrit(n - 1, _QUANTILE))
    return _number(mean, NumberState.NO_TRADES, (mean - half, mean + half))
