"""Alerts about arms: what they earn, how deep they fall, and who the champion is."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from alerts.limits import AlertLimits
from alerts.rule import (
    PERCENT,
    STEP,
    VALUE,
    AlertRule,
    Case,
    Component,
    Drill,
    Recording,
    Severity,
    Source,
    Take,
    number,
)
from bandit.core.lifecycle import ArmVerb

_ARM: Final = ("experiment", "policy")
_WHO: Final = "{{ $labels.policy }} in experiment {{ $labels.experiment }}"
_LABELS: Final = {"experiment": "btc", "policy": "rl"}
_AT: Final = '{experiment="btc",policy="rl",role="challenger"}'
_COUNTED: Final = '{experiment="btc",policy="rl"}'
_TRAFFIC_AT: Final = f"liveops_arm_traffic_ratio{_AT}"
_TRADES_AT: Final = f"liveops_arm_trades_total{_COUNTED}"
_PAIR: Final = "ReadingsMissing; a window without trades has no value, a retired arm no series"
_HOUR: Final = timedelta(hours=1)
_QUARTER: Final = timedelta(minutes=15)

_TRAFFIC: Final = Recording(
    of="liveops_arm_traffic_ratio", by=_ARM, take=Take.HIGHEST, window=_HOUR
)
_TRADES: Final = Recording(of="liveops_arm_trades_total", by=_ARM, take=Take.HIGHEST)
_FACTOR: Final = Recording(of="pf_challenger_30", by=_ARM, take=Take.LOWEST)
_DRAWDOWN: Final = Recording(of="dd_challenger_pct", by=_ARM, take=Take.HIGHEST)
_STREAK: Final = Recording(of="liveops_arm_losing_streak", by=_ARM, take=Take.HIGHEST)
_WON: Final = Recording(of="liveops_arm_win_ratio", by=_ARM, take=Take.LOWEST)
_SHARPE: Final = Recording(of="liveops_arm_sharpe_ratio", by=_ARM, take=Take.NEWEST_LOWEST)
_WORSE: Final = Recording(
    of="liveops_arm_backtest_worse", by=(*_ARM, "what"), take=Take.NEWEST_HIGHEST
)
_CHAMPION: Final = Recording(
    of="liveops_arm_traffic_ratio",
    by=_ARM,
    take=Take.NEWEST_HIGHEST,
    where={"role": "champion"},
)

_AT_WORK: Final = f"and on (experiment, policy) {_TRAFFIC} > 0"
"""An arm without traffic for an hour is told of no more: what was to be done is done."""

_CLOSED_TRADE: Final = "it changes with a closed trade only, and money is lost meanwhile"


def arm_rules(limits: AlertLimits) -> tuple[AlertRule, ...]:
    """Return the alerts about arms."""
    return (
        _profit_factor_low(limits),
        _drawdown_high(limits),
        _losses_high(limits),
        _win_rate_low(limits),
        _sharpe_low(limits),
        _worse_than_backtest(),
        _champion_changed(),
    )


def _enough(limits: AlertLimits) -> str:
    return f"and on (experiment, policy) {_TRADES} >= {limits.profit_factor_trades}"


def _beside(limits: AlertLimits) -> dict[str, str]:
    return {_TRADES_AT: str(limits.profit_factor_trades), _TRAFFIC_AT: "0.125"}


def _too_few(limits: AlertLimits) -> dict[str, str]:
    return {_TRADES_AT: str(limits.profit_factor_trades - 1)}


_IDLE: Final = {_TRAFFIC_AT: "0"}


def _profit_factor_low(limits: AlertLimits) -> AlertRule:
    limit, trades = number(limits.profit_factor), limits.profit_factor_trades
    below = number(limits.profit_factor * 63 / 64)
    series = f"pf_challenger_30{_AT}"
    return AlertRule(
        name="ChallengerProfitFactorLow",
        component=Component.ARM,
        severity=Severity.CRITICAL,
        stops=ArmVerb.THROTTLE,
        reads=(_TRAFFIC, _FACTOR),
        expression=f"{_FACTOR} < {limit} {_AT_WORK}",
        threshold=f"profit factor < {limit} over {trades} trades",
        at_once=_CLOSED_TRADE,
        summary="A challenger's profit factor is under its limit.",
        description=(
            f"{_WHO} has a profit factor of {VALUE} over its last {trades} trades, under {limit}. "
            "The checklist throttles it to 0 %."
        ),
        sources=(
            Source(document="001", quote="| `pf_challenger_30` | 2.1"),
            Source(document="001", quote="**ChallengerProfitFactorLow**: PF < 1.6"),
        ),
        setting="checklist.pf_throttle, checklist.pf_window",
        pair="ReadingsMissing; a window that is not full has no value, a retired arm no series",
        drill=Drill(
            wrong={series: below},
            right={series: limit},
            beside={_TRAFFIC_AT: "0.125"},
            silent=(_IDLE,),
            labels=_LABELS,
            description=(
                f"rl in experiment btc has a profit factor of {float(below):.4g} over its last "
                f"{trades} trades, under {limit}. The checklist throttles it to 0 %."
            ),
        ),
    )


def _drawdown_high(limits: AlertLimits) -> AlertRule:
    limit, above = number(limits.drawdown_percent), number(limits.drawdown_percent * 65 / 64)
    series = f"dd_challenger_pct{_AT}"
    return AlertRule(
        name="ChallengerDrawdownHigh",
        component=Component.ARM,
        severity=Severity.CRITICAL,
        stops=ArmVerb.HALT,
        reads=(_TRAFFIC, _DRAWDOWN),
        expression=f"{_DRAWDOWN} > {limit} {_AT_WORK}",
        threshold=f"drawdown > {limit} %",
        at_once=_CLOSED_TRADE,
        summary="A challenger's drawdown is over its limit.",
        description=(
            f"{_WHO} has fallen by {VALUE} % within its long window, more than {limit} %. "
            "The checklist halts it and gives its traffic to the champion."
        ),
        sources=(
            Source(document="001", quote="| `dd_challenger_pct` | < 3% | > 4% |"),
            Source(document="001", quote="**ChallengerDrawdownHigh**: DD > 4%"),
        ),
        setting="checklist.drawdown_halt_percent",
        pair="ReadingsMissing; a retired arm has no series",
        drill=Drill(
            wrong={series: above},
            right={series: limit},
            beside={_TRAFFIC_AT: "0.125"},
            silent=(_IDLE,),
            labels=_LABELS,
            description=(
                f"rl in experiment btc has fallen by {float(above):.4g} % within its long window, "
                f"more than {limit} %. The checklist halts it and gives its traffic to the "
                "champion."
            ),
        ),
    )


def _losses_high(limits: AlertLimits) -> AlertRule:
    limit = limits.losing_streak
    series = f"liveops_arm_losing_streak{_AT}"
    return AlertRule(
        name="ConsecutiveLossesHigh",
        component=Component.ARM,
        severity=Severity.WARNING,
        reads=(_TRAFFIC, _STREAK),
        expression=f"{_STREAK} >= {limit} {_AT_WORK}",
        threshold=f"{limit} losses in a row, or more",
        at_once=_CLOSED_TRADE,
        summary="An arm has lost several trades in a row.",
        description=f"{_WHO} has lost its last {VALUE} trades.",
        sources=(
            Source(document="001", quote="**ConsecutiveLossesHigh**:"),
            Source(document="002", quote="losing streak >= 5"),
        ),
        setting="performance_guard.losing_streak_threshold_reduced",
        pair="ReadingsMissing; a retired arm has no series",
        drill=Drill(
            wrong={series: str(limit)},
            right={series: str(limit - 1)},
            beside={_TRAFFIC_AT: "0.125"},
            silent=(_IDLE,),
            labels=_LABELS,
            description=f"rl in experiment btc has lost its last {limit} trades.",
        ),
    )


def _win_rate_low(limits: AlertLimits) -> AlertRule:
    limit, below = number(limits.win_rate), number(limits.win_rate * 63 / 64)
    trades, series = limits.profit_factor_trades, f"liveops_arm_win_ratio{_AT}"
    return AlertRule(
        name="WinRateLow",
        component=Component.ARM,
        severity=Severity.WARNING,
        reads=(_TRAFFIC, _TRADES, _WON),
        expression=f"{_WON} < {limit} {_enough(limits)} {_AT_WORK}",
        threshold=f"win rate < {limit}, of {trades} trades or more",
        wait=limits.win_rate_wait,
        at_once="document 003 gives no time, and the rate of all trades moves slowly",
        summary="An arm wins too few of its trades.",
        description=f"{_WHO} has won {PERCENT} of its trades.",
        sources=(
            Source(document="003", quote="- Win rate < 50%"),
            Source(document="004", quote="- win_rate < 0.4 for > 24 hours"),
        ),
        choice="003: the stricter, in value and in time; settings give 004's",
        setting="alert_rules.win_rate_low, alert_rules.win_rate_hours",
        pair=_PAIR,
        drill=Drill(
            wrong={series: below},
            right={series: limit},
            beside=_beside(limits),
            silent=(_too_few(limits), _IDLE),
            labels=_LABELS,
            description=(f"rl in experiment btc has won {float(below) * 100:.4g}% of its trades."),
        ),
    )


def _sharpe_low(limits: AlertLimits) -> AlertRule:
    limit, below = number(limits.sharpe), number(limits.sharpe - 1 / 128)
    series = f"liveops_arm_sharpe_ratio{_AT}"
    return AlertRule(
        name="SharpeRatioLow",
        component=Component.ARM,
        severity=Severity.WARNING,
        reads=(_TRAFFIC, _SHARPE),
        expression=f"{_SHARPE} < {limit} {_AT_WORK}",
        threshold=f"Sharpe ratio of daily equity, annualised, < {limit}",
        wait=limits.sharpe_wait,
        at_once="the setting says so",
        summary="An arm's Sharpe ratio is low.",
        description=f"{_WHO} has a Sharpe ratio of {VALUE}, under {limit}.",
        sources=(Source(document="004", quote="- sharpe_ratio < 0.5 for > 7 days"),),
        setting="alert_rules.sharpe_low, alert_rules.sharpe_days",
        pair=_PAIR,
        drill=Drill(
            wrong={series: below},
            right={series: limit},
            beside={_TRAFFIC_AT: "0.125"},
            silent=(_IDLE,),
            labels=_LABELS,
            description=(
                f"rl in experiment btc has a Sharpe ratio of {float(below):.4g}, under {limit}."
            ),
            holds=False,
        ),
    )


def _worse_than_backtest() -> AlertRule:
    at = '{experiment="btc",policy="rl",role="challenger",what="return_mean"}'
    series = f"liveops_arm_backtest_worse{at}"
    return AlertRule(
        name="LiveWorseThanBacktest",
        component=Component.ARM,
        severity=Severity.WARNING,
        reads=(_TRAFFIC, _WORSE),
        expression=f"{_WORSE} >= 1 {_AT_WORK}",
        threshold="the whole 95 % interval of the gap says worse",
        wait=timedelta(days=2),
        summary="An arm's live trades are worse than those of its backtest.",
        description=(
            f"{_WHO}: live trades are worse than the backtest's in {{{{ $labels.what }}}}, by the "
            "whole 95 % interval of the difference."
        ),
        pair=_PAIR,
        drill=Drill(
            wrong={series: "1"},
            right={series: "0"},
            beside={_TRAFFIC_AT: "0.125"},
            silent=(_IDLE,),
            labels={**_LABELS, "what": "return_mean"},
            description=(
                "rl in experiment btc: live trades are worse than the backtest's in return_mean, "
                "by the whole 95 % interval of the difference."
            ),
            holds=False,
        ),
    )


def _champion_changed() -> AlertRule:
    return AlertRule(
        name="ChampionChanged",
        component=Component.ARM,
        severity=Severity.INFO,
        reads=(_CHAMPION,),
        expression=(
            f"{_CHAMPION} unless on (experiment, policy) {_CHAMPION} offset 15m "
            f"and on (experiment) {_CHAMPION} offset 15m"
        ),
        threshold="another champion than 15 minutes ago",
        at_once="it tells of a change, for 15 minutes",
        summary="An experiment has another champion.",
        description=f"{_WHO} is the champion since less than 15 minutes ago.",
        sources=(
            Source(document="000", quote="**MODEL_ROTATION**: Model successfully rotated"),
            Source(document="002", quote="- Model rotation (if enabled)"),
            Source(document="003", quote="- Deployment completed"),
            Source(document="003", quote="Model rolled back automatically"),
        ),
        choice="each way to another champion: promotion, rotation, rollback, by whomever",
        pair="it tells of a change, not of a state",
        drill=Drill(
            labels=_LABELS,
            description="rl in experiment btc is the champion since less than 15 minutes ago.",
            cases=_changes(),
        ),
    )


def _changes() -> tuple[Case, ...]:
    """Return a change after 20 minutes, and what is none."""
    old = 'liveops_arm_traffic_ratio{experiment="btc",policy="prod",role="champion"}'
    new = 'liveops_arm_traffic_ratio{experiment="btc",policy="rl",role="champion"}'
    arm = 'liveops_arm_traffic_ratio{experiment="btc",policy="rl",role="challenger"}'
    before, after, always = "0.5x39 stale", "_x40 0.5x60", "0.5x100"
    changed = timedelta(minutes=20)
    told = {changed - STEP: False, changed: True, changed + _QUARTER - STEP: True}
    return (
        Case(
            name="another champion is told of for 15 minutes",
            series={old: before, new: after},
            fires={**told, changed + _QUARTER: False},
        ),
        Case(
            name="the champion of another job is none",
            series={old: always, _elsewhere(new): after},
            fires={changed: False, changed + _QUARTER: False},
        ),
        Case(
            name="another arm is none",
            series={old: always, arm: after},
            fires={changed: False, changed + _QUARTER: False},
        ),
        Case(
            name="the first champion of an experiment changes nothing",
            series={new: after},
            fires={changed: False, changed + _QUARTER: False},
        ),
        Case(
            name="the same champion stays, also over scrapes that fail",
            series={new: "0.5x39 stale _x2 0.5x60"},
            fires={changed + n * STEP: False for n in range(40)},
        ),
    )


def _elsewhere(series: str) -> str:
    return series.replace("{", '{job="other",')
