"""Alerts about accounts and their performance guards."""

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

_ACCOUNT: Final = ("account",)
_WHO: Final = "Account {{ $labels.account }}"
_LABELS: Final = {"account": "usd"}
_AT: Final = '{account="usd"}'
_PAIR: Final = "ReadingsMissing"
_LOST: Final = "money is lost meanwhile"

_EQUITY: Final = Recording(of="liveops_account_equity", by=_ACCOUNT, take=Take.LOWEST)
_DAY: Final = Recording(of="liveops_account_daily_loss_ratio", by=_ACCOUNT, take=Take.HIGHEST)
_DEPTH: Final = Recording(of="liveops_account_drawdown_ratio", by=_ACCOUNT, take=Take.HIGHEST)
_KILLED: Final = Recording(of="liveops_account_killed", by=_ACCOUNT, take=Take.HIGHEST)
_HALTED: Final = Recording(of="liveops_trading_halted", take=Take.HIGHEST)
_RECONCILED: Final = Recording(
    of="liveops_account_reconciled", by=_ACCOUNT, take=Take.NEWEST_LOWEST
)
_GUARD: Final = Recording(
    of="liveops_performance_guard_state", by=("scope", "name"), take=Take.NEWEST_HIGHEST
)
_GUARD_AT: Final = 'liveops_performance_guard_state{scope="account",name="usd"}'
_GUARD_LABELS: Final = {"scope": "account", "name": "usd"}
_GUARD_WHO: Final = "The performance guard of {{ $labels.scope }} {{ $labels.name }}"
_GUARD_PAIR: Final = "ReadingsMissing; a guard that is off has no series"
_GUARD_ONCE: Final = "a guard changes with a closed trade, and waits by its own rule"
_QUARTER: Final = timedelta(minutes=15)


def money_rules(limits: AlertLimits) -> tuple[AlertRule, ...]:
    """Return the alerts about accounts and guards."""
    return (
        _balance_low(limits),
        _daily_loss_high(limits),
        _drawdown_high(limits),
        _killed(),
        _halted(),
        _not_reconciled(),
        _paused(),
        _reduced(),
        _recovered(),
    )


def _balance_low(limits: AlertLimits) -> AlertRule:
    limit, below = number(limits.balance), number(limits.balance * 63 / 64)
    series = f"liveops_account_equity{_AT}"
    return AlertRule(
        name="AccountBalanceLow",
        component=Component.ACCOUNT,
        severity=Severity.CRITICAL,
        reads=(_EQUITY,),
        expression=f"{_EQUITY} < {limit}",
        threshold=f"equity < {limit} of the account's currency",
        at_once=_LOST,
        summary="An account is nearly empty.",
        description=f"{_WHO} has an equity of {VALUE}, under {limit}.",
        sources=(Source(document="001", quote="**AccountBalanceLow**: Balance < $10"),),
        setting="alert_rules.balance_low",
        pair=_PAIR,
        drill=Drill(
            wrong={series: below},
            right={series: limit},
            labels=_LABELS,
            description=f"Account usd has an equity of {float(below):.4g}, under {limit}.",
        ),
    )


def _daily_loss_high(limits: AlertLimits) -> AlertRule:
    limit, above = number(limits.daily_loss), number(limits.daily_loss * 65 / 64)
    series = f"liveops_account_daily_loss_ratio{_AT}"
    return AlertRule(
        name="DailyLossHigh",
        component=Component.ACCOUNT,
        severity=Severity.CRITICAL,
        reads=(_DAY,),
        expression=f"{_DAY} > {limit}",
        threshold=f"loss of the UTC day > {limit} of what it began with",
        at_once=_LOST,
        summary="An account has lost more than a day may lose.",
        description=f"{_WHO} has lost {PERCENT} of what the day began with.",
        sources=(
            Source(document="002", quote="max_daily_loss: 0.03  # 3%"),
            Source(document="003", quote="- Daily loss > 5%"),
            Source(document="004", quote="- daily_pnl < -MAX_DAILY_LOSS"),
        ),
        choice="002 and 004 (3 %): stricter than 003's 5 %, and what kills the account",
        setting="risk.max_daily_loss",
        pair=_PAIR,
        drill=Drill(
            wrong={series: above},
            right={series: limit},
            labels=_LABELS,
            description=(
                f"Account usd has lost {float(above) * 100:.4g}% of what the day began with."
            ),
        ),
    )


def _drawdown_high(limits: AlertLimits) -> AlertRule:
    limit, above = number(limits.drawdown), number(limits.drawdown * 65 / 64)
    series = f"liveops_account_drawdown_ratio{_AT}"
    return AlertRule(
        name="DrawdownHigh",
        component=Component.ACCOUNT,
        severity=Severity.CRITICAL,
        reads=(_DEPTH,),
        expression=f"{_DEPTH} > {limit}",
        threshold=f"equity under its peak by > {limit}",
        at_once=_LOST,
        summary="An account's drawdown is over its limit.",
        description=f"{_WHO} stands {PERCENT} under its peak.",
        sources=(
            Source(document="002", quote="max_drawdown: 0.10  # 10%"),
            Source(document="004", quote="- drawdown > MAX_DRAWDOWN_LIMIT"),
        ),
        choice="002 (10 %): stricter than 004's 15 %",
        setting="risk.max_drawdown",
        pair=_PAIR,
        drill=Drill(
            wrong={series: above},
            right={series: limit},
            labels=_LABELS,
            description=f"Account usd stands {float(above) * 100:.4g}% under its peak.",
        ),
    )


def _killed() -> AlertRule:
    series = f"liveops_account_killed{_AT}"
    return AlertRule(
        name="KillSwitchActive",
        component=Component.ACCOUNT,
        severity=Severity.CRITICAL,
        reads=(_KILLED,),
        expression=f"{_KILLED} >= 1",
        threshold="the account is killed",
        at_once="a person has to know at once",
        summary="An account's kill switch is on.",
        description=f"{_WHO} is killed: nothing is decided until a person releases it.",
        sources=(
            Source(document="000", quote="**KILL_SWITCH**: Kill switch activated"),
            Source(document="002", quote="- Kill switch activated"),
        ),
        pair=_PAIR,
        drill=Drill(
            wrong={series: "1"},
            right={series: "0"},
            labels=_LABELS,
            description=("Account usd is killed: nothing is decided until a person releases it."),
        ),
    )


def _halted() -> AlertRule:
    return AlertRule(
        name="TradingHalted",
        component=Component.ACCOUNT,
        severity=Severity.WARNING,
        reads=(_HALTED,),
        expression=f"{_HALTED} >= 1",
        threshold="an account killed, the latch set, or the guard PAUSED",
        at_once="document 004 gives no time",
        summary="Trading is halted somewhere.",
        description="An account is killed, this host's latch is set, or a guard has paused.",
        sources=(Source(document="004", quote="- trading_halted == 1"),),
        pair="ReadingsMissing, LedgerUnavailable",
        drill=Drill(
            wrong={"liveops_trading_halted": "1"},
            right={"liveops_trading_halted": "0"},
            description="An account is killed, this host's latch is set, or a guard has paused.",
        ),
    )


def _not_reconciled() -> AlertRule:
    series = f"liveops_account_reconciled{_AT}"
    return AlertRule(
        name="AccountNotReconciled",
        component=Component.ACCOUNT,
        severity=Severity.CRITICAL,
        reads=(_RECONCILED,),
        expression=f"{_RECONCILED} == 0",
        threshold="bots and ledger differ in positions or balance",
        at_once="a difference counts only once it has outlasted its grace",
        summary="Bots and ledger differ about an account.",
        description=f"{_WHO}: its bots hold, or have, something else than the ledger says.",
        setting="operations.reconciliation.grace_seconds",
        pair="ReadingsMissing, BotSilent; what no bot ever told of has no series",
        drill=Drill(
            wrong={series: "0"},
            right={series: "1"},
            labels=_LABELS,
            description="Account usd: its bots hold, or have, something else than the ledger says.",
            holds=False,
        ),
    )


def _paused() -> AlertRule:
    return AlertRule(
        name="PerformanceGuardPaused",
        component=Component.GUARD,
        severity=Severity.CRITICAL,
        reads=(_GUARD,),
        expression=f"{_GUARD} >= 2",
        threshold="the guard is PAUSED",
        at_once=_GUARD_ONCE,
        summary="A performance guard has paused trading.",
        description=f"{_GUARD_WHO} is PAUSED: nothing new opens until it recovers.",
        sources=(
            Source(document="000", quote="**PERFORMANCE_GUARD_PAUSED**: Trading paused"),
            Source(document="002", quote="- Performance guard PAUSED"),
        ),
        pair=_GUARD_PAIR,
        drill=Drill(
            wrong={_GUARD_AT: "2"},
            right={_GUARD_AT: "1"},
            labels=_GUARD_LABELS,
            description=(
                "The performance guard of account usd is PAUSED: nothing new opens until it "
                "recovers."
            ),
            holds=False,
        ),
    )


def _reduced() -> AlertRule:
    return AlertRule(
        name="PerformanceGuardReduced",
        component=Component.GUARD,
        severity=Severity.WARNING,
        reads=(_GUARD,),
        expression=f"{_GUARD} == 1",
        threshold="the guard is REDUCED",
        at_once=_GUARD_ONCE,
        summary="A performance guard has reduced sizes.",
        description=f"{_GUARD_WHO} is REDUCED: decisions carry a part of their size.",
        sources=(
            Source(document="000", quote="**PERFORMANCE_GUARD_REDUCED**: Risk reduced"),
            Source(document="002", quote="- Position size reduced to 50%"),
        ),
        pair=_GUARD_PAIR,
        drill=Drill(
            wrong={_GUARD_AT: "1"},
            right={_GUARD_AT: "0"},
            silent=({_GUARD_AT: "2"},),
            labels=_GUARD_LABELS,
            description=(
                "The performance guard of account usd is REDUCED: decisions carry a part of their "
                "size."
            ),
            holds=False,
        ),
    )


def _recovered() -> AlertRule:
    return AlertRule(
        name="PerformanceGuardRecovered",
        component=Component.GUARD,
        severity=Severity.INFO,
        reads=(_GUARD,),
        expression=f"{_GUARD} == 0 and max_over_time({_GUARD}[15m]) > 0",
        threshold="NORMAL now, and another within the last 15 minutes",
        at_once="it tells of a change, for 15 minutes",
        summary="A performance guard has recovered.",
        description=f"{_GUARD_WHO} is NORMAL again.",
        sources=(Source(document="002", quote="- Status returns to NORMAL"),),
        pair="it tells of a change, not of a state",
        drill=Drill(
            labels=_GUARD_LABELS,
            description="The performance guard of account usd is NORMAL again.",
            cases=_recoveries(),
        ),
    )


def _recoveries() -> tuple[Case, ...]:
    recovers = timedelta(minutes=5)
    told = {recovers - STEP: False, recovers: True, recovers + _QUARTER - STEP: True}
    return (
        Case(
            name="REDUCED, then NORMAL, is told of for 15 minutes",
            series={_GUARD_AT: "1x9 0x60"},
            fires={**told, recovers + _QUARTER: False},
        ),
        Case(
            name="PAUSED, then REDUCED, is no recovery",
            series={_GUARD_AT: "2x9 1x60"},
            fires={recovers: False, recovers + _QUARTER: False},
        ),
        Case(
            name="NORMAL that always was is none",
            series={_GUARD_AT: "0x60"},
            fires={timedelta(0): False, recovers: False},
        ),
        Case(
            name="a guard of another job is none",
            series={_GUARD_AT.replace("{", '{job="other",'): "1x9 0x60"},
            fires={recovers: False, recovers + _QUARTER: False},
        ),
        Case(
            name="a guard that vanishes has not recovered",
            series={_GUARD_AT: "1x9 stale"},
            fires={recovers: False, recovers + timedelta(minutes=3): False},
        ),
    )
